#include "model/folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "core/file.h"
#include "core/float16.h"
#include "formats/safetensors.h"
#include "model/random_model.h"
#include "model/rope_config.h"

namespace fathom::model {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class FolderTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return join_path(scratch_.path(), name); }

  static ModelConfig config(uint64_t seed, bool dense = false) {
    Random random(seed);
    RandomLimits limits;
    limits.dense = dense;
    return random_config(random, limits);
  }

  // Writes a random model at path("m"), with `change` made to it before.
  template <class Change>
  std::string write(const ModelConfig& c, Change change) {
    ModelToWrite out = model_to_write(c, random_weights(c, 1));
    change(out);
    remove_all(path("m"));
    write_model_folder(path("m"), out);
    return path("m");
  }
  std::string write(const ModelConfig& c) {
    return write(c, [](ModelToWrite&) {});
  }

  // A tensor file at path("m") with the schema's tensors changed by `change(entries, values)`.
  using Entries = std::vector<formats::TensorEntry>;
  template <class Change>
  void rewrite_tensors(const ModelConfig& c, Change change) {
    Entries entries;
    Weights values = random_weights(c, 1);
    for (const TensorSpec& s : schema(c)) entries.push_back({s.name, formats::Dtype::F32, s.shape});
    change(entries, values);
    formats::SafetensorsWriter writer(path("m/model.safetensors"), entries);
    for (const auto& e : entries) {
      if (e.dtype == formats::Dtype::I32) {
        writer.append(std::as_bytes(std::span(values.at(e.name))));
      } else {
        writer.append_f32(values.at(e.name));
      }
    }
    writer.commit();
  }

  static std::string error(const std::function<void()>& call) {
    try {
      call();
    } catch (const UserError& e) {
      return e.what();
    }
    return "no error";
  }
  std::string open_error() {
    return error([&] { ModelFolder::open(path("m")); });
  }

 private:
  TemporaryFolder scratch_;
};

TEST_F(FolderTest, ComesBackBitForBit) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const ModelConfig c = config(seed, seed % 3 == 0);
    const auto folder = ModelFolder::open(write(c));
    EXPECT_EQ(folder->path(), path("m"));
    EXPECT_EQ(folder->config(), c);
    EXPECT_EQ(folder->dial().has_value(), !c.routing.dense());
    EXPECT_EQ(folder->generation().eos_token_ids, c.eos_token_ids);
    for (const auto& [name, values] : random_weights(c, 1)) {
      EXPECT_EQ(folder->read_f32(name), values) << name;
      const StoredTensor& stored = folder->stored(name);
      EXPECT_EQ(stored.bytes.size(), values.size() * 4) << name;
      EXPECT_EQ(std::memcmp(stored.bytes.data(), values.data(), stored.bytes.size()), 0) << name;  // the file's own bytes
      EXPECT_EQ(folder->dtype(name), "F32");
    }
  }
}

TEST_F(FolderTest, HalfPrecisionIsRoundedOnce) {
  const ModelConfig c = config(1);
  for (const std::string dtype : {"BF16", "F16"}) {
    const auto folder = ModelFolder::open(write(c, [&](ModelToWrite& m) { m.dtype = dtype; }));
    EXPECT_EQ(parse_json(read_file(path("m/config.json"), 1 << 20), "c")["dtype"], dtype == "BF16" ? "bfloat16" : "float16");
    for (const auto& [name, values] : random_weights(c, 1)) {
      std::vector<float> rounded = values;
      for (float& v : rounded) v = dtype == "BF16" ? bf16_to_f32(f32_to_bf16(v)) : f16_to_f32(f32_to_f16(v));
      EXPECT_EQ(folder->read_f32(name), rounded) << name;
      EXPECT_EQ(folder->stored(name).bytes.size(), values.size() * 2);
      EXPECT_EQ(folder->dtype(name), dtype);
    }
  }
}

