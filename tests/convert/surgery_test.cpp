// Surgery: what is refused, what the result's configuration and tensors are, and that with every path full the written model is its
// source to the bit, from folders and GGUF files of every kind.
#include "convert/surgery.h"

#include <gmock/gmock.h>

#include <limits>

#include "core/error.h"
#include "error_of.h"
#include "core/file.h"
#include "in_memory.h"
#include "convert/quantize.h"
#include "convert/self_text.h"
#include "infer/forward.h"
#include "infer/score.h"
#include "model/random_model.h"
#include "sample_model.h"

namespace fathom::convert {
namespace {

using formats::GgmlType;
using model::ModelFolder;
using routing::Part;
using ::testing::ElementsAre;
using test::error_of;
using ::testing::HasSubstr;

model::ModelConfig shape(int64_t blocks = 5) {
  model::ModelConfig c;
  c.vocab_size = 320, c.hidden_size = 64, c.intermediate_size = 96, c.num_hidden_layers = blocks;
  c.num_attention_heads = 4, c.num_key_value_heads = 2, c.head_dim = 16;
  c.max_position_embeddings = 64;
  return c;
}

// Losses of some texts, token by token.
std::vector<float> losses(const ModelFolder& folder, const infer::RoutingPolicy& policy, const std::vector<std::vector<int32_t>>& texts) {
  infer::Engine engine(infer::Weights::load(folder, 1), {.threads = 1});
  std::vector<float> out;
  const std::vector<std::span<const int32_t>> windows(texts.begin(), texts.end());
  infer::score_documents(engine, windows, {.policy = policy}, [&](infer::DocumentScore&& s) { out.insert(out.end(), s.nll.begin(), s.nll.end()); });
  return out;
}

std::vector<std::vector<int32_t>> drawn_texts(const model::ModelConfig& c, int count = 12) {
  Random random(5);
  std::vector<std::vector<int32_t>> texts;
  for (int i = 0; i < count; ++i) texts.push_back(model::random_tokens(c, 40, random));
  return texts;
}

TEST(Surgery, RefusesByName) {
  const model::ModelConfig c = shape();
  const auto refusal = [&](const SurgeryOptions& o, const model::ModelConfig& of) { return error_of([&] { plan_surgery(of, o, "m"); }); };
  EXPECT_THAT(refusal({.blocks = {5}}, c), HasSubstr("blocks: found 5, expected blocks 0 to 4"));
  EXPECT_THAT(refusal({.statics = {-1}}, c), HasSubstr("static: found -1"));
  EXPECT_THAT(refusal({.blocks = {2, 2}}, c), HasSubstr("2 after 2"));
  EXPECT_THAT(refusal({.blocks = {1, 2}, .statics = {2}}, c), HasSubstr("block 2, which static names too"));
  EXPECT_THAT(refusal({.blocks = {1, 2}, .dropped = {1}}, c), HasSubstr("block 1, which drop-blocks names too"));
  EXPECT_THAT(refusal({.statics = {3}, .dropped = {3}}, c), HasSubstr("block 3, which drop-blocks names too"));
  EXPECT_THAT(refusal({.dropped = {0, 1, 2, 3, 4}}, c), HasSubstr("every block"));
  EXPECT_THAT(refusal({}, c), HasSubstr("no block"));
  EXPECT_THAT(refusal({.blocks = {1, 2}, .full_attention = {3}}, c), HasSubstr("full-attention: found block 3, expected blocks that are routed"));
  EXPECT_THAT(refusal({.blocks = {1, 2}, .parts = {Part::attention}, .full_attention = {2}}, c), HasSubstr("MLPs that are decided about"));
  model::ModelConfig routed = c;
  routed.routing.units = {{1, 0.5}};
  EXPECT_THAT(refusal({.blocks = {2}}, routed), HasSubstr("a model with 1 routed units"));
}

TEST(Surgery, TheConfigurationIsWhatWasAskedFor) {
  const model::ModelConfig c = shape(6);
  EXPECT_THAT(inner_blocks(c), ElementsAre(1, 2, 3, 4));
  const Surgery s = plan_surgery(c, {.blocks = {1, 4}, .parts = {Part::attention, Part::mlp}, .light_rank = 500, .statics = {3}, .dropped = {2}, .kv = routing::KvPolicy::drop}, "m");
  EXPECT_THAT(s.block_of, ElementsAre(0, 1, 3, 4, 5));
  EXPECT_EQ(s.config.num_hidden_layers, 5);
  const routing::RoutingConfig& r = s.config.routing;
  ASSERT_EQ(r.units.size(), 5U);
  EXPECT_EQ(r.units[0].name(), "attention of block 1");
  EXPECT_EQ(r.units[1].name(), "MLP of block 1");
  EXPECT_TRUE(r.units[2].is_static() && r.units[2].block == 2);
  EXPECT_EQ(r.units[4].block, 3);
  EXPECT_EQ(r.units[0].light_rank, 64) << "no more than the width";
  EXPECT_EQ(r.kv, routing::KvPolicy::drop);
  EXPECT_EQ(r.gate, routing::Gate::hard);
  EXPECT_EQ(r.router_input, routing::RouterInput::normed);
  EXPECT_TRUE(r.router_bias && r.forced_positions == 2);
  for (const model::TensorSpec& spec : model::schema(s.config))
    EXPECT_EQ(s.made.contains(spec.name), spec.name.find("router") != std::string::npos || spec.name.find("light") != std::string::npos) << spec.name;
  const Surgery mixed = plan_surgery(c, {.blocks = {1, 2, 4}, .full_attention = {2}, .light_rank = 8}, "m");
  std::vector<std::string> names;
  for (const routing::RoutedUnit& unit : mixed.config.routing.units) names.push_back(unit.name());
  EXPECT_THAT(names, ElementsAre("block 1", "MLP of block 2", "block 4"));
  const Surgery dropped = plan_surgery(c, {.dropped = {1, 2}}, "m");
  EXPECT_EQ(dropped.config.routing, routing::RoutingConfig{}) << "a dense model with fewer blocks";
}

// A source of every kind: a folder in f32 and bf16, GGUF files in types whose kernels differ.
TEST(Surgery, WithEveryPathFullItIsTheSourceToTheBit) {
  const TemporaryFolder home;
  const std::string tokenizer = test::trained_tokenizer("The sea is calm tonight, the tide is full 1867.");
  const model::ModelConfig c = shape();
  model::ModelToWrite plain = model::model_to_write(c, model::random_weights(c, 3));
  plain.tokenizer_json = tokenizer;
  model::write_model_folder(home.path() + "/f32", plain);
  plain.dtype = "BF16";
  model::write_model_folder(home.path() + "/bf16", plain);
  const auto original = ModelFolder::open(home.path() + "/f32");
  for (const auto& [name, type] : {std::pair("/q8_0.gguf", GgmlType::Q8_0), {"/q4_1.gguf", GgmlType::Q4_1}, {"/f16.gguf", GgmlType::F16}}) {
    QuantizeOptions options;
    options.type = type;
    quantize(*original, home.path() + name, plan_quantize(*original, type), options);
  }
  const auto texts = drawn_texts(c);
  const std::vector<std::span<const int32_t>> windows(texts.begin(), texts.end());
  for (const char* name : {"/f32", "/bf16", "/q8_0.gguf", "/q4_1.gguf", "/f16.gguf"})
    for (const std::vector<Part>& parts : {std::vector<Part>{Part::block}, {Part::attention}, {Part::attention, Part::mlp}}) {
      SCOPED_TRACE(str(name, " ", parts.size()));
      const auto source = ModelFolder::open(home.path() + name);
      const SurgeryOptions options{.blocks = {1, 2, 3}, .parts = parts, .light_rank = 32, .target = 0.7, .context = 40};
      Surgery surgery = plan_surgery(source->config(), options, "m");
      fit_surgery(surgery, infer::Weights::load(*source, 1), windows, options, {.loss_tokens = 100, .threads = 1});
      const Contents contents = contents_of(*source, surgery);
      const GgmlType type = surgery_type(*source);
      const std::string out = home.path() + "/out";
      if (exists(out)) remove_all(out);
      write_folder(contents, out, type, plan_tensors(contents, type), {.threads = 1});
      const auto written = ModelFolder::open(out);
      EXPECT_EQ(written->config(), surgery.config);
      EXPECT_EQ(written->dial()->default_dial, 1);
      const std::vector<float> dense = losses(*source, infer::RoutingPolicy::full(source->config()), texts);
      EXPECT_EQ(losses(*written, infer::RoutingPolicy::at_dial(written->config(), written->dial()), texts), dense);
      EXPECT_EQ(losses(*written, infer::RoutingPolicy::full(written->config()), texts), dense);
      EXPECT_NE(losses(*written, infer::RoutingPolicy::causal(std::vector<float>(written->config().routing.cuts(), 0)), texts), dense);
      // Tensors of the source lie there as they were, and light paths in eight bits or more.
      for (const model::TensorSpec& spec : model::schema(written->config())) {
        const model::StoredTensor& stored = written->stored(spec.name);
        if (surgery.made.contains(spec.name)) {
          if (spec.name.find(".light.") != std::string::npos) EXPECT_EQ(stored.type, formats::is_quantized(type) ? GgmlType::Q8_0 : type) << spec.name;
          else EXPECT_EQ(stored.type, GgmlType::F32) << spec.name;
        } else {
          EXPECT_EQ(stored.to_f32(), source->stored(spec.name).to_f32()) << spec.name;
          if (model::is_reducible(spec)) EXPECT_EQ(stored.type, source->stored(spec.name).type) << spec.name;
        }
      }
    }
}

TEST(Surgery, DroppedBlocksAreGoneAndTheOthersKeepTheirWeights) {
  const TemporaryFolder home;
  const model::ModelConfig c = shape(6);
  model::write_model_folder(home.path() + "/m", model::model_to_write(c, model::random_weights(c, 4)));
  const auto source = ModelFolder::open(home.path() + "/m");
  const Surgery surgery = plan_surgery(c, {.dropped = {1, 3}}, "m");
  const Contents contents = contents_of(*source, surgery);
  write_folder(contents, home.path() + "/out", GgmlType::F32, plan_tensors(contents, GgmlType::F32), {.threads = 1});
  const auto written = ModelFolder::open(home.path() + "/out");
  EXPECT_EQ(written->config().num_hidden_layers, 4);
  for (const auto& [now, then] : {std::pair(0, 0), {1, 2}, {2, 4}, {3, 5}})
    EXPECT_EQ(written->read_f32(model::layer_prefix(now) + "mlp.up_proj.weight"), source->read_f32(model::layer_prefix(then) + "mlp.up_proj.weight"));
}

TEST(Surgery, NeededUnitsAreLeftOut) {
  const model::ModelConfig c = shape();
  const auto weights = infer::Weights::from(c, model::random_weights(c, 8));
  const auto texts = drawn_texts(c);
  const std::vector<std::span<const int32_t>> windows(texts.begin(), texts.end());
  SurgeryOptions options{.blocks = {1, 2, 3}, .light_rank = 16, .target = 0.97, .context = 40, .leave_needed = true};
  Surgery surgery = plan_surgery(c, options, "m");
  fit_surgery(surgery, weights, windows, options, {.loss_tokens = 200, .threads = 1});
  EXPECT_LT(surgery.config.routing.units.size(), 3U);
  ASSERT_GE(surgery.config.routing.units.size(), 1U);
  EXPECT_EQ(surgery.made.size(), 4 * surgery.config.routing.units.size());
  for (const routing::RoutedUnit& unit : surgery.config.routing.units) EXPECT_LE(unit.capacity, 0.98);
}

TEST(SelfText, IsTheModelsOwnAndTheSameAgain) {
  const model::ModelConfig c = shape(2);
  const auto weights = infer::Weights::from(c, model::random_weights(c, 2));
  const auto texts = self_text(weights, 7, {3}, {.tokens = 900, .context = 30, .seed = 4, .threads = 1});
  int64_t tokens = 0;
  bool ended = false, full = false;
  for (const auto& text : texts) {
    tokens += static_cast<int64_t>(text.size());
    EXPECT_EQ(text[0], 7);
    EXPECT_LE(text.size(), 30U);
    for (size_t i = 1; i + 1 < text.size(); ++i) EXPECT_NE(text[i], 3) << "an end inside a text";
    ended = ended || (text.size() < 30 && text.back() == 3);
    full = full || text.size() == 30;
    EXPECT_TRUE(text.size() == 30 || text.back() == 3);
  }
  EXPECT_GE(tokens, 900);
  EXPECT_TRUE(full);
  EXPECT_EQ(self_text(weights, 7, {3}, {.tokens = 900, .context = 30, .seed = 4, .threads = 2}), texts);
  EXPECT_NE(self_text(weights, 7, {3}, {.tokens = 900, .context = 30, .seed = 5, .threads = 1}), texts);
  const auto anywhere = self_text(weights, {}, {}, {.tokens = 300, .context = 30, .seed = 4, .threads = 1});
  EXPECT_NE(anywhere[0][0], anywhere[1][0]);
}

TEST(SelfText, ConversationsStandInTheirFrame) {
  model::ModelConfig c = shape(2);
  c.max_position_embeddings = 128;
  const auto weights = infer::Weights::from(c, model::random_weights(c, 2));
  const ChatFrame frame{.before = {7, 9}, .between = {4, 8}};
  SelfTextOptions options{.tokens = 4000, .context = 100, .seed = 4, .threads = 1};
  const auto made = self_conversations(weights, frame, {3}, options);
  ASSERT_GT(made.size(), 3U);
  std::vector<int64_t> lengths;
  bool cut = false, ended = false;
  for (const SelfConversation& s : made) {
    std::vector<int32_t> all = frame.before;
    all.insert(all.end(), s.question.begin(), s.question.end());
    all.insert(all.end(), frame.between.begin(), frame.between.end());
    all.insert(all.end(), s.answer.begin(), s.answer.end());
    EXPECT_GE(s.question.size(), 1U);
    EXPECT_LE(s.question.size(), 24U) << "a quarter of the room";
    EXPECT_LE(s.ids.size(), 100U);
    EXPECT_EQ(std::ranges::count(s.question, 3) + std::ranges::count(s.question, 4) + std::ranges::count(s.answer, 3) + std::ranges::count(s.answer, 4), 0);
    if (s.ids != all) all.push_back(4), ended = true;
    else cut = cut || s.ids.size() == 100U;
    EXPECT_EQ(s.ids, all);
  }
  EXPECT_TRUE(cut && ended);
  options.threads = 2;
  const auto again = self_conversations(weights, frame, {3}, options);
  ASSERT_EQ(again.size(), made.size());
  for (size_t i = 0; i < made.size(); ++i) EXPECT_EQ(again[i].ids, made[i].ids);
  // An answer is what the model goes on with behind the whole of its question.
  infer::Engine engine(weights, {.threads = 1});
  double likely = 0, tokens = 0;
  for (const SelfConversation& s : made) {
    const std::vector<std::span<const int32_t>> windows = {s.ids};
    const int64_t begin = std::ssize(frame.before) + std::ssize(s.question) + std::ssize(frame.between) - 1;
    infer::score_documents(engine, windows, {.policy = infer::RoutingPolicy::full(c)}, [&](infer::DocumentScore&& score) {
      for (int64_t i = begin; i < begin + std::ssize(s.answer); ++i) likely -= score.nll[static_cast<size_t>(i)], ++tokens;
    });
  }
  EXPECT_GT(likely / tokens, -std::log(320.0) + 0.3) << "better than any token would be, at a temperature below 1";
}

TEST(SelfText, AFrameIsWhatATemplatePutsAroundAMessage) {
  const text::Tokenizer tokenizer = text::Tokenizer::from_json(test::trained_tokenizer("a user asks, an assistant answers: so it is"), "t");
  const auto frame = [&](const std::string& source) { return chat_frame({.chat_template = text::ChatTemplate(source, "t"), .bos_token = {}, .eos_token = {}}, tokenizer); };
  const auto made = frame("{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}");
  ASSERT_TRUE(made);
  EXPECT_EQ(made->before, tokenizer.encode("user: "));
  EXPECT_EQ(made->between, tokenizer.encode("<|endoftext|>assistant: ", {.allow_special = true}));
  EXPECT_FALSE(frame("{% for m in messages %}<|endoftext|>[{{ m.content }}]{% endfor %}")) << "no special token ends a message";
  EXPECT_FALSE(frame("<|endoftext|>nothing<|endoftext|>")) << "no message";
  EXPECT_FALSE(frame("{{ raise_exception('a system message, please') }}")) << "not by itself";
}

}  // namespace
}  // namespace fathom::convert
