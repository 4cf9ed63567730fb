// Evaluation: windows predict every token once, losses equal those of token-by-token decoding, agreement equals counting
// by hand, intervals equal textbook values.
#include "study/evaluate.h"

#include <filesystem>

#include <gtest/gtest.h>

#include <cmath>

#include "infer/score.h"
#include "routing/select.h"
#include "sample.h"
#include "study/depth.h"
#include "study/statistics.h"

namespace fathom::study {
namespace {

std::vector<int32_t> counting(int32_t n, int32_t first = 0) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < n; ++i) ids.push_back(first + i);
  return ids;
}

TEST(HeldOut, EveryTokenButTheFirstIsPredictedOnce) {
  for (const int64_t context : {2, 3, 7, 16, 64, 100}) {
    const HeldOut text = cut_windows({counting(50), counting(1, 100), {}, counting(2, 200), counting(17, 300)}, context);
    std::map<int32_t, int> predicted;
    int64_t total = 0;
    for (const Window& w : text.windows) {
      ASSERT_GE(w.tokens.size(), 2u);
      ASSERT_LE(static_cast<int64_t>(w.tokens.size()), context);
      EXPECT_EQ(w.tokens[0], text.documents[w.document][static_cast<size_t>(w.begin)]);
      for (size_t t = 1; t < w.tokens.size(); ++t) predicted[w.tokens[t]] += 1, ++total;
    }
    EXPECT_EQ(total, 49 + 1 + 16) << context;
    EXPECT_EQ(text.predicted, total);
    EXPECT_EQ(static_cast<int64_t>(text.windows.size()), text.all_windows);
    for (const auto& [id, times] : predicted) EXPECT_EQ(times, 1) << id;
  }
}

TEST(HeldOut, ALimitSpreadsWindowsOverTheText) {
  const HeldOut text = cut_windows({counting(1001)}, 11, 200);  // 100 windows of 10 predictions
  EXPECT_EQ(text.all_windows, 100);
  ASSERT_EQ(text.windows.size(), 20u);
  EXPECT_EQ(text.predicted, 200);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(text.windows[i].begin, static_cast<int64_t>(10 * (5 * i + 2)));
  EXPECT_EQ(cut_windows({counting(1001)}, 11, 1).windows.size(), 1u);
}

TEST(HeldOut, UnitsAreDocumentsOrStretches) {
  const HeldOut few = cut_windows({counting(1001)}, 11);
  EXPECT_TRUE(few.by_stretch);
  EXPECT_EQ(few.units, kStretches);
  for (size_t i = 1; i < few.windows.size(); ++i) EXPECT_LE(few.windows[i].unit - few.windows[i - 1].unit, 1u);
  EXPECT_EQ(few.windows.back().unit, kStretches - 1);
  const HeldOut many = cut_windows(std::vector(12, counting(30)), 11);
  EXPECT_FALSE(many.by_stretch);
  EXPECT_EQ(many.units, 12u);
  for (const Window& w : many.windows) EXPECT_EQ(w.unit, w.document);
}

TEST(HeldOut, FilesAndErrors) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "m", false, 1);
  const std::string file = join_path(folder.path(), "a.txt");
  atomic_write(file, kText);
  const DocumentEnds ends{.begin = 7, .end = std::nullopt};
  const HeldOut text = load_held_out({file}, *s.tokenizer, ends, {.documents = {}, .context = 32, .limit = 0, .progress = {}});
  EXPECT_EQ(text.documents.size(), 1u);
  EXPECT_EQ(text.name, "a.txt") << "what is kept and passed on does not say where it lies";
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());  // a page names a text as it would be typed where it was made
  EXPECT_EQ(load_held_out({join_path(std::filesystem::current_path().string(), "a.txt")}, *s.tokenizer, ends, {.documents = {}, .context = 32, .limit = 0, .progress = {}}).name, "a.txt");
  std::filesystem::current_path(before);
  std::vector<int32_t> ids = s.tokenizer->encode(kText);
  ids.insert(ids.begin(), 7);
  EXPECT_EQ(text.documents[0], ids);
  EXPECT_THROW(load_held_out({join_path(folder.path(), "none")}, *s.tokenizer, {}, {}), UserError);
}

