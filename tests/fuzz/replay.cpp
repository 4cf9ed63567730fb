// A fuzz target without libFuzzer: the seeds, cut off and changed at places drawn from a fixed seed. Finds what broke since
// the fuzzer ran; the search for new cases is scripts/fuzz.
#include <gtest/gtest.h>

#include "core/file.h"
#include "core/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fathom {
namespace {

void run(const std::string& bytes) { LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()); }

TEST(Fuzz, SeedsAndTheirMutations) {
  const auto names = list_folder(FATHOM_SEEDS);
  ASSERT_FALSE(names.empty());
  Random random(1);
  run("");
  for (const std::string& name : names) {
    const std::string seed = read_file(join_path(FATHOM_SEEDS, name), 1 << 20);
    run(seed);
    if (seed.empty()) continue;
    for (int i = 0; i < 150; ++i) {
      std::string bytes = seed;
      for (uint64_t k = random.below(4); k > 0; --k) bytes[random.below(bytes.size())] = static_cast<char>(random.bits());
      if (random.below(4) == 0) bytes.resize(random.below(bytes.size() + 1));
      if (random.below(4) == 0) bytes.insert(random.below(bytes.size() + 1), bytes.substr(random.below(bytes.size() + 1), random.below(32)));
      run(bytes);
    }
  }
}

}  // namespace
}  // namespace fathom
