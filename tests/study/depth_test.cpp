// Depth statistics: classes of tokens, groups that add up, pieces of the pages.
#include "study/depth.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "infer/score.h"
#include "sample.h"
#include "study/page.h"

namespace fathom::study {
namespace {

TEST(TokenClassOf, Table) {
  const auto of = [](const char* bytes, bool after_word = false) { return std::string(token_class_name(token_class(bytes, false, after_word))); };
  EXPECT_EQ(of(" "), "white space");
  EXPECT_EQ(of("\n\n    "), "white space");
  EXPECT_EQ(of("."), "punctuation");
  EXPECT_EQ(of(" ->"), "punctuation");
  EXPECT_EQ(of("“"), "punctuation");
  EXPECT_EQ(of("😀"), "punctuation");
  EXPECT_EQ(of("42"), "digits");
  EXPECT_EQ(of(" 7"), "digits");
  EXPECT_EQ(of("3.14"), "digits");
  EXPECT_EQ(of(" the", true), "word start");
  EXPECT_EQ(of("The"), "word start");
  EXPECT_EQ(of("ing", true), "word inside");
  EXPECT_EQ(of("ing", false), "word start");
  EXPECT_EQ(of("été", true), "word inside");
  EXPECT_EQ(of("日本", true), "word inside");
  EXPECT_EQ(of("\xe6\x97", true), "word inside");  // a piece of a character
  EXPECT_EQ(of("def foo"), "word start");
  EXPECT_STREQ(token_class_name(token_class("<|endoftext|>", true, false)), "special");
}

TEST(TokenClassOf, WordEnds) {
  EXPECT_TRUE(ends_in_word("abc"));
  EXPECT_TRUE(ends_in_word("x_"));
  EXPECT_TRUE(ends_in_word("é"));
  EXPECT_FALSE(ends_in_word("abc "));
  EXPECT_FALSE(ends_in_word("("));
  EXPECT_FALSE(ends_in_word(""));
}

int64_t tokens_of(const std::vector<DepthGroup>& groups) {
  return std::accumulate(groups.begin(), groups.end(), int64_t{0}, [](int64_t sum, const DepthGroup& g) { return sum + g.tokens; });
}

TEST(Depth, GroupsAddUpToWhatTheEngineDecided) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5);
  const HeldOut text = sample_text(s, 48);
  const DepthStudy d = study_depth(s, text);
  const Evaluation e = evaluate(s, text, infer::Rule::causal);
  int64_t tokens = 0;
  for (const Window& w : text.windows) tokens += static_cast<int64_t>(w.tokens.size());
  EXPECT_EQ(d.tokens, tokens);
  EXPECT_EQ(d.least, 2);
  EXPECT_EQ(d.most, 4);
  EXPECT_EQ(d.routed, s.engine->config().routing.units);
  EXPECT_EQ(std::accumulate(d.histogram.begin(), d.histogram.end(), int64_t{0}), tokens);
  for (const auto* groups : {&d.by_position, &d.by_class, &d.by_frequency}) {
    EXPECT_EQ(tokens_of(*groups), tokens);
    for (size_t r = 0; r < 2; ++r) {
      int64_t ran = 0;
      for (const DepthGroup& g : *groups) ran += g.ran[r];
      EXPECT_EQ(ran, e.blocks[r].ran);
    }
  }
  ASSERT_EQ(d.by_position.size(), 24u);  // bins of two positions
  for (size_t bin = 0; bin < 24; ++bin) {
    int64_t there = 0;
    for (const Window& w : text.windows) there += std::clamp<int64_t>(static_cast<int64_t>(w.tokens.size()) - 2 * static_cast<int64_t>(bin), 0, 2);
    EXPECT_EQ(d.by_position[bin].tokens, there) << bin;
    EXPECT_EQ(d.by_position[bin].name, std::to_string(2 * bin));
  }
  EXPECT_EQ(tokens_of(d.by_difficulty), text.predicted);  // the last token of a window has no next
  double by_histogram = 0;
  for (size_t i = 0; i < d.histogram.size(); ++i) by_histogram += static_cast<double>(d.histogram[i]) * (2.0 + static_cast<double>(i));
  EXPECT_NEAR(d.all.mean_depth(2), by_histogram / static_cast<double>(tokens), 1e-12);
  EXPECT_NEAR(d.loss, e.loss(), 1e-12);
  EXPECT_NEAR(d.bits_per_byte, e.bits_per_byte(), 1e-12);
  EXPECT_DOUBLE_EQ(d.block_fraction, e.block_fraction());
}

