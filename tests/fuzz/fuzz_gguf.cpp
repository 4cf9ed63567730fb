// A GGUF file: refused with a UserError, or every value and tensor can be read.
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "formats/gguf.h"

using namespace fathom;
using namespace fathom::formats;

namespace {

void use(const GgufMetadata& m, const GgufValue& v) {
  if (m.find(v.key) != &v || v.text().empty()) std::abort();
  const auto attempt = [](auto f) {
    try {
      f();
    } catch (const UserError&) {
    }
  };
  attempt([&] { m.integer(v.key, -100, 1 << 20); });
  attempt([&] { if (!std::isfinite(m.number(v.key, -1e300, 1e300))) std::abort(); });
  attempt([&] { m.boolean(v.key); });
  attempt([&] { m.string(v.key); });
  attempt([&] { if (static_cast<int64_t>(m.strings(v.key).size()) != v.count) std::abort(); });
  attempt([&] { if (static_cast<int64_t>(m.integers(v.key, INT64_MIN, INT64_MAX).size()) != v.count) std::abort(); });
  attempt([&] { if (static_cast<int64_t>(m.floats(v.key).size()) != v.count) std::abort(); });
  attempt([&] { if (static_cast<int64_t>(m.booleans(v.key).size()) != v.count) std::abort(); });
}

void use(const GgufFile& file, const GgufTensor& t) {
  if (ggml_bytes(t.type, t.elements()) != static_cast<int64_t>(t.bytes.size()) || file.find(t.name) != &t) std::abort();
  if (t.row(t.rows() - 1).data() + t.row(0).size() != t.bytes.data() + t.bytes.size()) std::abort();
  const std::vector<float> values = t.to_f32();
  if (!is_quantized(t.type)) return;
  UnpackedBlocks u;
  unpack(t.type, t.bytes, u);
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t g = i / static_cast<size_t>(u.layout.group);
    float v = u.scale(g) * static_cast<float>(u.codes[i] - u.layout.offset);
    if (u.layout.has_minimum) v -= u.minimum(g);
    if (!(v == values[i]) && !(std::isnan(v) && std::isnan(values[i]))) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const GgufFile file({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    for (const GgufValue& v : file.metadata().values()) use(file.metadata(), v);
    size_t total = 0;
    for (const GgufTensor& t : file.tensors()) use(file, t), total += t.bytes.size();
    if (total > size) std::abort();
  } catch (const UserError&) {
  }
  return 0;
}
