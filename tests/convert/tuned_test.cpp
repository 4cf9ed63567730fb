// Files of tuned tensors: what comes back, what is refused, and what a model reads of them.
#include "convert/tuned.h"

#include <gmock/gmock.h>

#include <cmath>

#include "convert/artifact.h"
#include "core/file.h"
#include "core/random.h"
#include "error_of.h"
#include "formats/safetensors.h"
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
    if (changed) EXPECT_EQ(p.to, GgmlType::F16) << "24 columns are no whole blocks of Q8_0";
  }
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
