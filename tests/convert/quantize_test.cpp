// What becomes of a model's tensors: the plan, the bytes, and that an engine over what was written is the engine over the same blocks
// in memory.
#include "convert/quantize.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>

#include "core/file.h"
#include "error_of.h"
#include "formats/gguf.h"
#include "in_memory.h"
#include "infer/forward.h"
#include "infer/weights.h"
#include "model/gguf_model.h"
#include "model/random_model.h"
#include "text/bpe_train.h"

namespace fathom::convert {
namespace {

using formats::GgmlType;
using model::ModelFolder;
using test::error_of;
using ::testing::HasSubstr;

std::string tokenizer_json() {
  static const std::string json = [] {
    text::BpeTrainOptions options;
    options.vocab_size = 300;
    int left = 20;
    return text::train_bpe([&](std::string& text) { return text = "The sea is calm tonight, the tide is full 1867.", left-- > 0; }, options).tokenizer_json;
  }();
  return json;
}

// Rows of 64 (no whole block of 256), 96 and 256: every fallback, with rotary heads of 16.
model::ModelConfig shape(bool routed, bool tied, int64_t width = 64) {
  model::ModelConfig c;
  c.vocab_size = 311, c.hidden_size = width, c.intermediate_size = 256, c.num_hidden_layers = 3;
  c.num_attention_heads = 6, c.num_key_value_heads = 2, c.head_dim = 16;
  c.max_position_embeddings = 64, c.tie_word_embeddings = tied;
  c.eos_token_ids = {0};
  if (routed) {
    c.routing.units = {{1, 0.5}, {2, 0.25}};
    c.routing.rule = routing::CausalRule::predictor;
    c.routing.router_bias = true;
    c.qkv_bias = c.output_bias = c.mlp_bias = c.qk_norm = true;
    c.rope_scaling = {.type = model::RopeScaling::Type::llama3, .factor = 8, .original_context = 16, .low_freq_factor = 1, .high_freq_factor = 4};
  }
  return c;
}

model::ModelConfig with_biases(model::ModelConfig c) {
  c.qkv_bias = c.output_bias = c.mlp_bias = true;
  return c;
}

std::shared_ptr<ModelFolder> source(const std::string& path, const model::ModelConfig& config, uint64_t seed = 1, const std::string& dtype = "F32") {
  model::ModelToWrite out = model::model_to_write(config, model::random_weights(config, seed), seed);
  out.tokenizer_json = tokenizer_json();
  out.dtype = dtype;
  model::write_model_folder(path, out);
  return ModelFolder::open(path);
}

void run(const ModelFolder& model, const std::string& out, GgmlType type, QuantizeOptions options = {}) {
  options.type = type;
  options.threads = 2;
  quantize(model, out, plan_quantize(model, type), options);
}

QuantizeOptions replacing() {
  QuantizeOptions options;
  options.overwrite = true;
  return options;
}

std::vector<float> logits(const std::shared_ptr<const infer::Weights>& weights) {
  infer::Engine engine(weights, {.threads = 1, .kernels = nullptr, .kv_bytes = 0});
  infer::Sequence sequence = engine.new_sequence();
  const std::vector<int32_t> tokens = {5, 1, 200, 17, 300, 42, 42, 9, 77, 128, 255, 3};
  const auto policy = infer::RoutingPolicy::causal(std::vector<float>(engine.config().routing.cuts(), 0.0f));
  const infer::WorkItem item{.sequence = &sequence, .tokens = tokens, .policy = &policy, .logits = infer::Logits::all};
  return engine.forward({&item, 1}).logits;
}

// The blocks that the plan asks for, made of the whole tensor at once.
std::map<std::string, model::StoredTensor> in_memory(const ModelFolder& model, const std::vector<TensorPlan>& plan) {
  std::map<std::string, model::StoredTensor> out;
  for (const TensorPlan& p : plan) {
    const std::vector<float> values = model.read_f32(p.spec.name);
    const auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(p.bytes_after()));
    formats::quantize(p.to, values, bytes->data());
    out.emplace(p.spec.name, model::StoredTensor{.where = "memory", .name = p.spec.name, .type = p.to, .shape = p.spec.shape, .bytes = *bytes, .interleaved_head = 0, .owner = bytes});
  }
  return out;
}

GgmlType type_of(const std::vector<TensorPlan>& plan, const std::string& name) {
  for (const TensorPlan& p : plan)
    if (p.spec.name == name) return p.to;
  ADD_FAILURE() << name;
  return GgmlType::F32;
}

TEST(PlanQuantize, NormsBiasesRoutersAndPredictorsStayF32) {
  const TemporaryFolder home;
  const auto model = source(home.path() + "/m", shape(true, false));
  for (const auto& [name, type] : quantize_types())
    for (const TensorPlan& p : plan_quantize(*model, type))
      if (p.spec.name.find("norm") != std::string::npos || p.spec.name.find("router") != std::string::npos || p.spec.name.find("predictor") != std::string::npos || p.spec.name.ends_with(".bias")) {
        EXPECT_EQ(p.to, GgmlType::F32) << name << " " << p.spec.name;
        EXPECT_TRUE(p.carried && !p.head && !p.fallback);
      }
}

TEST(PlanQuantize, HeadsAndRowsThatDoNotFit) {
  const TemporaryFolder home;
  const auto untied = source(home.path() + "/untied", shape(false, false)), tied = source(home.path() + "/tied", shape(false, true));
  const auto odd = source(home.path() + "/odd", shape(false, false, 72));
  const std::string q = "model.layers.0.self_attn.q_proj.weight", o = "model.layers.0.self_attn.o_proj.weight", down = "model.layers.0.mlp.down_proj.weight",
                    embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  // q has rows of 64, o of 96, down of 256.
  const auto plan = plan_quantize(*untied, GgmlType::Q4_K);
  EXPECT_EQ(type_of(plan, q), GgmlType::Q8_0);
  EXPECT_EQ(type_of(plan, o), GgmlType::Q8_0);
  EXPECT_EQ(type_of(plan, down), GgmlType::Q4_K);
  const auto four = plan_quantize(*untied, GgmlType::Q4_0);
  EXPECT_EQ(type_of(four, q), GgmlType::Q4_0);
  EXPECT_EQ(type_of(four, embedding), GgmlType::Q4_0);
  EXPECT_EQ(type_of(four, head), GgmlType::Q8_0);
  EXPECT_EQ(type_of(plan_quantize(*tied, GgmlType::Q4_1), embedding), GgmlType::Q8_0) << "the embedding is the head";
  EXPECT_EQ(type_of(plan_quantize(*untied, GgmlType::Q8_0), head), GgmlType::Q8_0);
  EXPECT_EQ(type_of(plan_quantize(*untied, GgmlType::F16), head), GgmlType::F16);
  EXPECT_EQ(type_of(plan_quantize(*odd, GgmlType::Q4_0), q), GgmlType::F16) << "rows of 72";
  EXPECT_EQ(type_of(plan_quantize(*odd, GgmlType::Q6_K), head), GgmlType::F16);
  for (const TensorPlan& p : four) {
    EXPECT_EQ(p.head, p.spec.name == head);
    EXPECT_FALSE(p.fallback);
  }
  for (const TensorPlan& p : plan) EXPECT_EQ(p.fallback, model::is_reducible(p.spec) && p.spec.shape.back() % 256 != 0) << p.spec.name;
}

TEST(Quantize, AnEngineOverAFolderIsTheEngineOverTheBlocks) {
  const TemporaryFolder home;
  for (const bool routed : {true, false})
    for (const auto& [name, type] : quantize_types()) {
      SCOPED_TRACE(str(name, " ", routed));
      const std::string path = str(home.path(), "/m", routed), out = str(home.path(), "/", name, routed);
      const auto model = exists(path) ? ModelFolder::open(path) : source(path, shape(routed, !routed), 3);
      const auto plan = plan_quantize(*model, type);
      run(*model, out, type);
      const auto written = ModelFolder::open(out);
      EXPECT_EQ(written->config(), model->config());
      EXPECT_EQ(written->generation().eos_token_ids, model->generation().eos_token_ids);
      EXPECT_EQ(written->tokenizer().identity(), model->tokenizer().identity());
      EXPECT_EQ(exists(join_path(out, "model.gguf")), formats::is_quantized(type));
      EXPECT_EQ(exists(join_path(out, "model.safetensors")), !formats::is_quantized(type));
      if (routed) {
        EXPECT_EQ(written->dial()->to_json(), model->dial()->to_json());
      }
      const auto wanted = in_memory(*model, plan);
      for (const auto& [tensor, stored] : wanted) {
        EXPECT_EQ(written->stored(tensor).type, stored.type) << tensor;
        EXPECT_TRUE(std::ranges::equal(written->stored(tensor).bytes, stored.bytes)) << tensor;
      }
      EXPECT_EQ(logits(infer::Weights::load(*written, 1)),
                logits(infer::Weights::from(model->config(), [&](const std::string& tensor) -> const model::StoredTensor& { return wanted.at(tensor); })));
    }
}

TEST(Quantize, LightPathsAreQuantisedTooAndRoutersOfPartsAreNot) {
  const TemporaryFolder home;
  model::ModelConfig config = shape(true, false);
  config.routing.units = {{.block = 1, .capacity = 0.5, .part = routing::Part::attention, .paths = {.light = true}, .light_rank = 32, .light_capacity = 0.25},
                          {.block = 2, .capacity = 0, .part = routing::Part::mlp, .paths = {.skip = false, .light = true, .full = false}, .light_rank = 5}};
  const auto model = source(home.path() + "/m", config, 3);
  const std::string attention = "model.layers.1.self_attn.", mlp = "model.layers.2.mlp.";
  for (const auto& [name, type] : quantize_types()) {
    const std::vector<TensorPlan> plan = plan_quantize(*model, type);
    for (const TensorPlan& p : plan)
      if (p.spec.name.find("router") != std::string::npos || p.spec.name.find("predictor") != std::string::npos) EXPECT_EQ(p.to, GgmlType::F32) << p.spec.name;
    EXPECT_EQ(type_of(plan, attention + "light.down.weight"), type_of(plan, attention + "q_proj.weight")) << name;  // rows of 64
    EXPECT_EQ(type_of(plan, mlp + "light.up.weight"), formats::is_quantized(type) ? GgmlType::F16 : type) << name;   // rows of 5
    const std::string out = str(home.path(), "/", name);
    run(*model, out, type);
    const auto written = ModelFolder::open(out);
    EXPECT_EQ(written->config(), config);
    const auto wanted = in_memory(*model, plan);
    EXPECT_EQ(logits(infer::Weights::load(*written, 1)),
              logits(infer::Weights::from(config, [&](const std::string& tensor) -> const model::StoredTensor& { return wanted.at(tensor); })));
  }
}

TEST(Quantize, AnEngineOverAGgufFileIsTheEngineOverTheBlocks) {
  const TemporaryFolder home;
  using Type = model::RopeScaling::Type;
  std::vector<model::ModelConfig> shapes = {shape(false, false), with_biases(shape(false, true)), shape(false, true), shape(false, false)};
  shapes[1].rope_scaling = {.type = Type::linear, .factor = 4};
  shapes[2].qkv_bias = true;
  shapes[3].qk_norm = true;
  shapes[3].rope_scaling = {.type = Type::yarn, .factor = 4, .original_context = 16, .beta_fast = 32, .beta_slow = 1, .attention_factor = model::yarn_attention_factor(4)};
  const char* const architectures[] = {"llama", "llama", "qwen2", "qwen3"};
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto model = source(str(home.path(), "/m", i), shapes[i], 5);
    for (const auto& [name, type] : quantize_types()) {
      SCOPED_TRACE(str(architectures[i], " ", name));
      const std::string out = str(home.path(), "/", name, i, ".gguf");
      const auto plan = plan_quantize(*model, type);
      run(*model, out, type);
      const auto written = ModelFolder::open(out);
      model::ModelConfig config = written->config();
      config.rms_norm_eps = model->config().rms_norm_eps;  // f32 in the file
      config.initializer_range = model->config().initializer_range;
      EXPECT_EQ(config, model->config());
      EXPECT_EQ(written->gguf()->metadata().string("general.architecture"), architectures[i]);
      const auto wanted = in_memory(*model, plan);
      EXPECT_EQ(logits(infer::Weights::load(*written, 1)),
                logits(infer::Weights::from(model->config(), [&](const std::string& tensor) -> const model::StoredTensor& { return wanted.at(tensor); })));
      const text::Tokenizer before = model->tokenizer(), after = written->tokenizer();
      for (const char* text : {"The sea is calm", "tonight 1867, ünïcödé\n\n  spaces", "<|endoftext|>"}) {
        EXPECT_EQ(after.encode(text), before.encode(text)) << text;
        EXPECT_EQ(after.encode(text, {.add_special_tokens = true, .allow_special = true}), before.encode(text, {.add_special_tokens = true, .allow_special = true})) << text;
      }
      EXPECT_EQ(after.eos_id(), before.eos_id());
    }
  }
}

