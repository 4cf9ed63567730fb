// Pages: as many as the tokens that ran need, all free in the end, none lost when a step fails.
#include <limits>
#include <map>

#include "core/error.h"
#include "support.h"

namespace fathom::infer::test {
namespace {

using routing::KvPolicy;

TEST(Cache, SlotsTakenAreTheTokensThatRan) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const Model model = Model::drawn(seed + 4000);
    SCOPED_TRACE(model.describe());
    Random random(seed);
    const model::ModelConfig& config = model.config;
    const KvType type = kv_of(seed);
    Engine engine(model.weights, {.threads = 1, .kv_type = type});
    const std::vector<int32_t> tokens = model::random_tokens(config, 1 + static_cast<int64_t>(random.below(60)), random);
    const int64_t T = static_cast<int64_t>(tokens.size());
    const RoutingPolicy policy = drawn_policy(config, T, random);
    {
      Sequence sequence = engine.new_sequence();
      const WorkItem item{.sequence = &sequence, .tokens = tokens, .policy = &policy};
      const routing::Decisions decisions = engine.forward({&item, 1}).decisions_of(0);
      int64_t pages = 0, slots = 0;
      for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
        int64_t ran = T;
        for (size_t u = 0; u < config.routing.units.size(); ++u) {
          const routing::RoutedUnit& unit = config.routing.units[u];
          if (unit.block != block || unit.part == routing::Part::mlp) continue;  // the MLP has no keys
          if (!unit.paths.full) ran = 0;
          else if (config.routing.kv == KvPolicy::drop) ran = std::count(decisions.run[u].begin(), decisions.run[u].end(), 1);
        }
        EXPECT_EQ(sequence.length(block), ran) << "block " << block;
        EXPECT_EQ(engine.counters().kv_slots[block], ran);
        pages += (ran + 15) / 16;
        slots += ran;
      }
      EXPECT_EQ(sequence.position(), T);
      EXPECT_EQ(sequence.pages(), pages);
      EXPECT_EQ(engine.pool().pages_in_use(), pages);
      const int64_t D = config.head_dim, each = type == KvType::f32 ? 4 * D : type == KvType::q8_0 ? D + 2 * ((D + 31) / 32) : 2 * D;
      const int64_t slot_bytes = 2 * config.num_key_value_heads * each;
      EXPECT_EQ(sequence.slot_bytes(), slots * slot_bytes);
      EXPECT_EQ(sequence.kv_bytes(), pages * 16 * slot_bytes);
      EXPECT_GE(engine.pool().bytes_reserved(), engine.pool().bytes_in_use());
    }
    EXPECT_EQ(engine.pool().pages_in_use(), 0);
    if (HasFailure()) return;
  }
}

TEST(Cache, SequencesMoveAndClear) {
  const Model model = Model::drawn(21, {});
  Engine engine(model.weights, {.threads = 1});
  const RoutingPolicy policy = RoutingPolicy::full(model.config);
  const std::vector<int32_t> tokens(40, 1);
  Sequence a = engine.new_sequence();
  const WorkItem item{.sequence = &a, .tokens = tokens, .policy = &policy};
  const StepResult first = engine.forward({&item, 1});
  const int64_t pages = engine.pool().pages_in_use();
  EXPECT_EQ(pages, 3 * model.config.num_hidden_layers);
  Sequence b = std::move(a);
  EXPECT_EQ(engine.pool().pages_in_use(), pages);
  EXPECT_EQ(b.position(), 40);
  b = engine.new_sequence();
  EXPECT_EQ(engine.pool().pages_in_use(), 0);
  EXPECT_EQ(engine.pool().peak_pages(), pages);
  // A cleared sequence begins anew, on pages that hold somebody else's keys.
  const WorkItem again{.sequence = &b, .tokens = tokens, .policy = &policy};
  engine.forward({&again, 1});
  b.clear();
  EXPECT_EQ(b.position(), 0);
  EXPECT_EQ(engine.pool().pages_in_use(), 0);
  EXPECT_TRUE(same_bits(engine.forward({&again, 1}).logits, first.logits));
  // A sequence may outlive its engine.
  std::unique_ptr<Engine> short_lived = std::make_unique<Engine>(model.weights, EngineOptions{.threads = 1});
  Sequence c = short_lived->new_sequence();
  const WorkItem last{.sequence = &c, .tokens = tokens, .policy = &policy};
  short_lived->forward({&last, 1});
  short_lived.reset();
  EXPECT_EQ(c.position(), 40);
}