TEST(Depth, ExtremesAreSortedAndDistinct) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5);
  const HeldOut text = sample_text(s, 48);
  const DepthStudy d = study_depth(s, text);
  ASSERT_FALSE(d.deepest.empty());
  ASSERT_FALSE(d.shallowest.empty());
  for (size_t i = 1; i < d.deepest.size(); ++i) EXPECT_GE(d.deepest[i - 1].depth, d.deepest[i].depth);
  for (size_t i = 1; i < d.shallowest.size(); ++i) EXPECT_LE(d.shallowest[i - 1].depth, d.shallowest[i].depth);
  EXPECT_GT(d.deepest[0].depth, d.shallowest[0].depth);
  for (size_t i = 0; i < d.deepest.size(); ++i)
    for (size_t k = i + 1; k < d.deepest.size(); ++k) EXPECT_NE(d.deepest[i].token, d.deepest[k].token);
  EXPECT_NE(kText.find(d.deepest[0].token), std::string::npos);
}

TEST(Depth, ThePassageIsTheEnginesView) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5);
  const HeldOut text = sample_text(s, 48);
  const DepthStudy d = study_depth(s, text);
  ASSERT_EQ(d.passage.size(), 48u);
  const infer::DocumentScore score = infer::score_document(*s.engine, text.windows[0].tokens, {.policy = policy_of(s, infer::Rule::causal, {})});
  std::string joined;
  for (size_t t = 0; t < 48; ++t) {
    EXPECT_EQ(d.passage[t].depth, 2 + score.decisions.run[0][t] + score.decisions.run[1][t]);
    EXPECT_EQ(d.passage[t].run, (std::vector<uint8_t>{score.decisions.run[0][t], score.decisions.run[1][t]}));
    joined += d.passage[t].text;
  }
  EXPECT_EQ(joined, s.tokenizer->decode(text.windows[0].tokens));
}

TEST(Depth, ADenseModelHasOneDepth) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "dense", false, 5);
  const DepthStudy d = study_depth(s, sample_text(s, 48));
  EXPECT_EQ(d.least, 4);
  EXPECT_EQ(d.most, 4);
  EXPECT_EQ(d.histogram, (std::vector<int64_t>{d.tokens}));
  EXPECT_DOUBLE_EQ(d.block_fraction, 1);
}

