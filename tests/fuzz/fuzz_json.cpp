// JSON behind its guards, and typed fields over whatever came out.
#include <cstdlib>

#include "core/json.h"

using namespace fathom;

namespace {

void read(const Json& json, int depth) {
  if (!json.is_object() || depth > 4) return;
  const Fields f(json, "fuzz", "path");
  const auto attempt = [](auto body) {
    try {
      body();
    } catch (const UserError&) {
    }
  };
  for (const auto& [key, value] : json.items()) {
    const std::string& k = key;
    attempt([&] { if (const int64_t n = f.integer(k, -5, 1000, 7); n < -5 || n > 1000) std::abort(); });
    attempt([&] { f.integer(k, INT64_MIN, INT64_MAX); });
    attempt([&] { if (!(f.number(k, -1, 1, 0.5) <= 1)) std::abort(); });
    attempt([&] { f.boolean(k); });
    attempt([&] { f.string(k); });
    attempt([&] { f.integers(k, 0, 100); });
    attempt([&] { f.numbers(k, 0, 100); });
    attempt([&] { f.strings(k); });
    attempt([&] { f.object(k).done(); });
    attempt([&] { f.choice<int>(k, {{"a", 1}, {"bcd", 2}}); });
    describe(value);
    read(value, depth + 1);
  }
  f.done();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const bool comments : {false, true}) {
    try {
      const Json json = parse_json(text, "fuzz", {.comments = comments});
      read(json, 0);
      if (parse_json(json.dump(), "again") != json) std::abort();
    } catch (const UserError&) {
    }
  }
  return 0;
}