TEST(Quantize, WhatHasTheTypeIsCarriedOverByteForByte) {
  const TemporaryFolder home;
  const auto model = source(home.path() + "/m", with_biases(shape(false, false)), 9);
  run(*model, home.path() + "/a.gguf", GgmlType::Q4_K);
  const auto first = ModelFolder::open(home.path() + "/a.gguf");
  // To a file and to a folder, and back from the folder: the blocks are those of the first, whatever order the rows stand in.
  run(*first, home.path() + "/b.gguf", GgmlType::Q4_K);
  run(*first, home.path() + "/c", GgmlType::Q4_K);
  const auto folder = ModelFolder::open(home.path() + "/c");
  run(*folder, home.path() + "/d.gguf", GgmlType::Q4_K);
  for (const TensorPlan& p : plan_quantize(*first, GgmlType::Q4_K)) EXPECT_TRUE(p.carried) << p.spec.name;
  const formats::GgufFile a(home.path() + "/a.gguf"), b(home.path() + "/b.gguf"), d(home.path() + "/d.gguf");
  for (const formats::GgufTensor& t : a.tensors()) {
    EXPECT_TRUE(std::ranges::equal(b.at(t.name).bytes, t.bytes)) << t.name;
    EXPECT_TRUE(std::ranges::equal(d.at(t.name).bytes, t.bytes)) << t.name;
  }
  for (const char* bias : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    const std::string name = str("model.layers.1.self_attn.", bias, ".bias");
    EXPECT_EQ(folder->read_f32(name), model->read_f32(name));
  }
  ASSERT_EQ(a.metadata().values().size(), b.metadata().values().size());
  EXPECT_TRUE(read_file(home.path() + "/a.gguf", 1 << 24) == read_file(home.path() + "/b.gguf", 1 << 24)) << "metadata too";
  EXPECT_EQ(logits(infer::Weights::load(*folder, 1)), logits(infer::Weights::load(*first, 1)));
}

