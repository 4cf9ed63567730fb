// A safetensors file: refused with a UserError, or every tensor can be read.
#include <cstdlib>

#include "core/error.h"
#include "formats/safetensors.h"

using namespace fathom;
using namespace fathom::formats;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const SafetensorsFile file({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    size_t total = 0;
    for (const TensorView& t : file.tensors()) {
      if (t.elements() * dtype_bytes(t.dtype) != static_cast<int64_t>(t.bytes.size()) || file.find(t.name) != &t) std::abort();
      total += t.bytes.size();
      if (t.dtype == Dtype::F32 || t.dtype == Dtype::F64 || t.dtype == Dtype::F16 || t.dtype == Dtype::BF16)
        if (static_cast<int64_t>(t.to_f32().size()) != t.elements()) std::abort();
    }
    if (total > size) std::abort();
  } catch (const UserError&) {
  }
  return 0;
}
