#include "train/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/file.h"
#include "train/helpers.h"

namespace fathom::train {
namespace {

std::shared_ptr<const data::Dataset> dataset() { return data::Dataset::open(corpus(), "train"); }

bool equal(const Batch& a, const Batch& b) { return a.input == b.input && a.target == b.target && a.document_start == b.document_start; }

TEST(Permutation, IsABijectionForEverySize) {
  for (uint64_t n = 1; n < 70; ++n)
    for (uint64_t key : {0ull, 5ull, 0xdeadbeefull}) {
      const Permutation p(n, key);
      std::set<uint64_t> seen;
      for (uint64_t i = 0; i < n; ++i) seen.insert(p(i));
      EXPECT_EQ(seen.size(), n);
      EXPECT_LT(*seen.rbegin(), n);
    }
}

TEST(Permutation, KeysGiveDifferentOrders) {
  const Permutation a(1000, 1), b(1000, 2);
  int same = 0, fixed = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same += a(i) == b(i);
    fixed += a(i) == i;
  }
  EXPECT_LT(same, 20);
  EXPECT_LT(fixed, 20);
}

TEST(Loader, TargetsAreTheNextTokensExceptAcrossDocuments) {
  const auto d = dataset();
  Batch batch = {1, 64, std::vector<int32_t>(64), std::vector<int32_t>(64), std::vector<int32_t>(64)};
  const int64_t boundary = d->document_begin(3), begin = boundary - 20;
  fill_row(*d, begin, batch, 0);
  std::vector<int32_t> ids(65);
  d->read(begin, ids);
  for (int64_t t = 0; t < 64; ++t) {
    const size_t i = static_cast<size_t>(t);
    EXPECT_EQ(batch.input[i], ids[i]);
    const int64_t document = d->document_of(begin + t);
    EXPECT_EQ(batch.document_start[i], std::max<int64_t>(0, d->document_begin(document) - begin)) << t;
    EXPECT_EQ(batch.target[i], d->document_of(begin + t + 1) == document ? ids[i + 1] : kIgnore) << t;
  }
  EXPECT_EQ(batch.target[19], kIgnore);
  EXPECT_EQ(batch.document_start[20], 20);
}

TEST(Loader, TheLastTokenOfARowMayEndItsDocument) {
  const auto d = dataset();
  Batch batch = {1, 16, std::vector<int32_t>(16), std::vector<int32_t>(16), std::vector<int32_t>(16)};
  fill_row(*d, d->document_begin(2) - 16, batch, 0);
  EXPECT_EQ(batch.target[15], kIgnore);
}

TEST(Loader, AnEpochVisitsEveryWindowOnce) {
  const auto d = dataset();
  Loader loader(d, 1, 32, {.seed = 3});
  const int64_t n = loader.windows_per_epoch();
  std::set<std::vector<int32_t>> seen;
  std::multiset<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    const Batch b = loader.next();
    tokens.insert(b.input.begin(), b.input.end());
  }
  EXPECT_EQ(loader.state().epoch, 0);
  EXPECT_EQ(loader.state().position, n);
  loader.next();
  EXPECT_EQ(loader.state().epoch, 1);
  EXPECT_EQ(loader.state().position, 1);
  // All but less than two rows of the corpus were read, each token once.
  std::vector<int32_t> all(static_cast<size_t>(d->tokens()));
  d->read(0, all);
  const std::multiset<int32_t> corpus_tokens(all.begin(), all.end());
  EXPECT_TRUE(std::includes(corpus_tokens.begin(), corpus_tokens.end(), tokens.begin(), tokens.end()));
  EXPECT_GT(tokens.size() + 64, corpus_tokens.size());
}

TEST(Loader, SameSeedSameBatchesAnotherSeedOthers) {
  Loader a(dataset(), 4, 32, {.seed = 9}), b(dataset(), 4, 32, {.seed = 9}), c(dataset(), 4, 32, {.seed = 10});
  for (int i = 0; i < 50; ++i) {
    const Batch x = a.next();
    EXPECT_TRUE(equal(x, b.next()));
    EXPECT_FALSE(equal(x, c.next()));
  }
}