TEST(Quantize, ConversationsStayAsTheModelWantsThem) {
  const TemporaryFolder home;
  const auto plain = source(home.path() + "/m", shape(false, false), 9);
  EXPECT_FALSE(plain->chat_format());
  const std::string text = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}\n";
  model::write_chat_format(home.path() + "/m", {.chat_template = text::ChatTemplate(text, "test"), .bos_token = "<s>", .eos_token = "</s>"});
  const auto model = ModelFolder::open(home.path() + "/m");
  run(*model, home.path() + "/q", GgmlType::Q8_0);
  run(*model, home.path() + "/f", GgmlType::F32);
  run(*model, home.path() + "/g.gguf", GgmlType::Q8_0);
  run(*ModelFolder::open(home.path() + "/g.gguf"), home.path() + "/h", GgmlType::Q8_0);
  const std::vector<text::ChatMessage> messages = {{"user", "The tide?"}};
  for (const char* name : {"/m", "/q", "/f"}) {
    const auto format = ModelFolder::open(home.path() + name)->chat_format();
    ASSERT_TRUE(format) << name;
    EXPECT_EQ(format->render(messages), "<s><user>The tide?</s>") << name;
  }
  for (const char* name : {"/g.gguf", "/h"}) {  // where the tokens are those of the vocabulary
    const auto format = ModelFolder::open(home.path() + name)->chat_format();
    ASSERT_TRUE(format) << name;
    EXPECT_EQ(format->chat_template.source(), text) << name;
  }
}

