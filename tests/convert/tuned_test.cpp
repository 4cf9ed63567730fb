// Files of tuned tensors: what comes back, what is refused, and what a model reads of them.
#include "convert/tuned.h"

#include <gmock/gmock.h>

#include <cmath>

#include "convert/artifact.h"
#include "convert/quantize.h"
#include "convert/surgery.h"
#include "core/file.h"
#include "core/random.h"
#include "error_of.h"
#include "formats/safetensors.h"
#include "infer/forward.h"
#include "infer/policy.h"
#include "infer/weights.h"
#include "model/random_model.h"
#include "sample_model.h"

namespace fathom::convert {
namespace {

using formats::Dtype;
using formats::GgmlType;
using test::error_of;
using ::testing::HasSubstr;

model::StoredTensor drawn(const std::string& name, std::vector<int64_t> shape, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(shape[0] * (shape.size() > 1 ? shape[1] : 1)));
  for (float& v : values) v = static_cast<float>(random.normal());
  return model::stored_f32(name, std::move(shape), std::move(values));
}

const std::string kQ = "model.layers.1.self_attn.q_proj";

Tuned sample() {
  Tuned t;
  t.adapter_scale = 0.7;
  for (const auto& [name, shape] : std::vector<std::pair<std::string, std::vector<int64_t>>>{
           {"model.layers.1.router.weight", {1, 24}}, {kQ + ".lora_A.weight", {3, 24}}, {kQ + ".lora_B.weight", {24, 3}}, {"model.layers.2.mlp.up_proj.weight", {40, 24}}})
    t.tensors.emplace(name, drawn(name, shape, t.tensors.size() + 1));
  return t;
}

TEST(Tuned, ComesBack) {
  const TemporaryFolder folder;
  for (const Dtype dtype : {Dtype::F32, Dtype::F16}) {
    const std::string path = join_path(folder.path(), formats::dtype_name(dtype));
    write_tuned(path, sample(), dtype);
    const Tuned back = read_tuned(path);
    EXPECT_EQ(back.adapter_scale, 0.7);
    for (const auto& [name, tensor] : rounded(sample(), dtype).tensors) EXPECT_EQ(tensor.to_f32(), back.tensors.at(name).to_f32()) << name;
    ASSERT_EQ(back.tensors.size(), sample().tensors.size());
    for (const auto& [name, tensor] : sample().tensors) {
      const std::vector<float> x = tensor.to_f32(), y = back.tensors.at(name).to_f32();
      const bool exact = dtype == Dtype::F32 || name.find("router") != std::string::npos;
      EXPECT_EQ(x == y, exact) << name;
      for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], y[i], 1e-3 * (1 + std::abs(x[i])));
    }
    // Written from what was read, it is the same file.
    write_tuned(path + "2", back, dtype);
    EXPECT_EQ(read_file(path, 1 << 20), read_file(path + "2", 1 << 20));
  }
}

TEST(Tuned, LiesOverAModel) {
  const TemporaryFolder folder;
  const auto source = model::ModelFolder::open(test::write_sample(folder, "m", test::sample_shape(320, true, 64), test::trained_tokenizer("some words here"), true, 5));
  const Tuned tuned = sample();
  tuned.require_fit(source->config(), "t");
  const Contents base = contents_of(*source), result = contents_of(base, tuned);
  EXPECT_EQ(result.stored("model.layers.2.mlp.up_proj.weight").to_f32(), tuned.tensors.at("model.layers.2.mlp.up_proj.weight").to_f32());
  EXPECT_EQ(result.stored("model.layers.2.mlp.down_proj.weight").to_f32(), source->read_f32("model.layers.2.mlp.down_proj.weight"));
  const std::vector<float> w = source->read_f32(kQ + ".weight"), a = tuned.tensors.at(kQ + ".lora_A.weight").to_f32(), b = tuned.tensors.at(kQ + ".lora_B.weight").to_f32(), found = result.stored(kQ + ".weight").to_f32();
  for (size_t o = 0; o < 24; ++o)
    for (size_t i = 0; i < 24; ++i) {
      double sum = w[o * 24 + i];
      for (size_t r = 0; r < 3; ++r) sum += 0.7 * b[o * 3 + r] * a[r * 24 + i];
      EXPECT_NEAR(found[o * 24 + i], sum, 1e-5);
    }
  // What tuning left alone is carried over; what it changed has the type asked for, vectors f32.
  for (const TensorPlan& p : plan_tuned(base, tuned, GgmlType::Q8_0)) {
    const bool changed = p.spec.name == kQ + ".weight" || p.spec.name == "model.layers.2.mlp.up_proj.weight";
    EXPECT_EQ(p.carried, !changed) << p.spec.name;
    if (changed) {
      EXPECT_EQ(p.to, GgmlType::F16) << "24 columns are no whole blocks of Q8_0";
    }
  }
}

