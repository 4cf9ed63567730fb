// Decoding speed: models in turns, progress outside of what is timed, and an end when somebody asks for it.
#include "study/speed.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "sample.h"

namespace fathom::study {
namespace {

TEST(Speed, IsMeasuredInTurnsAndCanBeInterrupted) {
  const TemporaryFolder folder;
  const Subject mod = sample_subject(folder, "mod", true, 1), dense = sample_subject(folder, "dense", false, 2);
  const std::vector<int32_t> prompt = mod.tokenizer->encode("The sea");
  std::vector<int64_t> told;
  const auto speeds = measure_decode({&mod, &dense}, {}, prompt, 6, 3, [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 36);
    told.push_back(done);
  });
  ASSERT_EQ(speeds.size(), 2u);
  EXPECT_EQ(speeds[1].new_tokens, 6);
  EXPECT_GT(speeds[0].tokens_per_second, 0);
  ASSERT_EQ(told.size(), 42u);  // before every step: the prompt's and one for each new token
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  EXPECT_EQ(told.front(), 0);
  EXPECT_EQ(told.back(), 36);
  int asked = 0;
  EXPECT_THROW(measure_decode({&mod, &dense}, {}, prompt, 6, 3, [&](int64_t, int64_t) { if (++asked == 9) throw Interrupted("enough"); }), Interrupted);
  EXPECT_EQ(asked, 9);
}

}  // namespace
}  // namespace fathom::study