TEST(Cache, AStepThatRunsOutOfMemoryChangesNothing) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Model model = Model::drawn(seed + 5000, {});
    Random random(seed);
    const RoutingPolicy policy = RoutingPolicy::causal(model::random_thresholds(model.config, random));
    const int64_t page = 2 * model.config.num_key_value_heads * model.config.head_dim * 16 * 4;
    Engine engine(model.weights, {.threads = 1, .kv_bytes = page * 2 * model.config.num_hidden_layers});
    const std::vector<int32_t> few = model::random_tokens(model.config, 20, random), many(50, 1), one(1, 2);
    Sequence a = engine.new_sequence(), b = engine.new_sequence();
    const WorkItem begin{.sequence = &a, .tokens = few, .policy = &policy};
    engine.forward({&begin, 1});
    std::vector<int64_t> lengths;
    for (int64_t block = 0; block < a.blocks(); ++block) lengths.push_back(a.length(block));
    const int64_t pages = engine.pool().pages_in_use();
    const RoutingPolicy full = RoutingPolicy::full(model.config);
    const WorkItem too_much[] = {{.sequence = &a, .tokens = few, .policy = &policy}, {.sequence = &b, .tokens = many, .policy = &full}};
    EXPECT_THROW(engine.forward(too_much), UserError);
    EXPECT_EQ(engine.pool().pages_in_use(), pages);
    EXPECT_EQ(a.position(), 20);
    EXPECT_EQ(b.position(), 0);
    EXPECT_EQ(b.pages(), 0);
    for (int64_t block = 0; block < a.blocks(); ++block) EXPECT_EQ(a.length(block), lengths[block]);
    // It goes on as if nothing had happened.
    const WorkItem next{.sequence = &a, .tokens = one, .policy = &policy, .logits = Logits::all};
    Reading after;
    after.append(engine.forward({&next, 1}), 0);
    Engine fresh(model.weights, {.threads = 1});
    std::vector<int32_t> all = few;
    all.push_back(2);
    const Reading expected = read(fresh, all, policy);
    EXPECT_TRUE(same_bits(after.logits, std::span(expected.logits).last(model.config.vocab_size)));
    if (HasFailure()) return;
  }
}

// A limit is met to the page: the one that fills it is given, the next refused, and after a page came back it is there again.
TEST(Cache, TheLimitIsMetToThePage) {
  const PagePool any(2, 8);
  for (const int64_t pages : {int64_t{1}, int64_t{3}, int64_t{1025}})  // beyond the first slab too
    for (const int64_t more : {int64_t{0}, int64_t{1}, any.page_bytes() - 1}) {
      PagePool pool(2, 8, KvType::f32, pages * any.page_bytes() + more);
      EXPECT_EQ(pool.byte_limit(), pages * any.page_bytes());
      uint32_t last = 0;
      for (int64_t i = 0; i < pages; ++i) last = pool.take();
      EXPECT_THROW(pool.take(), UserError) << pages << " pages and " << more << " bytes";
      EXPECT_EQ(pool.pages_in_use(), pages);
      EXPECT_EQ(pool.bytes_reserved(), pages * any.page_bytes());  // nor is more memory taken
      pool.give_back(last);
      EXPECT_EQ(pool.take(), last);
      EXPECT_THROW(pool.take(), UserError);
    }
  PagePool none(2, 8, KvType::f32, any.page_bytes() - 1);
  EXPECT_THROW(none.take(), UserError);
}

TEST(Cache, PagesAreReused) {
  const Model model = Model::drawn(31);
  Engine engine(model.weights, {.threads = 1});
  Random random(31);
  const RoutingPolicy policy = RoutingPolicy::causal(model::random_thresholds(model.config, random));
  for (int i = 0; i < 300; ++i) read(engine, model::random_tokens(model.config, 1 + static_cast<int64_t>(random.below(60)), random), policy, 11);
  EXPECT_EQ(engine.pool().pages_in_use(), 0);
  EXPECT_LE(engine.pool().peak_pages(), 4 * model.config.num_hidden_layers);
  EXPECT_LE(engine.pool().bytes_reserved(), 1024 * engine.pool().page_bytes());  // one slab
}

// Forks, rewinds, ends and appends at random beside plain lists of numbers: what a sequence wrote is what it finds, whoever shares
// its pages, and pages in use are those that somebody holds.
class CacheOfType : public ::testing::TestWithParam<KvType> {};
INSTANTIATE_TEST_SUITE_P(Types, CacheOfType, ::testing::ValuesIn(kKvTypes), [](const auto& i) { return name_of(i.param, kKvTypeNames); });