TEST(Quantize, PlainNumbersAreExact) {
  const TemporaryFolder home;
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    SCOPED_TRACE(dtype);
    const auto model = source(str(home.path(), "/", dtype), shape(true, false), 11, dtype);
    const std::string out = str(home.path(), "/", dtype, "-f32");
    run(*model, out, GgmlType::F32);
    const auto written = ModelFolder::open(out);
    for (const model::TensorSpec& spec : model::schema(model->config())) EXPECT_EQ(written->read_f32(spec.name), model->read_f32(spec.name)) << spec.name;
    // and back
    run(*written, out + "-back", *formats::ggml_type_from_name(dtype));
    for (const model::TensorSpec& spec : model::schema(model->config())) EXPECT_EQ(ModelFolder::open(out + "-back")->read_f32(spec.name), model->read_f32(spec.name)) << spec.name;
  }
}

TEST(Quantize, RefusesByName) {
  const TemporaryFolder home;
  const std::string at = home.path();
  const auto routed = source(at + "/routed", shape(true, false)), dense = source(at + "/dense", shape(false, false));
  EXPECT_THAT(error_of([&] { run(*routed, at + "/x.gguf", GgmlType::Q8_0); }), HasSubstr("routed: fathom.routed_blocks: found 2 routed blocks, expected a dense model for a .gguf file"));
  model::ModelConfig both = shape(false, false);
  both.qk_norm = both.mlp_bias = true;
  EXPECT_THAT(error_of([&] { run(*source(at + "/both", both), at + "/x.gguf", GgmlType::Q8_0); }),
              HasSubstr("both: attention_bias: found norms of queries and keys beside biases, expected one of the two; no architecture of llama.cpp has both: write a model folder instead"));
  both.mlp_bias = false;
  both.rope_scaling = {.type = model::RopeScaling::Type::divided, .divisors = std::vector<float>(8, 2.0f)};
  remove_all(at + "/both");
  EXPECT_THAT(error_of([&] { run(*source(at + "/both", both), at + "/x.gguf", GgmlType::Q8_0); }),
              HasSubstr("both: rope_parameters: found each frequency by a number of its own, beside norms of queries and keys, expected positions that are not scaled, or linear or yarn"));
  remove_all(at + "/both");
  EXPECT_THAT(error_of([&] { run(*dense, at + "/dense", GgmlType::Q8_0); }), HasSubstr("found the model itself"));
  EXPECT_THAT(error_of([&] { run(*dense, at + "/dense/", GgmlType::Q8_0, replacing()); }), HasSubstr("found the model itself"));
  EXPECT_THAT(error_of([&] { run(*dense, at, GgmlType::Q8_0, replacing()); }), HasSubstr("a folder that it lies in"));
  EXPECT_THAT(error_of([&] { run(*dense, at + "/routed", GgmlType::Q8_0); }), HasSubstr("found an existing path, expected a new name"));
  make_folders(at + "/full");
  atomic_write(at + "/full/letters.txt", "dear");
  EXPECT_THAT(error_of([&] { run(*dense, at + "/full", GgmlType::Q8_0, replacing()); }), HasSubstr("found a folder without config.json"));
  EXPECT_TRUE(exists(at + "/full/letters.txt"));
  make_folders(at + "/folder.gguf");
  EXPECT_THAT(error_of([&] { run(*dense, at + "/folder.gguf", GgmlType::Q8_0, replacing()); }), HasSubstr("folder.gguf: found a folder, expected the name of a file"));
  EXPECT_THAT(error_of([&] { run(*dense, at + "/full/letters.txt", GgmlType::Q8_0, replacing()); }), HasSubstr("found a file, expected a model folder to replace"));
  EXPECT_EQ(list_folder(at), (std::vector<std::string>{"dense", "folder.gguf", "full", "routed"}));

  model::Weights weights = model::random_weights(dense->config(), 1);
  weights.at("model.layers.1.mlp.up_proj.weight")[70] = 70000;
  model::ModelToWrite large = model::model_to_write(dense->config(), weights, 1);
  large.tokenizer_json = tokenizer_json();
  model::write_model_folder(at + "/large", large);
  const auto model = ModelFolder::open(at + "/large");
  EXPECT_THAT(error_of([&] { run(*model, at + "/x", GgmlType::F16); }), HasSubstr("model.layers.1.mlp.up_proj.weight[70]: found 70000, expected a number that F16 can hold"));
  EXPECT_THAT(error_of([&] { run(*model, at + "/x.gguf", GgmlType::F16); }), HasSubstr("model.layers.1.mlp.up_proj.weight[70]: found 70000, expected a number that F16 can hold"));
  run(*model, at + "/x", GgmlType::Q8_0);  // a scale of 551
  EXPECT_FALSE(exists(at + "/x.gguf"));
  std::filesystem::resize_file(at + "/x/model.gguf", file_size(at + "/x/model.gguf") - 64);
  EXPECT_THAT(error_of([&] { ModelFolder::open(at + "/x"); }), HasSubstr("cut off"));
  EXPECT_THAT(error_of([&] { ModelFolder::open(at + "/x/model.gguf"); }), HasSubstr("cut off"));
}