TEST(HeldOut, TheModelSaysWhetherDocumentsHaveEndsAndTheTokenizerWhich) {
  Json json = parse_json(sample_tokenizer(), "sample");
  json["post_processor"] = parse_json(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "b", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                          "pair": [], "special_tokens": {"b": {"id": "b", "ids": [9], "tokens": ["b"]}}})", "sample");
  const text::Tokenizer begins = text::Tokenizer::from_json(json.dump(), "sample"), ends_only = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  ASSERT_EQ(begins.bos_id(), 9);
  ASSERT_TRUE(begins.eos_id() && !ends_only.bos_id());
  model::ModelConfig c = sample_config(320, false);
  EXPECT_EQ(document_ends(c, begins), DocumentEnds{});
  c.bos_token_id = 1, c.eos_token_ids = {2, 3};
  EXPECT_EQ(document_ends(c, begins), (DocumentEnds{9, *begins.eos_id()}));
  EXPECT_EQ(document_ends(c, ends_only), (DocumentEnds{std::nullopt, *ends_only.eos_id()}));
  c.eos_token_ids.clear();
  EXPECT_EQ(document_ends(c, begins), (DocumentEnds{9, std::nullopt}));
}

// log softmax in double, from the logits of one row.
double nll_of(std::span<const float> logits, int32_t target) {
  double most = -INFINITY, sum = 0;
  for (const float x : logits) most = std::max(most, static_cast<double>(x));
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - most);
  return most + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(target)]);
}

// What a caller that generates sees: one token at a time through the cache, the loss of each next token from its logits.
double decoded_nll(const Subject& s, std::span<const int32_t> tokens, const infer::RoutingPolicy& policy) {
  infer::Sequence sequence = s.engine->new_sequence();
  double nll = 0;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    const infer::WorkItem item{.sequence = &sequence, .tokens = tokens.subspan(t, 1), .policy = &policy};
    const infer::StepResult r = s.engine->forward(std::span(&item, 1));
    nll += nll_of(r.logits_of(0), tokens[t + 1]);
  }
  return nll;
}

TEST(Evaluate, CausalLossEqualsTokenByTokenDecoding) {
  const TemporaryFolder folder;
  for (const bool routed : {true, false}) {
    const Subject s = sample_subject(folder, routed ? "mod" : "dense", routed, 5);
    const HeldOut text = sample_text(s, 48);
    for (const double dial : {0.62, 0.7, 1.0}) {
      if (!routed && dial != 1.0) continue;
      const Evaluation e = evaluate(s, text, infer::Rule::causal, dial);
      double nll = 0;
      int64_t bytes = 0;
      const infer::RoutingPolicy policy = policy_of(s, infer::Rule::causal, dial);
      for (const Window& w : text.windows) {
        nll += decoded_nll(s, w.tokens, policy);
        for (size_t t = 1; t < w.tokens.size(); ++t) bytes += static_cast<int64_t>(s.tokenizer->token_bytes(w.tokens[t]).size());
      }
      EXPECT_EQ(e.tokens, text.predicted);
      EXPECT_NEAR(e.nll, nll, 1e-5 * nll);
      EXPECT_EQ(e.bytes, bytes);
      EXPECT_NEAR(e.bits_per_byte(), nll / std::log(2.0) / static_cast<double>(bytes), 1e-5);
      EXPECT_NEAR(e.perplexity(), std::exp(e.loss()), 1e-9);
    }
  }
}

TEST(Evaluate, FractionsComeFromTheDecisionsTaken) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5);
  const HeldOut text = sample_text(s, 48);
  const Evaluation e = evaluate(s, text, infer::Rule::causal);
  model::ForwardCost spent, dense;
  std::vector<int64_t> ran(2);
  int64_t rows = 0;
  for (const Window& w : text.windows) {
    const infer::DocumentScore d = infer::score_document(*s.engine, w.tokens, {.policy = policy_of(s, infer::Rule::causal, {})});
    const int64_t T = static_cast<int64_t>(w.tokens.size());
    spent += model::forward_cost(s.engine->config(), T, d.decisions, T);
    dense += model::dense_cost(s.engine->config(), T, T);
    for (size_t r = 0; r < 2; ++r)
      for (const uint8_t x : d.decisions.run[r]) ran[r] += x;
    rows += T;
  }
  EXPECT_EQ(e.spent.total(), spent.total());
  EXPECT_DOUBLE_EQ(e.block_fraction(), static_cast<double>(spent.blocks_total()) / static_cast<double>(dense.blocks_total()));
  EXPECT_DOUBLE_EQ(e.total_fraction(), static_cast<double>(spent.total()) / static_cast<double>(dense.total()));
  EXPECT_LT(e.block_fraction(), 1);
  for (size_t r = 0; r < 2; ++r) {
    EXPECT_EQ(e.blocks[r].ran, ran[r]);
    EXPECT_DOUBLE_EQ(e.blocks[r].realised, static_cast<double>(ran[r]) / static_cast<double>(rows));
    EXPECT_TRUE(std::isnan(e.blocks[r].agreement()));
  }
  const Evaluation full = evaluate(s, text, infer::Rule::causal, 1.0);
  EXPECT_GT(full.block_fraction(), 1);  // every token in full, and the routers are paid too
  EXPECT_LT(full.block_fraction(), 1.01);
}

