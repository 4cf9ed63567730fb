#include "cli/engine_flags.h"

#include <algorithm>

#include "core/limits.h"

namespace fathom::cli {

Flag kv_type_flag() {
  std::vector<std::string> names;
  for (const auto& [name, type] : kKvTypeNames) names.push_back(name);
  return text_flag("kv-type", "TYPE", "how the cache holds keys and values").one_of(std::move(names)).otherwise(kKvTypeNames[0].first);
}

void engine_flags(Command& c) {
  c.group("Memory");
  c.flag(kv_type_flag());
  c.flag(count_flag("kv-memory", "BYTES", "memory that the cache of keys and values may take").range(1, limits::kKvMemory).noted("no limit"));
}

KvType kv_type_of(const Arguments& args) {
  return std::ranges::find_if(kKvTypeNames, [&](const auto& t) { return args.text("kv-type") == t.first; })->second;
}

infer::EngineOptions engine_options(const Arguments& args, int threads) {
  return {.threads = threads, .kernels = nullptr, .kv_bytes = args.maybe_integer("kv-memory").value_or(0), .kv_type = kv_type_of(args)};
}

}  // namespace fathom::cli