std::vector<float> logits(const std::string& folder) {
  infer::Engine engine(infer::Weights::load(*model::ModelFolder::open(folder), 1), {.threads = 1});
  infer::Sequence sequence = engine.new_sequence();
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 12; ++i) tokens.push_back(i * 7 % 300);
  const infer::RoutingPolicy policy;
  const infer::WorkItem item{.sequence = &sequence, .tokens = tokens, .policy = &policy, .logits = infer::Logits::all};
  return engine.forward({&item, 1}).logits;
}

// Adapters of every block, as a run of tuning leaves them.
Tuned adapters_everywhere(const model::ModelConfig& c) {
  Tuned t;
  t.adapter_scale = 0.7;
  for (int64_t block = 0; block < c.num_hidden_layers; ++block)
    for (const auto& [name, out, in] : {std::tuple("self_attn.q_proj", c.num_attention_heads * c.head_dim, c.hidden_size), std::tuple("mlp.down_proj", c.hidden_size, c.intermediate_size)}) {
      const std::string projection = model::layer_prefix(block) + name;
      t.tensors.emplace(projection + kAdapterA, drawn(projection + kAdapterA, {3, in}, t.tensors.size() + 1));
      t.tensors.emplace(projection + kAdapterB, drawn(projection + kAdapterB, {out, 3}, t.tensors.size() + 1));
    }
  for (auto& [name, tensor] : t.tensors) {
    std::vector<float> values = tensor.to_f32();
    for (float& v : values) v *= 0.1f;
    tensor = model::stored_f32(name, tensor.shape, std::move(values));
  }
  return t;
}

// Beside the projections, merged into them, and merged again out of a model that has them beside: the same numbers, and only the second changes a projection.
TEST(Tuned, AdaptersApartAreAdaptersMerged) {
  const TemporaryFolder folder;
  const auto source = model::ModelFolder::open(test::write_sample(folder, "m", test::sample_shape(320, false, 64), test::trained_tokenizer("some words here"), false, 5));
  const Tuned tuned = adapters_everywhere(source->config());
  const auto path = [&](const char* name) { return join_path(folder.path(), name); };
  const auto write = [&](const char* name, const Contents& base) { write_folder(contents_of(base, tuned), path(name), GgmlType::F32, plan_tuned(base, tuned, GgmlType::F32), {.threads = 1, .progress = {}, .calibrate = {}}); };
  Contents base = contents_of(*source);
  write("merged", base);
  base.config.adapters = adapters_of(tuned, base.config, "t");
  EXPECT_EQ(base.config.adapters, (model::Adapters{.rank = 3, .projections = {"q", "down"}}));
  write("apart", base);
  const auto apart = model::ModelFolder::open(path("apart"));
  EXPECT_THAT(error_of([&] { check_quantize(*apart, path("apart.gguf"), {.type = GgmlType::Q8_0}); }), HasSubstr("a model with adapters beside its projections"));
  const Contents again = merged(contents_of(*apart));
  write_folder(again, path("again"), GgmlType::F32, plan_tensors(again, GgmlType::F32), {.threads = 1, .progress = {}, .calibrate = {}});

  const std::vector<float> expected = logits(path("merged")), before = logits(path("m"));
  EXPECT_EQ(logits(path("again")), expected);
  EXPECT_EQ(model::ModelFolder::open(path("again"))->config(), source->config());
  const std::vector<float> found = logits(path("apart"));
  double worst = 0, change = 0;
  for (size_t i = 0; i < found.size(); ++i) worst = std::max<double>(worst, std::abs(found[i] - expected[i])), change = std::max<double>(change, std::abs(expected[i] - before[i]));
  EXPECT_LT(worst, 1e-4);
  EXPECT_GT(change, 0.05);
  for (const model::TensorSpec& spec : model::schema(source->config())) EXPECT_EQ(apart->read_f32(spec.name), source->read_f32(spec.name)) << spec.name;
}