TEST_P(CacheOfType, RandomOperationsLeaveEverySlotAsItWasWritten) {
  constexpr int64_t kBlocks = 3, kLimit = 40;
  const KvType type = GetParam();
  const int64_t operations = type == KvType::f32 ? 1'000'000 : 200'000, element = type == KvType::f32 ? 4 : type == KvType::q8_0 ? 1 : 2;
  const auto pool = std::make_shared<PagePool>(1, 2, type, kLimit * PagePool(1, 2, type).page_bytes());
  struct Twin {
    Sequence sequence;
    std::vector<std::vector<uint8_t>> written{kBlocks};
  };
  Random random(7);
  std::vector<Twin> twins;
  const auto slot_of = [&](const Sequence& s, int64_t block, int64_t slot) {
    return pool->page(s.page_table(block)[static_cast<size_t>(slot / kPagePositions)]) + slot % kPagePositions * element;  // [D][16]: the key's first element
  };
  int64_t full = 0, copies = 0;
  uint8_t next = 1;
  for (int64_t op = 0; op < operations; ++op) {
    const double kind = random.uniform();
    if (twins.empty() || (kind < 0.01 && twins.size() < 12)) {
      twins.push_back({.sequence = Sequence(pool, kBlocks)});
      continue;
    }
    Twin& twin = twins[random.below(twins.size())];
    const auto block = static_cast<int64_t>(random.below(kBlocks));
    if (kind < 0.03 && twins.size() < 12) {
      Twin other{.sequence = twin.sequence.fork(), .written = twin.written};
      twins.push_back(std::move(other));
    } else if (kind < 0.06) {
      std::vector<int64_t> lengths;
      std::vector<std::vector<uint8_t>> written = twin.written;
      for (auto& list : written) {
        list.resize(random.below(list.size() + 1));
        lengths.push_back(static_cast<int64_t>(list.size()));
      }
      if (kind < 0.045 && twins.size() < 12) {
        Twin other{.sequence = twin.sequence.fork(0, lengths), .written = written};
        twins.push_back(std::move(other));
      } else {
        twin.sequence.rewind(0, lengths);
        twin.written = written;
      }
    } else if (kind < 0.07) {
      twins.erase(twins.begin() + (&twin - twins.data()));
    } else {
      const std::vector<uint32_t> before = twin.sequence.page_table(block);
      const int64_t held = pool->pages_in_use(), most = pages_for(*pool, std::vector{Growth{&twin.sequence, 1}});
      try {
        const int64_t slot = twin.sequence.append(block);
        ASSERT_EQ(slot, static_cast<int64_t>(twin.written[static_cast<size_t>(block)].size()));
        *slot_of(twin.sequence, block, slot) = next;
        twin.written[static_cast<size_t>(block)].push_back(next++);
        if (next > 250) next = 1;
        copies += slot % kPagePositions != 0 && twin.sequence.page_table(block) != before;
        ASSERT_LE(pool->pages_in_use() - held, std::min<int64_t>(1, most));
      } catch (const UserError&) {
        ASSERT_EQ(pool->pages_left(), 0);
        ASSERT_EQ(twin.sequence.page_table(block), before);
        ++full;
      }
    }
    for (const Twin& t : twins) {
      if (op % 64 != 0) break;
      for (int64_t b = 0; b < kBlocks; ++b)
        for (size_t i = 0; i < t.written[static_cast<size_t>(b)].size(); ++i)
          ASSERT_EQ(*slot_of(t.sequence, b, static_cast<int64_t>(i)), t.written[static_cast<size_t>(b)][i]) << "operation " << op;
    }
    if (op % 1024 == 0) {
      std::map<uint32_t, int64_t> holders;
      for (const Twin& t : twins)
        for (int64_t b = 0; b < kBlocks; ++b)
          for (const uint32_t page : t.sequence.page_table(b)) ++holders[page];
      ASSERT_EQ(pool->pages_in_use(), static_cast<int64_t>(holders.size()));
      for (const auto& [page, n] : holders) ASSERT_EQ(pool->holders(page), n);
    }
  }
  EXPECT_GT(full, 1000);    // the limit was met
  EXPECT_GT(copies, 500);   // and pages copied before writing
  twins.clear();
  EXPECT_EQ(pool->pages_in_use(), 0);
  for (int64_t i = 0; i < kLimit; ++i) pool->take();  // every page can be taken again: nothing is lost to fragments
  EXPECT_EQ(pool->pages_left(), 0);
}

}  // namespace
}  // namespace fathom::infer::test