TEST(Quantize, AFoldersModelGgufIsItsWeightsOnly) {
  const TemporaryFolder home;
  const auto model = source(home.path() + "/m", shape(true, false));
  run(*model, home.path() + "/q", GgmlType::Q8_0);
  EXPECT_THAT(error_of([&] { ModelFolder::open(home.path() + "/q/model.gguf"); }), HasSubstr("it holds the weights of a model folder: open the folder"));
  const auto dense = source(home.path() + "/dense", shape(false, false));
  run(*dense, home.path() + "/whole.gguf", GgmlType::Q8_0);
  std::filesystem::copy_file(home.path() + "/whole.gguf", home.path() + "/q/model.gguf", std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(error_of([&] { ModelFolder::open(home.path() + "/q"); }), HasSubstr("general.architecture: found \"llama\", expected \"fathom\", the weights of a model folder"));
}

TEST(Quantize, OverwritesOnlyWhenAllIsWritten) {
  const TemporaryFolder home;
  const std::string at = home.path();
  const auto model = source(at + "/m", shape(true, false)), dense = source(at + "/dense", shape(false, false));
  run(*model, at + "/out", GgmlType::Q8_0);
  run(*dense, at + "/out.gguf", GgmlType::Q8_0);
  const std::string before = read_file(at + "/out/model.gguf", 1 << 24), file_before = read_file(at + "/out.gguf", 1 << 24);
  const auto unchanged = [&](const char* what) {
    EXPECT_TRUE(read_file(at + "/out/model.gguf", 1 << 24) == before) << what;
    EXPECT_TRUE(read_file(at + "/out.gguf", 1 << 24) == file_before) << what;
    EXPECT_EQ(static_cast<size_t>(std::distance(std::filesystem::directory_iterator(at), {})), 4u) << what << ": something was left";
  };
  QuantizeOptions options = replacing();
  options.progress = [](int64_t done, int64_t total) { if (done > total / 2) throw Interrupted("stop"); };
  EXPECT_THROW(run(*model, at + "/out", GgmlType::Q4_0, options), Interrupted);
  EXPECT_THROW(run(*dense, at + "/out.gguf", GgmlType::Q4_0, options), Interrupted);
  EXPECT_THROW(run(*model, at + "/new", GgmlType::F16, options), Interrupted);
  unchanged("Ctrl-C");
  options.progress = {};
  options.calibrate = [](const ModelFolder&) -> routing::DialTable { throw Interrupted("stop"); };
  EXPECT_THROW(run(*model, at + "/out", GgmlType::Q4_0, options), Interrupted);
  unchanged("Ctrl-C while calibrating");

  std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  rlimit small = limit;
  small.rlim_cur = 20'000;  // stands for the full disk
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string folder_error = error_of([&] { run(*model, at + "/out", GgmlType::Q4_0, replacing()); });
  const std::string file_error = error_of([&] { run(*dense, at + "/out.gguf", GgmlType::Q4_0, replacing()); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_THAT(folder_error, HasSubstr("model.gguf: cannot write: "));
  EXPECT_THAT(file_error, HasSubstr("out.gguf: cannot write: "));
  unchanged("full disk");

  routing::DialTable other = *model->dial();
  other.text = "calibrated again";
  options.calibrate = [&](const ModelFolder& written) {
    EXPECT_EQ(written.dtype("model.layers.0.mlp.down_proj.weight"), "Q4_0");
    return other;
  };
  run(*model, at + "/out", GgmlType::Q4_0, options);
  run(*dense, at + "/out.gguf", GgmlType::Q4_0, replacing());
  EXPECT_EQ(ModelFolder::open(at + "/out")->dial()->text, "calibrated again");
  EXPECT_EQ(ModelFolder::open(at + "/out.gguf")->dtype("model.layers.0.mlp.down_proj.weight"), "Q4_0");
  EXPECT_EQ(static_cast<size_t>(std::distance(std::filesystem::directory_iterator(at), {})), 4u);
}

}  // namespace
}  // namespace fathom::convert