// The rule's exits are those that its thresholds make of the teacher's scores, token by token.
TEST(Evaluate, AgreementKnowsExits) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5, [](model::ModelConfig& c) {
    c.routing.units = {{.block = 1, .capacity = 0.25, .paths = {.exit = true, .skip = false}}, {.block = 3, .capacity = 0.25}};
  });
  const HeldOut text = sample_text(s, 48);
  Evaluation causal = evaluate(s, text, infer::Rule::causal);
  compare_with_teacher(s, text, causal);
  const std::vector<float> thresholds = policy_of(s, infer::Rule::causal, {}).thresholds;
  int64_t by_rule = 0, both = 0;
  for (const Window& w : text.windows) {
    const infer::DocumentScore d = infer::score_document(*s.engine, w.tokens, {.policy = infer::RoutingPolicy::teacher(s.engine->config())});
    for (size_t t = 0; t < w.tokens.size(); ++t) {
      const bool rule = d.decisions.score[0][t] >= thresholds[0] && d.decisions.score[1][t] >= thresholds[1];
      by_rule += rule, both += rule && d.decisions.run[1][t] == 1;
    }
  }
  EXPECT_EQ(causal.blocks[1].by_rule, by_rule);
  EXPECT_EQ(causal.blocks[1].both, both);
  EXPECT_LT(by_rule, causal.blocks[1].compared);
}

TEST(Evaluate, AgreementIsCountedOnTheTeachersStates) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5, [](model::ModelConfig& c) { c.routing.forced_positions = 2; });
  const HeldOut text = sample_text(s, 48);
  Evaluation causal = evaluate(s, text, infer::Rule::causal);
  const Evaluation teacher = compare_with_teacher(s, text, causal);
  EXPECT_EQ(teacher.rule, infer::Rule::topk);
  const std::vector<float> thresholds = policy_of(s, infer::Rule::causal, {}).thresholds;
  for (size_t r = 0; r < 2; ++r) {
    int64_t agreed = 0, both = 0, rule_runs = 0, topk_runs = 0, compared = 0, selected = 0;
    for (const Window& w : text.windows) {
      const infer::DocumentScore d = infer::score_document(*s.engine, w.tokens, {.policy = infer::RoutingPolicy::teacher(s.engine->config())});
      for (size_t t = 0; t < w.tokens.size(); ++t) {
        const bool rule = t < 2 || d.decisions.score[r][t] >= thresholds[r], topk = d.decisions.run[r][t];
        agreed += rule == topk, both += rule && topk, rule_runs += rule, topk_runs += topk, ++compared;
      }
      selected += routing::selected_count(r == 0 ? 0.25 : 0.5, static_cast<int64_t>(w.tokens.size()));
    }
    EXPECT_EQ(topk_runs, selected);
    EXPECT_DOUBLE_EQ(causal.blocks[r].agreement(), static_cast<double>(agreed) / static_cast<double>(compared));
    EXPECT_DOUBLE_EQ(causal.blocks[r].precision(), static_cast<double>(both) / static_cast<double>(rule_runs));
    EXPECT_DOUBLE_EQ(causal.blocks[r].recall(), static_cast<double>(both) / static_cast<double>(topk_runs));
    EXPECT_DOUBLE_EQ(causal.blocks[r].capacity, r == 0 ? 0.25 : 0.5);
  }
}

TEST(Evaluate, RandomControlRunsItsCapacity) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5, [](model::ModelConfig& c) { c.routing.random_seed = 11; });
  const HeldOut text = sample_text(s, 48);
  const Evaluation e = evaluate(s, text, infer::Rule::random), dialled = evaluate(s, text, infer::Rule::random, 0.6);
  // The hash goes by position and every window begins at 0, so all draw the same 48 numbers: a share near the capacity would
  // say little. The count is what the hash of seed, block and position says, token by token.
  const auto runs = [&](int64_t block, double capacity) {
    int64_t n = 0;
    for (const Window& w : text.windows)
      for (int64_t t = 0; t < static_cast<int64_t>(w.tokens.size()); ++t) n += routing::random_score(11, block, t) < capacity;
    return n;
  };
  EXPECT_EQ(e.blocks[0].ran, runs(1, 0.25));
  EXPECT_EQ(e.blocks[1].ran, runs(3, 0.5));
  EXPECT_EQ(dialled.blocks[0].ran, runs(1, 0.1)) << "the dial brings its capacity";
  EXPECT_EQ(dialled.blocks[1].ran, runs(3, 0.2));
  EXPECT_DOUBLE_EQ(e.blocks[1].realised, static_cast<double>(e.blocks[1].ran) / static_cast<double>(e.blocks[1].tokens));
}

