// A token shard: refused, or all of it can be read and every token lies in one document.
#include <cstdlib>

#include "core/error.h"
#include "data/shards.h"
#include "fuzz/memory_file.h"

using namespace fathom;
using namespace fathom::data;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static MemoryFile file;
  file.set({reinterpret_cast<const char*>(data), size});
  try {
    const ShardFile shard(file.path());
    int64_t end = 0;
    for (int64_t d = 0; d < shard.documents(); ++d) {
      if (shard.document_begin(d) != end) std::abort();
      end = shard.document_begin(d + 1);
      if (shard.document_of(end - 1) != d) std::abort();
    }
    if (end != shard.tokens()) std::abort();
    std::vector<int32_t> tokens(static_cast<size_t>(end));
    shard.read(0, tokens);
    for (int32_t t : tokens)
      if (t < 0 || t >= shard.vocab_size()) std::abort();
  } catch (const UserError&) {
  }
  return 0;
}