TEST(Loader, ResumesInTheMiddleOfAnEpochAndAcrossItsEnd) {
  Loader whole(dataset(), 3, 32, {.seed = 4});
  const int64_t steps = whole.windows_per_epoch() / 3 + 20;  // 3 does not divide the epoch: rows of one batch cross its end
  std::vector<Batch> batches;
  std::vector<LoaderState> states;
  for (int64_t i = 0; i < steps; ++i) {
    batches.push_back(whole.next());
    states.push_back(whole.state());
  }
  for (int64_t i = 0; i < steps; ++i) EXPECT_EQ(state_after(*dataset(), 32, 4, 3 * (i + 1)), states[static_cast<size_t>(i)]) << i;
  EXPECT_EQ(state_after(*dataset(), 32, 4, 0), (LoaderState{.seed = 4}));
  for (int64_t at : {int64_t{0}, int64_t{7}, steps / 2, steps - 22, steps - 21, steps - 20, steps - 3}) {
    const Json json = states[static_cast<size_t>(at)].to_json();
    Loader resumed(dataset(), 3, 32, LoaderState::from_json(Fields(json, "state")));
    for (int64_t i = at + 1; i < std::min(at + 25, steps); ++i) EXPECT_TRUE(equal(resumed.next(), batches[static_cast<size_t>(i)])) << at << " " << i;
  }
}

TEST(Loader, EpochsDiffer) {
  Loader loader(dataset(), 1, 32, {.seed = 4});
  const int64_t n = loader.windows_per_epoch();
  const Batch first = loader.next();
  for (int64_t i = 1; i < n; ++i) loader.next();
  EXPECT_FALSE(equal(loader.next(), first));
}

TEST(Loader, TooLittleTextIsRefused) {
  EXPECT_THAT(error_of([] { Loader(dataset(), 1, 1 << 20, {}); }), ::testing::HasSubstr("sequence_length + 1"));
}

TEST(Loader, ADamagedTokenStopsTraining) {
  const TemporaryFolder folder;
  const std::string copy = join_path(folder.path(), "data");
  std::filesystem::copy(corpus(), copy, std::filesystem::copy_options::recursive);
  const std::string shard = join_path(copy, data::Dataset::open(copy, "train")->manifest().train[0].file);
  std::string bytes = read_file(shard, 1 << 24);
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2 + 2000), '\x7f');
  atomic_write(shard, bytes);
  const std::string message = error_of([&] {
    Loader loader(data::Dataset::open(copy, "train"), 4, 32, {});
    for (int64_t i = 0; i < loader.windows_per_epoch() / 4; ++i) loader.next();
  });
  EXPECT_THAT(message, ::testing::HasSubstr("32639"));
}

TEST(EvaluationWindows, PartsAreDisjointAndSpread) {
  const auto d = data::Dataset::open(corpus(), "validation");
  const std::vector<int64_t> a = evaluation_windows(*d, 1024, 32, 0, 2), b = evaluation_windows(*d, 1024, 32, 1, 2);
  EXPECT_EQ(a.size(), 32u);
  EXPECT_EQ(b.size(), 32u);
  std::set<int64_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(all.size(), 64u);
  EXPECT_LE(*all.rbegin() + 33, d->tokens());
  EXPECT_GT(*all.rbegin(), d->tokens() * 9 / 10 - 64);
  // Asking for more than there is gives all there is, each window once.
  const std::vector<int64_t> most = evaluation_windows(*d, 1 << 30, 32, 1, 2);
  EXPECT_EQ(std::set<int64_t>(most.begin(), most.end()).size(), most.size());
  EXPECT_THAT(error_of([&] { evaluation_windows(*d, 32, d->tokens(), 0, 2); }), ::testing::HasSubstr("validation"));
}

}  // namespace
}  // namespace fathom::train