TEST_F(FolderTest, ItsFingerprintIsThatOfItsNumbers) {
  const ModelConfig c = config(1);
  write(c);
  const auto folder = ModelFolder::open(path("m"));
  const std::string own = folder->fingerprint();
  EXPECT_EQ(own.size(), 32u);
  EXPECT_EQ(ModelFolder::open(path("m"))->fingerprint(), own);
  const std::vector<float> before = folder->read_f32("model.norm.weight");
  folder->release();
  EXPECT_EQ(folder->read_f32("model.norm.weight"), before);  // it comes from the file again
  rewrite_tensors(c, [&](Entries&, Weights& values) { values.begin()->second.back() += 1; });
  EXPECT_NE(ModelFolder::open(path("m"))->fingerprint(), own);
  rewrite_tensors(c, [&](Entries&, Weights&) {});
  EXPECT_EQ(ModelFolder::open(path("m"))->fingerprint(), own);
  ModelConfig other = c;
  other.rope_theta *= 2;
  write(other);
  EXPECT_NE(ModelFolder::open(path("m"))->fingerprint(), own);
}

TEST_F(FolderTest, TheDialAndTheMetadataAreKept) {
  const ModelConfig c = config(2);
  Random random(3);
  const routing::DialTable dial = random_dial(c, random);
  const auto folder = ModelFolder::open(write(c, [&](ModelToWrite& m) {
    m.dial = dial;
    m.metadata = {{"made_by", "a test"}};
  }));
  EXPECT_EQ(folder->dial()->to_json(), dial.to_json());
  const formats::SafetensorsFile file(path("m/model.safetensors"));
  EXPECT_EQ(file.metadata().at("made_by"), "a test");
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST_F(FolderTest, TheTokenizerIsCopiedByteForByte) {
  const std::string bytes = "{\"version\": \"1.0\"}\n";
  const auto folder = ModelFolder::open(write(config(4), [&](ModelToWrite& m) { m.tokenizer_json = bytes; }));
  EXPECT_EQ(read_file(join_path(folder->path(), "tokenizer.json"), 1000), bytes);
  const auto without = ModelFolder::open(write(config(4)));
  EXPECT_EQ(error([&] { without->tokenizer(); }), path("m/tokenizer.json") + ": found no such file, expected the model's tokenizer");
}

TEST_F(FolderTest, GenerationSettingsComeBackAndOthersAreKept) {
  const ModelConfig c = config(5);
  GenerationConfig g;
  g.temperature = 0.7;
  g.top_k = 40;
  g.top_p = 0.9;
  g.repetition_penalty = 1.1;
  g.eos_token_ids = {1, 2};
  g.other = {{"max_new_tokens", 12}, {"do_sample", true}};
  if (c.bos_token_id) g.other["bos_token_id"] = *c.bos_token_id;
  if (c.pad_token_id) g.other["pad_token_id"] = *c.pad_token_id;
  EXPECT_EQ(ModelFolder::open(write(c, [&](ModelToWrite& m) { m.generation = g; }))->generation(), g);
}

TEST_F(FolderTest, WithoutSamplingTheTemperatureIsZero) {
  const ModelConfig c = config(5);
  const GenerationConfig g = GenerationConfig::from_json({{"do_sample", false}, {"temperature", 0.7}, {"top_k", 20}}, "g", c);
  EXPECT_EQ(g.temperature, 0);
  EXPECT_EQ(g.to_json(c)["do_sample"], false);
  EXPECT_FALSE(g.to_json(c).contains("temperature"));
  EXPECT_EQ(GenerationConfig::from_json(g.to_json(c), "g", c).top_k, 20);
  EXPECT_EQ(GenerationConfig::from_json({{"do_sample", true}, {"temperature", 0.7}}, "g", c).temperature, 0.7);
  EXPECT_EQ(error([&] { GenerationConfig::from_json({{"do_sample", "x"}}, "g", c); }), "g: do_sample: found the string \"x\", expected true or false");
}

TEST_F(FolderTest, GenerationDefaultsAreNotWritten) {
  ModelConfig c = config(5);
  c.eos_token_ids = {3};
  const Json j = GenerationConfig{}.to_json(c);
  EXPECT_EQ(j["eos_token_id"], 3);
  EXPECT_FALSE(j.contains("do_sample"));
  EXPECT_FALSE(j.contains("temperature"));
  EXPECT_EQ(GenerationConfig::from_json(Json::object(), "g", c).eos_token_ids, c.eos_token_ids);
}

TEST_F(FolderTest, BadGenerationFiles) {
  ModelConfig c = config(6);
  c.vocab_size = 50;
  c.eos_token_ids.clear();
  const std::pair<std::string, std::string> cases[] = {
      {"[]", "g: found an array of 0, expected an object { … }"},
      {R"({"temperature": -1})", "g: temperature: found the number -1, expected a number from 0 to 100"},
      {R"({"temperature": "hot"})", "g: temperature: found the string \"hot\", expected a number from 0 to 100"},
      {R"({"top_k": -5})", "g: top_k: found the number -5, expected a whole number from 0 to 16777216"},
      {R"({"top_p": 0})", "g: top_p: found 0, expected a number above 0 and at most 1"},
      {R"({"top_p": 1.5})", "g: top_p: found the number 1.5, expected a number from 0 to 1"},
      {R"({"repetition_penalty": 0})", "g: repetition_penalty: found the number 0, expected a number from 0.01 to 100"},
      {R"({"eos_token_id": 50})", "g: eos_token_id: found the number 50, expected a whole number from 0 to 49"},
      {R"({"eos_token_id": [1, -1]})", "g: eos_token_id[1]: found the number -1, expected a whole number from 0 to 49"},
  };
  for (const auto& [text, message] : cases) {
    const Json json = parse_json(text, "g");
    EXPECT_EQ(error([&] { GenerationConfig::from_json(json, "g", c); }), message);
  }
  Json many;
  many["eos_token_id"] = std::vector<int>(257, 1);
  EXPECT_EQ(error([&] { GenerationConfig::from_json(many, "g", c); }), "g: eos_token_id: found an array of 257, expected at most 256 ids");
}

TEST_F(FolderTest, MissingFilesAreNamed) {
  EXPECT_EQ(open_error(), path("m") + ": found no such file or folder, expected a model folder with config.json and model.safetensors, or a .gguf file");
  atomic_write(path("m"), "x");
  EXPECT_EQ(open_error(), path("m") + ": found a file, expected a model folder with config.json and model.safetensors, or a .gguf file");
  write(config(7));
  remove_all(path("m/config.json"));
  EXPECT_NE(open_error().find(path("m/config.json")), std::string::npos) << open_error();
  write(config(7));
  remove_all(path("m/model.safetensors"));
  EXPECT_EQ(open_error(), path("m") + ": found neither model.safetensors nor model.safetensors.index.json nor model.gguf, expected the weights");
  atomic_write(path("m/pytorch_model.bin"), "x");
  EXPECT_EQ(open_error(), path("m") + ": found neither model.safetensors nor model.safetensors.index.json nor model.gguf, expected the weights; "
                                      "pytorch_model.bin is not read: save the model again as safetensors");
}

TEST_F(FolderTest, ARoutedModelNeedsItsCalibration) {
  write(config(8), [](ModelToWrite& m) { m.dial.reset(); });
  EXPECT_EQ(open_error(), path("m/fathom_dial.json") + ": found no such file, expected the calibration of the routed blocks; without "
                                                       "thresholds no token's path can be decided; calibrate the model");
  EXPECT_FALSE(ModelFolder::open(path("m"), false)->dial().has_value());
  write(config(8, true));
  EXPECT_FALSE(ModelFolder::open(path("m"))->dial().has_value());
}

TEST_F(FolderTest, TheDialMustFitTheModel) {
  ModelConfig c = config(8);
  write(c);
  ModelConfig other = c;
  other.num_hidden_layers = 9;
  other.routing.units = {{0, 0.5}, {1, 0.5}, {2, 0.5}, {3, 0.5}, {4, 0.5}, {5, 0.5}, {6, 0.5}};
  Random random(1);
  atomic_write(path("m/fathom_dial.json"), random_dial(other, random).to_json().dump());
  EXPECT_EQ(open_error(), path("m/fathom_dial.json") + ": points[0].thresholds: found an array of 7, expected one per cut of a routed block: " +
                              std::to_string(c.routing.units.size()));
}

TEST_F(FolderTest, TensorsAreHeldAgainstTheConfiguration) {
  ModelConfig c = config(9);
  c.tie_word_embeddings = c.qkv_bias = c.output_bias = false;
  c.hidden_size = 10;
  write(c);
  const std::string file = path("m");
  const std::string hint = "config.json describes another model";
  rewrite_tensors(c, [](Entries& e, Weights&) { e.erase(e.begin() + 3); });
  const std::string missing = open_error();
  EXPECT_NE(missing.find("model.layers.0.self_attn.k_proj.weight: found no such tensor, expected a tensor of shape ["), std::string::npos) << missing;
  EXPECT_EQ(missing.find(file), 0u) << missing;
  EXPECT_NE(missing.find(hint), std::string::npos);

  rewrite_tensors(c, [](Entries& e, Weights& w) {
    e[1].shape = {11};
    w.at(e[1].name).resize(11);
  });
  EXPECT_NE(open_error().find("model.safetensors: model.layers.0.input_layernorm.weight: found shape [11], expected [10]; " + hint), std::string::npos) << open_error();

  rewrite_tensors(c, [](Entries& e, Weights& w) {
    e.push_back({"model.layers.0.self_attn.q_proj.bias", formats::Dtype::F32, {2}});
    w["model.layers.0.self_attn.q_proj.bias"] = {0, 0};
  });
  EXPECT_NE(open_error().find("model.layers.0.self_attn.q_proj.bias: found a tensor that the model does not have, expected "
                              "model.layers.0.self_attn.q_proj.weight perhaps; " + hint),
            std::string::npos) << open_error();

  rewrite_tensors(c, [](Entries& e, Weights&) { e[1].dtype = formats::Dtype::I32; });
  EXPECT_NE(open_error().find("model.layers.0.input_layernorm.weight: found dtype I32, expected F32, BF16 or F16"), std::string::npos)
      << open_error();

  rewrite_tensors(c, [](Entries& e, Weights& w) {  // a buffer of old Llama files
    e.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", formats::Dtype::F32, {1}});
    w["model.layers.0.self_attn.rotary_emb.inv_freq"] = {1};
  });
  EXPECT_EQ(open_error(), "no error");
}

TEST_F(FolderTest, ATiedHeadMayStandInTheFileIfItIsEqual) {
  ModelConfig c = config(10);
  c.tie_word_embeddings = true;
  write(c);
  const auto with_head = [&](float change) {
    rewrite_tensors(c, [&](Entries& e, Weights& w) {
      e.push_back({"lm_head.weight", formats::Dtype::F32, e[0].shape});
      w["lm_head.weight"] = w.at(e[0].name);
      w["lm_head.weight"].back() += change;
    });
  };
  with_head(0);
  EXPECT_EQ(open_error(), "no error");
  with_head(1);
  EXPECT_NE(open_error().find("lm_head.weight: found values other than model.embed_tokens.weight, expected the same, since "
                              "tie_word_embeddings is true; set tie_word_embeddings to false in config.json"),
            std::string::npos) << open_error();
}

TEST_F(FolderTest, NumbersThatAreNotFiniteAreRefusedByNameAndIndex) {
  const ModelConfig c = config(11);
  for (const auto& [bad, name] : {std::pair<float, std::string>{kNan, "NaN"}, {kInf, "infinity"}, {-kInf, "minus infinity"}}) {
    write(c);
    rewrite_tensors(c, [&, bad = bad](Entries&, Weights& w) { w.at("model.embed_tokens.weight")[5] = bad; });
    const auto folder = ModelFolder::open(path("m"));
    const std::string message = folder->path() + ": model.embed_tokens.weight[5]: found " + name +
                                ", expected a finite number; the file is damaged or its training diverged";
    const auto tail = [](const std::string& m) { return m.substr(m.find(": model.")); };
    EXPECT_EQ(tail(error([&] { folder->read_f32("model.embed_tokens.weight"); })), tail(message));
    EXPECT_EQ(error([&] { folder->read_f32("model.norm.weight"); }), "no error");
  }
}

TEST_F(FolderTest, TheWriterRefusesWhatTheReaderWould) {
  const ModelConfig c = config(12);
  const auto write_error = [&](float value, const std::string& dtype) {
    return error([&] {
      write(c, [&](ModelToWrite& m) {
        m.dtype = dtype;
        Weights w = random_weights(c, 1);
        w.at("model.norm.weight")[2] = value;
        m.tensor = [w](const TensorSpec& spec) { return w.at(spec.name); };
      });
    });
  };
  const auto has = [](const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(has(write_error(kNan, "F32"), "model.norm.weight[2]: found NaN, expected a finite number; nothing was written"));
  EXPECT_FALSE(exists(path("m")));
  EXPECT_TRUE(std::filesystem::is_empty(path("")));
  EXPECT_TRUE(has(write_error(65520, "F16"), "model.norm.weight[2]: found 65520, expected a number that F16 can hold; write the model as F32"));
  EXPECT_EQ(write_error(65519, "F16"), "no error");
  EXPECT_EQ(ModelFolder::open(path("m"))->read_f32("model.norm.weight")[2], 65504);
  EXPECT_EQ(write_error(3.39e38f, "BF16"), "no error");
  EXPECT_EQ(error([&] { ModelFolder::open(path("m"))->read_f32("model.norm.weight"); }), "no error");
  EXPECT_TRUE(has(write_error(3.4e38f, "BF16"), "expected a number that BF16 can hold"));
  EXPECT_EQ(write_error(3.4e38f, "F32"), "no error");
  EXPECT_EQ(write_error(1, "I8"), "dtype: found \"I8\", expected F32, BF16 or F16");
}

TEST_F(FolderTest, NothingIsLeftOfAFolderThatWasNotFinished) {
  const ModelConfig c = config(13);
  EXPECT_THROW(write(c, [](ModelToWrite& m) {
                 m.tensor = [](const TensorSpec&) -> std::vector<float> { throw UserError("the disk is full"); };
               }),
               UserError);
  EXPECT_FALSE(exists(path("m")));
  EXPECT_TRUE(std::filesystem::is_empty(path("")));
  write(c);
  EXPECT_EQ(error([&] { write_model_folder(path("m"), model_to_write(c, random_weights(c, 1))); }),
            path("m") + ": found an existing path, expected a new folder; choose another name or remove it");
}

TEST_F(FolderTest, FilesGoIntoAFolderThatIsThere) {
  const ModelConfig c = config(14);
  make_folders(path("m"));
  write_model_files(path("m"), model_to_write(c, random_weights(c, 1)));
  EXPECT_EQ(ModelFolder::open(path("m"))->config(), c);
}

TEST_F(FolderTest, AConfigurationThatCannotBeIsNotWritten) {
  ModelConfig c = config(15);
  const ModelToWrite good = model_to_write(c, random_weights(c, 1));
  ModelToWrite bad = good;
  bad.config.head_dim = 3;
  const std::string message = error([&] { write_model_folder(path("m"), bad); });
  EXPECT_NE(message.find("head_dim: found 3, expected an even number"), std::string::npos) << message;
  EXPECT_FALSE(exists(path("m")));
}

TEST_F(FolderTest, ShardsAreOneModel) {
  const ModelConfig c = config(16);
  write(c);
  const Weights weights = random_weights(c, 1);
  remove_all(path("m/model.safetensors"));
  const std::vector<TensorSpec> specs = schema(c);
  Json map = Json::object();
  const std::string names[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
  for (int shard = 0; shard < 2; ++shard) {
    Entries entries;
    for (size_t i = 0; i < specs.size(); ++i)
      if (static_cast<int>(i % 2) == shard) entries.push_back({specs[i].name, formats::Dtype::F32, specs[i].shape}), map[specs[i].name] = names[shard];
    formats::SafetensorsWriter writer(path("m/" + names[shard]), entries);
    for (const auto& e : entries) writer.append_f32(weights.at(e.name));
    writer.commit();
  }
  atomic_write(path("m/model.safetensors.index.json"), Json{{"metadata", Json::object()}, {"weight_map", map}}.dump());
  const auto folder = ModelFolder::open(path("m"));
  for (const auto& [name, values] : weights) EXPECT_EQ(folder->read_f32(name), values) << name;
}

TEST_F(FolderTest, ANameOutsideTheSchemaIsAProgrammersFault) {
  const auto folder = ModelFolder::open(write(config(17)));
  EXPECT_THROW(folder->read_f32("model.embed_tokens"), std::logic_error);
}

// docs/formats.md names every key that is written and every tensor that routing adds.
TEST(Formats, TheDocumentNamesEveryKey) {
  const std::string all = read_file(FATHOM_DOCS "/formats.md", 1 << 20);
  const size_t begin = all.find("\n## Model folder\n");
  ASSERT_NE(begin, std::string::npos);
  const std::string text = all.substr(begin, all.find("\n## ", begin + 1) - begin);
  const auto named = [&](const std::string& word) { EXPECT_NE(text.find("`" + word + "`"), std::string::npos) << word; };

  Random random(5);
  ModelConfig c = random_config(random);
  c.routing.rule = routing::CausalRule::predictor;
  c.routing.router_bias = true;
  c.output_bias = c.mlp_bias = c.qk_norm = true, c.qkv_bias = false;  // every key that any model needs
  c.rope_scaling = {.type = RopeScaling::Type::linear, .factor = 2};
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "m");
  write_model_folder(path, model_to_write(c, random_weights(c, 5), 5));
  const Json config = read_json(join_path(path, "config.json")), dial = read_json(join_path(path, "fathom_dial.json"));
  for (const auto& [key, value] : config.items()) named(key);
  for (const auto& [key, value] : config["fathom"].items()) named(key);
  for (const RopeScaling& scaling : {RopeScaling{.type = RopeScaling::Type::llama3}, {.type = RopeScaling::Type::yarn}, {.type = RopeScaling::Type::divided}}) {
    const Json rope = rope_parameters(1e4, scaling, 100);
    named(rope["rope_type"].get<std::string>());
    for (const auto& [key, value] : rope.items()) named(key);
  }
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3", "fathom"}) named(family);
  for (const auto& [key, value] : dial.items()) named(key);
  for (const auto& [key, value] : dial["points"][0].items()) named("points[]." + key);
  const std::string layer = layer_prefix(c.routing.units[0].block);
  for (const TensorSpec& spec : schema(c))
    if (spec.name.starts_with(layer + "router.") || spec.name.starts_with(layer + "predictor.")) named(spec.name.substr(layer.size()));
  const auto every = [&](const auto& names) {
    for (const auto& [name, value] : names) named(name);
  };
  every(routing::kGateNames), every(routing::kCausalRuleNames), every(routing::kSelectionNames), every(routing::kKvPolicyNames), every(routing::kRouterInputNames);
  every(routing::kPathNames), every(routing::kPartNames);
  c.routing.units = {{.block = 0, .capacity = 0.25, .part = routing::Part::mlp, .paths = {.exit = true, .skip = true, .light = true}, .light_rank = 1, .light_capacity = 0.25, .skip_capacity = 0.25}};
  const Json routing = c.routing.to_json();
  for (const auto& [key, value] : routing.items()) named(key);
  for (const auto& [key, value] : routing["units"][0].items()) named(key);
  for (const TensorSpec& spec : schema(c))
    if (const size_t at = spec.name.find("light."); at != std::string::npos) named(spec.name.substr(at));
  const std::string version = std::to_string(routing::kRoutingVersion);
  EXPECT_NE(text.find("object `fathom`, version 1 or " + version + ";"), std::string::npos);
  EXPECT_NE(text.find("**fathom_dial.json**, version " + std::to_string(routing::kDialVersion) + ":"), std::string::npos);
}

}  // namespace
}  // namespace fathom::model
