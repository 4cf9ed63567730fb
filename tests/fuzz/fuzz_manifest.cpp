// The manifest of a dataset: refused, or it survives writing and reading.
#include <cstdlib>

#include "core/json.h"
#include "data/shards.h"

using namespace fathom;
using namespace fathom::data;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const Manifest m = Manifest::from_json(parse_json({reinterpret_cast<const char*>(data), size}, "fuzz"), "fuzz");
    const Json json = m.to_json();
    if (Manifest::from_json(json, "again").to_json() != json) std::abort();
  } catch (const UserError&) {
  }
  return 0;
}