TEST(Evaluate, AModelOfRandomSelectionIsItsOwnControl) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "random", true, 5, [](model::ModelConfig& c) { c.routing.selection = routing::Selection::random; });
  const HeldOut text = sample_text(s, 48);
  const Evaluation e = evaluate(s, text, infer::Rule::causal), control = evaluate(s, text, infer::Rule::random);
  EXPECT_EQ(e.rule, infer::Rule::random);
  EXPECT_EQ(e.nll, control.nll);
  for (size_t r = 0; r < 2; ++r) EXPECT_EQ(e.blocks[r].ran, control.blocks[r].ran);
  EXPECT_FALSE(has_teacher(s));
  EXPECT_NE(e.nll, evaluate(s, text, infer::Rule::causal, 1.0).nll);
  EXPECT_THROW(evaluate(s, text, infer::Rule::causal, 0.6), UserError);
  const DepthStudy d = study_depth(s, text);  // margins need thresholds; there are none
  EXPECT_EQ(d.rule, infer::Rule::random);
  EXPECT_NEAR(d.loss, e.loss(), 1e-9);
}

TEST(Evaluate, ARunFolderStandsForItsModel) {
  const TemporaryFolder folder;
  make_folders(join_path(folder.path(), "run"));
  const Subject s = sample_subject(folder, "run/model", false, 1);
  const std::string run = join_path(folder.path(), "run");
  EXPECT_EQ(model_folder_of(run), run + "/model");
  EXPECT_EQ(model_folder_of(run + "/model"), run + "/model");
  EXPECT_THROW(model_folder_of(join_path(folder.path(), "none")), UserError);
  for (const std::string& path : {run, run + "/", run + "/model", run + "/model/"}) EXPECT_EQ(Subject::open(path, {.threads = 1}).name, "run") << path;
}

TEST(Evaluate, RefusesAnotherModelsTokenizer) {
  const TemporaryFolder folder;
  sample_subject(folder, "m", false, 1);
  const std::string path = join_path(folder.path(), "m");
  atomic_write(join_path(path, "tokenizer.json"), sample_tokenizer(340));
  try {
    Subject::open(path, {.threads = 1});
    FAIL();
  } catch (const UserError& e) {
    EXPECT_NE(std::string(e.what()).find("at most the model's vocab_size"), std::string::npos) << e.what();
  }
}

TEST(Statistics, RatioIntervalByHand) {
  // Two units: 10/10 and 30/20. Ratio 4/3, residuals 10 − 40/3 and 30 − 80/3 = ∓10/3.
  const std::vector<UnitSum> units = {{10, 10, 1}, {30, 20, 1}};
  const Interval i = ratio_interval(units, [](const UnitSum& d) { return d.nll; }, [](const UnitSum& d) { return static_cast<double>(d.tokens); });
  EXPECT_NEAR(i.value, 40.0 / 30, 1e-12);
  EXPECT_NEAR(i.half, 12.706 * std::sqrt(2.0 / 1 * 2 * (10.0 / 3) * (10.0 / 3)) / 30, 1e-9);
  EXPECT_EQ(i.units, 2);
  const Interval one = ratio_interval({{10, 10, 1}}, [](const UnitSum& d) { return d.nll; }, [](const UnitSum& d) { return static_cast<double>(d.tokens); });
  EXPECT_TRUE(std::isnan(one.half));
}

TEST(Statistics, PairedDifferenceSeesThroughUnitsThatVary) {
  std::vector<UnitSum> a, b;
  for (int d = 1; d <= 20; ++d) {
    a.push_back({100.0 * d, 50, 200});
    b.push_back({100.0 * d + 5 + (d % 2), 50, 200});
  }
  const Interval i = paired_difference(a, b, false);
  EXPECT_NEAR(i.value, -5.5 / 50, 1e-12);
  EXPECT_LT(i.half, 0.006);  // of the units themselves it would be above 5
  EXPECT_NEAR(paired_difference(a, b, true).value, -5.5 / std::log(2.0) / 200, 1e-12);
  b[3].tokens = 0;           // a unit that only one of them scored is left out
  EXPECT_EQ(paired_difference(a, b, false).units, 19);
}

TEST(Statistics, StudentsQuantile) {
  EXPECT_DOUBLE_EQ(t_quantile(1), 12.706);
  EXPECT_DOUBLE_EQ(t_quantile(30), 2.042);
  EXPECT_NEAR(t_quantile(60), 2.000, 0.003);
  EXPECT_NEAR(t_quantile(1000000), 1.960, 0.001);
  EXPECT_TRUE(std::isnan(t_quantile(0)));
}

}  // namespace
}  // namespace fathom::study