// Attention and MLP of block 1 apart (the MLP light for all), block 3 light or full: depth counts blocks of which all ran.
TEST(Depth, PartsAndLightPathsAreToldApart) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 5, [](model::ModelConfig& c) {
    c.routing.units = {{.block = 0, .capacity = 0.25, .part = routing::Part::attention},
                       {.block = 1, .capacity = 0, .part = routing::Part::mlp, .paths = {.skip = false, .light = true, .full = false}, .light_rank = 2},
                       {.block = 3, .capacity = 0.5, .paths = {.skip = false, .light = true}, .light_rank = 3}};
  });
  const HeldOut text = sample_text(s, 48);
  const DepthStudy d = study_depth(s, text);
  const Evaluation e = evaluate(s, text, infer::Rule::causal);
  EXPECT_EQ(d.blocks, 4);
  EXPECT_EQ(d.least, 1);
  EXPECT_EQ(d.most, 3);
  ASSERT_EQ(d.histogram.size(), 3u);
  int64_t light = 0, blocks = 0, by_depth[3] = {};
  for (const Window& w : text.windows) {
    const infer::DocumentScore score = infer::score_document(*s.engine, w.tokens, {.policy = policy_of(s, infer::Rule::causal, {})});
    for (size_t t = 0; t < w.tokens.size(); ++t) {
      light += score.decisions.run[2][t] == 2;
      const int64_t ran = (score.decisions.run[0][t] == 1) + (score.decisions.run[2][t] == 1);
      blocks += ran, ++by_depth[ran];
    }
  }
  EXPECT_GT(light, 0);
  EXPECT_EQ(d.all.light, (std::vector<int64_t>{0, d.tokens, light}));
  EXPECT_EQ(d.all.ran[2], d.tokens - light);
  EXPECT_EQ(d.all.blocks, blocks);
  EXPECT_EQ(d.histogram, (std::vector<int64_t>{by_depth[0], by_depth[1], by_depth[2]}));
  EXPECT_EQ(e.blocks[2].went_light, light);
  EXPECT_DOUBLE_EQ(e.blocks[1].light, 1);
  EXPECT_DOUBLE_EQ(e.blocks[0].capacity, 0.25);
  EXPECT_DOUBLE_EQ(e.blocks[1].capacity, 0);
  EXPECT_EQ(e.capacities(), (std::vector<double>{e.blocks[0].realised, e.blocks[2].realised}));
  const std::string map = token_map(d.passage, d.routed, d.least, d.most, d.blocks);
  EXPECT_NE(map.find("data-routed=\"0 attention,1 MLP,3\""), std::string::npos);
  EXPECT_NE(map.find("<i class=\"l\"></i>"), std::string::npos);
  EXPECT_NE(map.find("took its light path"), std::string::npos);
  EXPECT_EQ(d.to_json()["routed_parts"], Json::array({"attention", "mlp", "block"}));
}

TEST(Views, CharactersThatAreCutGoToTheTokenThatCompletesThem) {
  const text::Tokenizer t = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  const std::vector<int32_t> ids = t.encode("a日b");
  ASSERT_EQ(ids.size(), 5u);  // three bytes of 日 are three tokens
  model::ModelConfig config = sample_config(t.vocab_size(), true);
  const std::vector<TokenView> v = views(t, ids, {}, config);
  EXPECT_EQ(v[0].text, "a");
  EXPECT_EQ(v[1].text, "");
  EXPECT_EQ(v[2].text, "");
  EXPECT_EQ(v[3].text, "日");
  EXPECT_EQ(v[4].text, "b");
  EXPECT_EQ(v[4].depth, 2);
}

TEST(Page, DepthSteps) {
  EXPECT_EQ(depth_step(4, 4, 4), 0);
  EXPECT_EQ(depth_step(2, 2, 8), 0);
  EXPECT_EQ(depth_step(8, 2, 8), 6);
  EXPECT_EQ(depth_step(5, 2, 8), 3);
  EXPECT_EQ(depth_step(3, 2, 3), 6);
  EXPECT_EQ(depth_step(99, 2, 8), 6);
  EXPECT_EQ(depth_step(std::nan(""), 2, 8), 0);
}

TEST(Page, TextIsEscapedAndNewLinesAreSeen) {
  const std::vector<TokenView> tokens = {{"<script>", 1, 2, {0}}, {" a&b\n", 2, 3, {1}}, {"", 3, 2, {0}}};
  const std::string text = token_text(tokens, 2, 3, 1);
  EXPECT_NE(text.find("<span class=\"s0 p\" title=\"depth 2\">&lt;script&gt;</span>"), std::string::npos) << text;
  EXPECT_NE(text.find("<span class=\"s6\" title=\"depth 3\"> a&amp;b↵\n</span>"), std::string::npos) << text;
  EXPECT_NE(text.find(">·</span>"), std::string::npos) << text;
  const std::string map = token_map(tokens, {{1, 0.5}}, 2, 3, 3);
  EXPECT_EQ(map.find("<script>"), std::string::npos);
  // Block 0 and 2 are run by all, block 1 by the second token only.
  EXPECT_NE(map.find("<i class=\"a\"></i><i></i><i class=\"a\"></i>"), std::string::npos) << map;
  EXPECT_NE(map.find("<i class=\"a\"></i><i class=\"r\"></i><i class=\"a\"></i>"), std::string::npos) << map;
}

}  // namespace
}  // namespace fathom::study
