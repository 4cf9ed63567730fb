#include "model/cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "model/random_model.h"
#include "model/schema.h"
#include "routing/select.h"

namespace fathom::model {
namespace {

using routing::CausalRule;
using routing::Decisions;
using routing::KvPolicy;

// Counts one by one what a forward pass would multiply, with nothing but the shapes of the matrices and the rules of
// attention: no formula of the cost model is used.
struct Counter {
  const ModelConfig& c;

  int64_t matrix(int64_t rows, int64_t columns) const {
    int64_t n = 0;
    for (int64_t i = 0; i < rows; ++i) n += columns;
    return n;
  }

  // A projection, and beside it an adapter, if it has one.
  int64_t projection(const char* name, int64_t rows, int64_t columns) const {
    const int64_t r = std::ranges::count(c.adapters.projections, name) ? c.adapters.rank : 0;
    return matrix(rows, columns) + matrix(r, columns) + matrix(rows, r);
  }

  BlockCost block(int64_t index, int64_t tokens, const Decisions& decisions) const {
    const int64_t C = c.hidden_size, H = c.num_attention_heads, G = c.num_key_value_heads, D = c.head_dim;
    // 1 where a token runs attention, or the MLP, in full.
    const auto runs = [&](routing::Part part, int64_t t) {
      bool out = true;
      for (size_t u = 0; u < c.routing.units.size(); ++u)
        if (c.routing.units[u].block == index && (c.routing.units[u].part == routing::Part::block || c.routing.units[u].part == part))
          out = decisions.run[u][static_cast<size_t>(t)] == 1;
      return out;
    };
    bool somebody_looks = true;
    for (const auto& unit : c.routing.units)
      if (unit.block == index && unit.part != routing::Part::mlp && !unit.paths.full) somebody_looks = false;
    const auto has_key = [&](int64_t t) { return somebody_looks && (c.routing.kv == KvPolicy::keep || runs(routing::Part::attention, t)); };
    BlockCost out;
    for (int64_t t = 0; t < tokens; ++t) {
      for (size_t u = 0; u < c.routing.units.size(); ++u) {
        const auto& unit = c.routing.units[u];
        if (unit.block != index) continue;
        if (unit.paths.full) out.router += matrix(1, C);
        if (unit.paths.full && c.routing.rule == CausalRule::predictor) out.predictor += matrix(c.predictor_width(), C) + matrix(1, c.predictor_width());
        if (decisions.run[u][static_cast<size_t>(t)] == 2) out.light += matrix(unit.light_rank, C) + matrix(C, unit.light_rank);
      }
      if (has_key(t)) out.attention_linear += projection("k", G * D, C) + projection("v", G * D, C);
      if (runs(routing::Part::mlp, t)) out.mlp += projection("gate", c.intermediate_size, C) + projection("up", c.intermediate_size, C) + projection("down", C, c.intermediate_size);
      if (!runs(routing::Part::attention, t)) continue;
      out.attention_linear += projection("q", H * D, C) + projection("o", C, H * D);
      for (int64_t key = 0; key <= t; ++key)
        if (has_key(key))
          for (int64_t h = 0; h < H; ++h) out.attention_scores += D + D;
    }
    return out;
  }
};

std::vector<double> capacities(const ModelConfig& c) { return c.routing.capacities(); }

constexpr RandomLimits kPaths{.paths = true, .adapters = true};

TEST(ForwardCost, EqualsACountTokenByTokenAndKeyByKey) {
  Random random(21);
  for (int trial = 0; trial < 400; ++trial) {
    const ModelConfig c = random_config(random, kPaths);
    const int64_t T = static_cast<int64_t>(random.below(30));
    const Decisions d = random_decisions(c, T, random);
    const ForwardCost cost = forward_cost(c, T, d, T);
    ASSERT_EQ(static_cast<int64_t>(cost.blocks.size()), c.num_hidden_layers);
    int64_t total = 0;
    for (int64_t b = 0; b < c.num_hidden_layers; ++b) {
      const BlockCost counted = Counter{c}.block(b, T, d);
      ASSERT_EQ(cost.blocks[static_cast<size_t>(b)], counted) << "block " << b << " of " << c.to_json().dump(2);
      total += counted.total();
    }
    EXPECT_EQ(cost.blocks_total(), total);
    EXPECT_EQ(cost.head, T * c.vocab_size * c.hidden_size);
    EXPECT_EQ(cost.total(), total + cost.head);
    EXPECT_EQ(cost.flops(), 2.0 * static_cast<double>(cost.total()));
  }
}

TEST(ForwardCost, TheHeadIsPaidByTheRowsThatNeedIt) {
  Random random(1);
  const ModelConfig c = random_config(random);
  const Decisions d = random_decisions(c, 8, random);
  EXPECT_EQ(forward_cost(c, 8, d, 1).head, c.vocab_size * c.hidden_size);
  EXPECT_EQ(forward_cost(c, 8, d, 0).head, 0);
}

TEST(ForwardCost, UnderKvDropASkippingTokenPaysTheRouterAlone) {
  Random random(2);
  ModelConfig c = random_config(random);
  c.routing.kv = KvPolicy::drop;
  c.routing.rule = CausalRule::score;
  Decisions none;
  none.run.assign(c.routing.units.size(), std::vector<uint8_t>(10, 0));
  const ForwardCost cost = forward_cost(c, 10, none, 0);
  for (const auto& routed : c.routing.units)
    EXPECT_EQ(cost.blocks[static_cast<size_t>(routed.block)], (BlockCost{0, 0, 0, 10 * c.hidden_size, 0, 0}));
}

TEST(ForwardCost, DecisionsOfAnotherModelAreAProgrammersFault) {
  Random random(3);
  const ModelConfig c = random_config(random);
  Decisions d = random_decisions(c, 8, random);
  EXPECT_THROW(forward_cost(c, 9, d, 0), std::logic_error);
  d.run.emplace_back();
  EXPECT_THROW(forward_cost(c, 8, d, 0), std::logic_error);
  EXPECT_THROW(topk_cost(c, 8, 0, std::vector<double>(c.routing.units.size() + 1, 0.5)), std::logic_error);
}

TEST(DenseCost, IsTheTwinWithoutRouters) {
  Random random(4);
  for (int trial = 0; trial < 50; ++trial) {
    const ModelConfig c = random_config(random, kPaths);
    ModelConfig twin = c;
    twin.routing = {};
    EXPECT_EQ(dense_cost(c, 17, 17).blocks, forward_cost(twin, 17, {}, 17).blocks);
    EXPECT_EQ(dense_cost(c, 17, 3).head, 3 * c.vocab_size * c.hidden_size);
  }
}

// K tokens of each row reach a cut; which ones matters for attention under kv keep alone.
Decisions first_k(const ModelConfig& c, int64_t T) {
  Decisions d;
  for (const routing::RoutedUnit& unit : c.routing.units) {
    std::vector<uint8_t> run(static_cast<size_t>(T), static_cast<uint8_t>(unit.cheapest()));
    const std::vector<double> shares = unit.capacities();
    const std::vector<routing::Path> paths = unit.paths.in_order();
    for (size_t cut = 0; cut < shares.size(); ++cut)
      for (int64_t t = 0; t < routing::selected_count(shares[cut], T); ++t) run[static_cast<size_t>(T - 1 - t)] = static_cast<uint8_t>(paths[cut + 1]);
    d.run.push_back(run);
  }
  return d;
}

TEST(TopkCost, IsExactUnderKvDropAndForTheLinearPartsUnderKvKeep) {
  Random random(5);
  for (int trial = 0; trial < 200; ++trial) {
    const ModelConfig c = random_config(random, kPaths);
    const int64_t T = 1 + static_cast<int64_t>(random.below(60));
    const ForwardCost expected = forward_cost(c, T, first_k(c, T), T), cost = topk_cost(c, T, T);
    EXPECT_EQ(cost.head, expected.head);
    for (size_t b = 0; b < cost.blocks.size(); ++b) {
      EXPECT_EQ(cost.blocks[b].attention_linear, expected.blocks[b].attention_linear);
      EXPECT_EQ(cost.blocks[b].mlp, expected.blocks[b].mlp);
      EXPECT_EQ(cost.blocks[b].router, expected.blocks[b].router);
      EXPECT_EQ(cost.blocks[b].predictor, expected.blocks[b].predictor);
      EXPECT_EQ(cost.blocks[b].light, expected.blocks[b].light) << c.to_json().dump();
      if (c.routing.kv == KvPolicy::drop) {
        EXPECT_EQ(cost.blocks[b].attention_scores, expected.blocks[b].attention_scores);
      }
    }
  }
}

TEST(TopkCost, UnderKvKeepAttentionIsTheMeanOverAllPlaces) {
  Random random(6);
  ModelConfig c = random_config(random);
  c.routing.kv = KvPolicy::keep;
  c.routing.units = {{0, 0.25}};
  const int64_t T = 7, K = routing::selected_count(0.25, T);
  double sum = 0;
  int64_t sets = 0;
  for (int mask = 0; mask < (1 << T); ++mask) {
    if (__builtin_popcount(static_cast<unsigned>(mask)) != K) continue;
    Decisions d;
    d.run.emplace_back();
    for (int64_t t = 0; t < T; ++t) d.run[0].push_back((mask >> t) & 1);
    sum += static_cast<double>(forward_cost(c, T, d, 0).blocks[0].attention_scores);
    ++sets;
  }
  EXPECT_EQ(static_cast<double>(topk_cost(c, T, 0).blocks[0].attention_scores), sum / static_cast<double>(sets));
}

TEST(TopkCost, TakesOtherCapacities) {
  Random random(7);
  ModelConfig c = random_config(random);
  const std::vector<double> all(c.routing.units.size(), 1.0);
  const ForwardCost full = topk_cost(c, 20, 20, all), dense = dense_cost(c, 20, 20);
  for (size_t b = 0; b < full.blocks.size(); ++b) {
    BlockCost without = full.blocks[b];
    without.router = without.predictor = 0;
    EXPECT_EQ(without, dense.blocks[b]);
  }
}

TEST(TrainFlops, AreThreeForwardPasses) {
  Random random(8);
  const ModelConfig c = random_config(random);
  EXPECT_EQ(train_flops_per_row(c, 33), 6.0 * static_cast<double>(topk_cost(c, 33, 33).total()));
}

ModelConfig llama_like(int64_t width, int64_t blocks) {
  ModelConfig c;
  c.vocab_size = 32000;
  c.hidden_size = width;
  c.intermediate_size = width * 8 / 3;
  c.num_hidden_layers = blocks;
  c.head_dim = 64;
  c.num_attention_heads = c.num_key_value_heads = width / 64;
  for (int b = 1; b < blocks; b += 2) c.routing.units.push_back({b, 0.125});
  return c;
}

TEST(BlockFraction, EveryOtherBlockAtAnEighthCostsWhatIsPublished) {
  // Block FLOPs over dense for (width, context): 0.546, 0.549, 0.555, 0.549.
  const struct {
    int64_t width, context;
    double published;
  } rows[] = {{768, 2048, 0.546}, {1024, 2048, 0.549}, {2048, 2048, 0.555}, {4096, 8192, 0.549}};
  for (const auto& row : rows) {
    const ModelConfig c = llama_like(row.width, 12);
    // The published count takes the whole square of scores, masked half included.
    const double square = [&] {
      ForwardCost mod = topk_cost(c, row.context, 0), dense = dense_cost(c, row.context, 0);
      double a = 0, b = 0;
      for (size_t i = 0; i < mod.blocks.size(); ++i) {
        a += static_cast<double>(mod.blocks[i].total() + mod.blocks[i].attention_scores - mod.blocks[i].router);
        b += static_cast<double>(dense.blocks[i].total() + dense.blocks[i].attention_scores);
      }
      return a / b;
    }();
    EXPECT_NEAR(square, row.published, 0.0015) << row.width;
    const double causal = block_fraction(c, topk_cost(c, row.context, 0), row.context);
    EXPECT_GT(causal, 0.546) << row.width;
    EXPECT_LT(causal, 0.5625) << row.width;  // half and half an eighth, reached without any attention
  }
}

TEST(BlockFraction, CountsRoutersAndNotTheHeadAndTotalFractionBoth) {
  Random random(9);
  for (int trial = 0; trial < 50; ++trial) {
    const ModelConfig c = random_config(random);
    const Decisions d = random_decisions(c, 25, random);
    const ForwardCost cost = forward_cost(c, 25, d, 25), dense = dense_cost(c, 25, 25);
    EXPECT_EQ(block_fraction(c, cost, 25), static_cast<double>(cost.blocks_total()) / static_cast<double>(dense.blocks_total()));
    EXPECT_EQ(total_fraction(c, cost, 25, 25), static_cast<double>(cost.total()) / static_cast<double>(dense.total()));
    ForwardCost sum, dense_sum;
    for (int64_t T : {3, 9, 25}) {
      sum += forward_cost(c, T, random_decisions(c, T, random), T);
      dense_sum += dense_cost(c, T, T);
    }
    EXPECT_EQ(block_fraction(sum, dense_sum), static_cast<double>(sum.blocks_total()) / static_cast<double>(dense_sum.blocks_total()));
    EXPECT_EQ(total_fraction(dense_sum, dense_sum), 1.0);
  }
}

TEST(ExpectedBlockFraction, MeetsTheExactCountWhereCapacityTimesTokensIsWhole) {
  Random random(10);
  for (int trial = 0; trial < 100; ++trial) {
    ModelConfig c = random_config(random, kPaths);
    for (auto& unit : c.routing.units) {
      const auto eighths = [&](double most) { return std::floor(8 * most * random.uniform()) / 8; };
      if (!unit.is_static()) unit.capacity = 0.125 + eighths(1);
      if (unit.light_capacity > 0) unit.light_capacity = eighths(1 - unit.capacity);
      if (unit.skip_capacity > 0) unit.skip_capacity = eighths(1 - unit.capacity - unit.light_capacity);
    }
    const double expected = expected_block_fraction(c, 64, capacities(c));
    EXPECT_NEAR(expected, block_fraction(c, topk_cost(c, 64, 0), 64), 1e-4 * expected);  // kv keep rounds half a pair
    EXPECT_EQ(expected, expected_block_fraction(c, 64, {}));
  }
}

TEST(ExpectedBlockFraction, IsWhatItsTermsSay) {
  Random random(12);
  for (int trial = 0; trial < 200; ++trial) {
    const ModelConfig c = random_config(random, kPaths);
    const int64_t tokens = 1 + static_cast<int64_t>(random.below(300));
    std::vector<double> shares = capacities(c);
    const double scale = random.uniform();
    for (double& s : shares) s *= scale;
    const double expected = expected_block_fraction(c, tokens, shares);
    EXPECT_NEAR(block_fraction_terms(c, tokens).at(shares), expected, 1e-12 * expected);
  }
}

TEST(ExpectedBlockFraction, RisesWithEveryCapacity) {
  Random random(11);
  for (int trial = 0; trial < 100; ++trial) {
    const ModelConfig c = random_config(random, kPaths);
    std::vector<double> shares = capacities(c);
    for (double& s : shares) s *= 0.9;
    const double before = expected_block_fraction(c, 100, shares);
    for (size_t u = 0; u < c.routing.units.size(); ++u) {
      const std::vector<routing::Path> paths = c.routing.units[u].paths.in_order();
      for (size_t i = 1; i < paths.size(); ++i) {
        std::vector<double> more = shares;
        more[c.routing.first_cut(u) + i - 1] += 0.01;
        // Between an exit and what it does instead there is nothing to pay.
        const bool free = paths[i] == routing::Path::skip || (paths[i] == routing::Path::light && c.routing.units[u].cheapest() == routing::Path::light);
        if (free) EXPECT_EQ(expected_block_fraction(c, 100, more), before);
        else EXPECT_GT(expected_block_fraction(c, 100, more), before);
      }
    }
  }
}

TEST(ExpectedBlockFraction, LeadsTheDialToItsCapacities) {
  const ModelConfig c = llama_like(768, 12);
  const auto fraction = [&](const std::vector<double>& s) { return expected_block_fraction(c, 256, s); };
  for (double dial : {0.51, 0.6, 0.9}) EXPECT_NEAR(fraction(routing::capacities_for_dial(dial, capacities(c), fraction)), dial, 1e-9);
}

TEST(Cost, ProductsBeyondSixtyThreeBitsAreAnError) {
  ModelConfig c = llama_like(1 << 15, 64);
  EXPECT_THROW(dense_cost(c, int64_t{1} << 40, 0), UserError);
  EXPECT_THROW(dense_cost(c, 0, int64_t{1} << 50), UserError);
  try {
    dense_cost(c, int64_t{1} << 40, 0);
  } catch (const UserError& e) {
    EXPECT_STREQ(e.what(), "cost model: found more than 2^63 multiply-adds, expected a smaller model or a shorter text");
  }
  ForwardCost sum = dense_cost(c, 1 << 20, 0);
  EXPECT_THROW(
      {
        for (int i = 0; i < 64; ++i) sum += ForwardCost(sum);
      },
      UserError);
}

TEST(Parameters, OfAKnownModel) {
  // SmolLM2-135M: 134,515,008 parameters with tied embeddings.
  ModelConfig c;
  c.vocab_size = 49152;
  c.hidden_size = 576;
  c.intermediate_size = 1536;
  c.num_hidden_layers = 30;
  c.num_attention_heads = 9;
  c.num_key_value_heads = 3;
  c.head_dim = 64;
  c.tie_word_embeddings = true;
  EXPECT_EQ(parameters(c).total(), 134515008);
  EXPECT_EQ(parameters(c).head, 0);
  c.routing.units = {{1, 0.5}, {3, 0.5}};
  c.routing.router_bias = true;
  c.routing.rule = CausalRule::predictor;
  EXPECT_EQ(parameters(c).routers, 2 * 577);
  EXPECT_EQ(parameters(c).predictors, 2 * (288 * 576 + 288 + 288 + 1));
}

TEST(DecodeBytes, OfADenseModelAreItsWeightsAndItsCache) {
  ModelConfig c = llama_like(768, 12);
  c.routing = {};
  const DecodeBytes b = decode_bytes(c, 100, {}, {.blocks = 2, .head = 2});
  const Parameters p = parameters(c);
  // Everything but the embedding, of which one row is read; norms are f32.
  EXPECT_EQ(b.weights(), 2.0 * static_cast<double>(p.blocks + p.head + c.hidden_size) + 4.0 * static_cast<double>(p.norms));
  const DecodeBytes mixed = decode_bytes(c, 0, {}, {.blocks = 0.625, .head = 1.0625});
  EXPECT_EQ(mixed.weights(), 0.625 * static_cast<double>(p.blocks) + 1.0625 * static_cast<double>(p.head + c.hidden_size) + 4.0 * static_cast<double>(p.norms));
  EXPECT_EQ(kv_bytes_per_token_and_block(c), 2 * 12 * 64 * 4);
  EXPECT_EQ(kv_bytes_per_token_and_block(c, KvType::bf16), 2 * 12 * 64 * 2);
  EXPECT_EQ(kv_bytes_per_token_and_block(c, KvType::q8_0), 2 * 12 * (64 + 2 * 2));
  EXPECT_EQ(decode_bytes(c, 100, {}, {}, KvType::q8_0).kv_read(), 12.0 * 100 * 2 * 12 * 68);
  EXPECT_EQ(b.kv_read(), 12.0 * 100 * static_cast<double>(kv_bytes_per_token_and_block(c)));
  EXPECT_EQ(b.kv_write(), 12.0 * static_cast<double>(kv_bytes_per_token_and_block(c)));
  EXPECT_EQ(b.total(), b.weights() + b.kv_read() + b.kv_write());
}

TEST(DecodeBytes, EveryOtherBlockAtAnEighthMovesFiftySixPercent) {
  const ModelConfig c = llama_like(768, 12);
  ModelConfig twin = c;
  twin.routing = {};
  const DecodeBytes mod = decode_bytes(c, 0, {}), dense = decode_bytes(twin, 0, {});
  const double head = 4.0 * static_cast<double>(c.vocab_size * c.hidden_size + 2 * c.hidden_size);
  EXPECT_NEAR((mod.weights() - head) / (dense.weights() - head), 0.5625, 0.001);
  EXPECT_NEAR(mod.kv_write() / dense.kv_write(), 0.5625, 1e-12);
}

TEST(DecodeBytes, OfARoutedBlockByHand) {
  ModelConfig c = llama_like(128, 2);  // C 128, H = G = 2, D = 64, F 341; block 1 at 0.125
  c.routing.units[0].capacity = 0.5;
  const double C = 128, qo = 2 * 128 * 128, kv = qo, mlp = 3 * 341 * 128, slot = 2 * 128 * 4.0;
  const double always = 32000 * C + 2 * C + C + qo + kv + mlp + 2 * C;  // head, norm, row; router; block 0
  const DecodeBytes drop = decode_bytes(c, 40, {});
  EXPECT_EQ(drop.weights(), 4 * (always + 0.5 * (qo + kv + mlp + 2 * C)));
  EXPECT_EQ(drop.kv_read(), slot * 40 + 0.5 * slot * 20);
  EXPECT_EQ(drop.kv_write(), 1.5 * slot);
  c.routing.kv = KvPolicy::keep;
  const DecodeBytes keep = decode_bytes(c, 40, {});
  EXPECT_EQ(keep.weights(), 4 * (always + kv + C + 0.5 * (qo + mlp + C)));
  EXPECT_EQ(keep.kv_read(), slot * 40 + 0.5 * slot * 40);
  EXPECT_EQ(keep.kv_write(), 2 * slot);
}

// Counted by walking through each block's tensors, at capacities that differ from block to block.
TEST(DecodeBytes, BlockByBlockAreWhatTheirTensorsHold) {
  Random random(12);
  for (int trial = 0; trial < 200; ++trial) {
    const ModelConfig c = random_config(random, kPaths);
    const int64_t context = static_cast<int64_t>(random.below(50));
    std::vector<double> share;
    std::vector<std::pair<double, double>> of_unit;  // full, light
    for (const auto& unit : c.routing.units) {
      std::vector<double> cuts(unit.cuts());
      for (double& s : cuts) s = random.uniform();
      std::sort(cuts.rbegin(), cuts.rend());
      share.insert(share.end(), cuts.begin(), cuts.end());
      const double full = unit.paths.full ? cuts.back() : 0, rest = unit.paths.skip ? cuts.empty() || cuts.size() == 1 ? 0 : cuts[cuts.size() - 2] - full : 1 - full;
      of_unit.emplace_back(full, unit.paths.light ? rest : 0);
    }
    const DecodeBytes found = decode_bytes(c, context, share, {.blocks = 2, .head = 2});
    ASSERT_EQ(static_cast<int64_t>(found.blocks.size()), c.num_hidden_layers);
    double router = 0, predictor = 0, light = 0, weights = found.head, kv_read = 0, kv_write = 0;
    for (int64_t block = 0; block < c.num_hidden_layers; ++block) {
      double attends = 1, feeds = 1, block_light = 0, attention_light = 0, mlp_light = 0;
      bool looks = true;
      for (size_t u = 0; u < of_unit.size(); ++u) {
        const auto& unit = c.routing.units[u];
        if (unit.block != block) continue;
        if (unit.part != routing::Part::mlp) attends = of_unit[u].first, looks = unit.paths.full;
        if (unit.part != routing::Part::attention) feeds = of_unit[u].first;
        (unit.part == routing::Part::block ? block_light : unit.part == routing::Part::mlp ? mlp_light : attention_light) = of_unit[u].second;
      }
      const double stored = c.routing.kv == KvPolicy::keep && looks ? 1 : attends;
      BlockBytes expected;
      for (const TensorSpec& spec : schema(c)) {
        const std::string prefix = "model.layers." + std::to_string(block) + ".";
        if (!spec.name.starts_with(prefix)) continue;
        const std::string name = spec.name.substr(prefix.size());
        const bool of_mlp = name.starts_with("mlp."), of_attention = name.starts_with("self_attn.");
        double bytes = name.ends_with("_proj.weight") || is_adapter(name) || name.find("light.") != std::string::npos ? 2 : 4;
        for (const int64_t n : spec.shape) bytes *= static_cast<double>(n);
        if (name.find("router.") != std::string::npos) expected.router += bytes;
        else if (name.find("predictor.") != std::string::npos) expected.predictor += bytes;
        else if (name.find("light.") != std::string::npos) expected.light += bytes * (of_mlp ? mlp_light : of_attention ? attention_light : block_light);
        // What a token that skips reads too where its key is kept: the norm before the keys and their projections.
        else if (name.starts_with("input_layernorm") || name.starts_with("self_attn.k") || name.starts_with("self_attn.v")) expected.weights += bytes * stored;
        else expected.weights += bytes * (of_attention ? attends : feeds);
      }
      const double slot = static_cast<double>(kv_bytes_per_token_and_block(c));
      expected.kv_read = slot * static_cast<double>(context) * attends * stored;
      expected.kv_write = slot * stored;
      const BlockBytes& b = found.blocks[static_cast<size_t>(block)];
      EXPECT_NEAR(b.weights, expected.weights, 1e-9 * expected.weights) << "block " << block << " of " << c.to_json().dump(2);
      EXPECT_EQ(b.router, expected.router);
      EXPECT_EQ(b.predictor, expected.predictor);
      EXPECT_NEAR(b.light, expected.light, 1e-9 * expected.light) << "block " << block << " of " << c.to_json().dump(2);
      EXPECT_NEAR(b.kv_read, expected.kv_read, 1e-9 * expected.kv_read);
      EXPECT_NEAR(b.kv_write, expected.kv_write, 1e-9 * expected.kv_write);
      router += b.router, predictor += b.predictor, light += b.light, weights += b.weights, kv_read += b.kv_read, kv_write += b.kv_write;
    }
    EXPECT_NEAR(found.weights(), weights + router + predictor + light, 1e-9 * found.weights());
    EXPECT_DOUBLE_EQ(found.kv_read(), kv_read);
    EXPECT_DOUBLE_EQ(found.kv_write(), kv_write);
    EXPECT_EQ(router + predictor, 4.0 * static_cast<double>(parameters(c).routers + parameters(c).predictors));
  }
}

}  // namespace
}  // namespace fathom::model