TEST(Tuned, AdaptersOfSomeBlocksCannotStandApart) {
  const model::ModelConfig c = test::sample_shape(320, false, 64);
  Tuned some = adapters_everywhere(c);
  const std::string q = "model.layers.2.self_attn.q_proj";
  some.tensors.erase(q + kAdapterA), some.tensors.erase(q + kAdapterB);
  EXPECT_THAT(error_of([&] { adapters_of(some, c, "t"); }), HasSubstr(q + ".lora_A.weight: found no adapter, expected one in every block, or in none; merge the adapters into the weights: --adapters merged"));
  Tuned ranks = adapters_everywhere(c);
  ranks.tensors[q + kAdapterA] = drawn(q + kAdapterA, {2, c.hidden_size}, 1);
  EXPECT_THAT(error_of([&] { adapters_of(ranks, c, "t"); }), HasSubstr("rank"));
}

TEST(Tuned, RefusesWhatDoesNotFit) {
  const model::ModelConfig c = test::sample_shape(320, true, 64);
  const auto refusal = [&](const std::function<void(Tuned&)>& change) {
    Tuned t = sample();
    change(t);
    return error_of([&] { t.require_fit(c, "t"); });
  };
  EXPECT_EQ(refusal([](Tuned&) {}), "no error");
  const auto put = [](const std::string& name, std::vector<int64_t> shape) { return [=](Tuned& t) { t.tensors.insert_or_assign(name, drawn(name, shape, 9)); }; };
  EXPECT_THAT(refusal(put("model.layers.9.router.weight", {1, 24})), HasSubstr("model.layers.9.router.weight: found a tensor that the model does not have"));
  EXPECT_THAT(refusal(put("model.layers.1.router.weight", {1, 25})), HasSubstr("found shape [1, 25], expected shape [1, 24]"));
  EXPECT_THAT(refusal(put(kQ + ".lora_A.weight", {4, 24})), HasSubstr("expected shape [24, 4]"));
  EXPECT_THAT(refusal(put(kQ + ".weight", {24, 24})), HasSubstr("an adapter beside the whole of"));
  EXPECT_THAT(refusal([](Tuned& t) { t.tensors.erase(kQ + ".lora_B.weight"); }), HasSubstr("half of an adapter"));

  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "t");
  Tuned bad = sample();
  bad.tensors.insert_or_assign("model.layers.1.router.weight", model::stored_f32("model.layers.1.router.weight", {1, 2}, {1, NAN}));
  EXPECT_THAT(error_of([&] { write_tuned(path, bad, Dtype::F32); }), HasSubstr("tuning diverged"));
  EXPECT_FALSE(exists(path));
  Tuned scaleless = sample();
  scaleless.adapter_scale = 0;
  write_tuned(path, scaleless, Dtype::F32);
  EXPECT_THAT(error_of([&] { read_tuned(path); }), HasSubstr("the scale of its adapters"));
}

TEST(Artifact, ComesBackAndIsChecked) {
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "a");
  model::ModelConfig c = test::sample_shape(320, true, 64);
  c.routing.router_bias = false;
  Random random(3);
  Artifact a{.config = c, .dial = model::random_dial(c, random), .tuned = {}, .base = "f00", .base_name = "dense", .type = "Q8_0", .recipe = {{"tokens", 5}}};
  for (const model::TensorSpec& spec : model::schema(c))
    if (spec.name.find("router.") != std::string::npos) a.tuned.tensors.emplace(spec.name, drawn(spec.name, spec.shape, 2));
  write_artifact(path, a);
  const Artifact back = read_artifact(path);
  EXPECT_EQ(back.config, c);
  EXPECT_EQ(back.dial->to_json(), a.dial->to_json());
  EXPECT_EQ(std::tuple(back.base, back.base_name, back.type, back.recipe), std::tuple(a.base, a.base_name, a.type, a.recipe));
  EXPECT_EQ(artifact_type(back, path), GgmlType::Q8_0);
  const auto source = model::ModelFolder::open(test::write_sample(folder, "m", test::sample_shape(320, false, 64), test::trained_tokenizer("some words here"), false, 5));
  Contents base;
  EXPECT_THAT(error_of([&] { contents_of(*source, back, base); }), HasSubstr("expected f00, of dense"));
  EXPECT_THAT(error_of([&] { read_artifact(folder.path()); }), HasSubstr("a folder without fathom_artifact.json"));
  Tuned fewer = a.tuned;
  const std::string first = fewer.tensors.begin()->first;
  fewer.tensors.erase(first);
  write_tuned(join_path(path, "tuned.safetensors"), fewer, Dtype::F16);
  EXPECT_THAT(error_of([&] { read_artifact(path); }), HasSubstr(first + ": found nothing"));
}

}  // namespace
}  // namespace fathom::convert
