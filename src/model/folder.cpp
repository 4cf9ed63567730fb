#include "model/folder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "core/file.h"
#include "formats/safetensors.h"

namespace fathom::model {
namespace {

using formats::Dtype;
using formats::TensorView;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += str(i ? ", " : "", shape[i]);
  return out + "]";
}

bool readable(Dtype dtype) { return dtype == Dtype::F32 || dtype == Dtype::BF16 || dtype == Dtype::F16; }

void refuse_not_finite(std::span<const float> values, const std::string& where, const std::string& name, const std::string& hint) {
  // One pass without a branch over sound weights; the second one only runs to name the element.
  uint32_t bad = 0;
  for (float v : values) bad |= (std::bit_cast<uint32_t>(v) & 0x7f800000u) == 0x7f800000u;
  if (!bad) return;
  const auto it = std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  throw UserError({where, str(name, "[", it - values.begin(), "]"), std::isnan(*it) ? "NaN" : *it > 0 ? "infinity" : "minus infinity",
                   "a finite number", hint});
}

// Holds the file's tensors against the schema; returns those of the schema by name.
std::unordered_map<std::string, const TensorView*> match(const formats::SafetensorsSet& set, const ModelConfig& config) {
  std::unordered_map<std::string, const TensorView*> out;
  std::vector<std::string> names;
  for (const TensorSpec& spec : schema(config)) {
    const TensorView* view = set.find(spec.name);
    const std::string expected = str("a tensor of shape ", shape_text(spec.shape));
    if (!view) throw UserError({set.where(), spec.name, "no such tensor", expected, "config.json describes another model"});
    if (view->shape != spec.shape)
      throw UserError({set.where(spec.name), spec.name, str("shape ", shape_text(view->shape)), shape_text(spec.shape),
                       "config.json describes another model"});
    if (!readable(view->dtype))
      throw UserError({set.where(spec.name), spec.name, str("dtype ", formats::dtype_name(view->dtype)), "F32, BF16 or F16", ""});
    out.emplace(spec.name, view);
    names.push_back(spec.name);
  }
  for (const TensorView* view : set.tensors()) {
    const std::string& name = view->name;
    if (out.count(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
    if (name == "lm_head.weight") {  // only reached when the embeddings are tied
      const TensorView& embedding = *out.at("model.embed_tokens.weight");
      if (view->dtype == embedding.dtype && view->shape == embedding.shape && std::ranges::equal(view->bytes, embedding.bytes)) continue;
      throw UserError({set.where(name), name, "values other than model.embed_tokens.weight", "the same, since tie_word_embeddings is true",
                       "set tie_word_embeddings to false in config.json"});
    }
    const std::string near = nearest(name, names);
    throw UserError({set.where(name), printable(name, 200), "a tensor that the model does not have", near.empty() ? "" : near + " perhaps",
                     "config.json describes another model"});
  }
  return out;
}

const char* torch_name(Dtype dtype) {
  return dtype == Dtype::BF16 ? "bfloat16" : dtype == Dtype::F16 ? "float16" : "float32";
}

std::string pretty(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_tensors(const std::string& path, const ModelToWrite& model, Dtype dtype) {
  const std::vector<TensorSpec> specs = schema(model.config);
  std::vector<formats::TensorEntry> entries;
  for (const TensorSpec& spec : specs) entries.push_back({spec.name, dtype, spec.shape});
  std::map<std::string, std::string> metadata = model.metadata;
  metadata.emplace("format", "pt");  // transformers asks for it
  formats::SafetensorsWriter writer(path, std::move(entries), metadata);
  // The largest magnitude that still rounds to a finite number.
  const float largest = dtype == Dtype::F16 ? 65519.996f : dtype == Dtype::BF16 ? std::bit_cast<float>(0x7f7f7fffu) : INFINITY;
  for (const TensorSpec& spec : specs) {
    const std::vector<float> values = model.tensor(spec);
    FATHOM_ASSERT(static_cast<int64_t>(values.size()) == spec.elements(), spec.name, " has ", values.size(), " elements");
    refuse_not_finite(values, path, spec.name, "nothing was written");
    const auto big = std::find_if(values.begin(), values.end(), [largest](float v) { return std::abs(v) > largest; });
    if (big != values.end())
      throw UserError({path, str(spec.name, "[", big - values.begin(), "]"), str(*big),
                       str("a number that ", formats::dtype_name(dtype), " can hold"), "write the model as F32"});
    writer.append_f32(values);
  }
  writer.commit();
}

}  // namespace

struct ModelFolder::State {
  std::string path;
  ModelConfig config;
  GenerationConfig generation;
  std::optional<routing::DialTable> dial;
  std::unique_ptr<formats::SafetensorsSet> set;
  std::unordered_map<std::string, const TensorView*> tensors;

  const TensorView& at(const std::string& name) const {
    const auto it = tensors.find(name);
    FATHOM_ASSERT(it != tensors.end(), "the schema has no tensor ", name);
    return *it->second;
  }
};

ModelFolder::ModelFolder() : state_(std::make_unique<State>()) {}
ModelFolder::~ModelFolder() = default;

std::shared_ptr<ModelFolder> ModelFolder::open(const std::string& path, bool need_dial) {
  if (!is_folder(path))
    throw UserError({path, "", exists(path) ? "a file" : "no such folder", "a model folder with config.json and model.safetensors", ""});
  std::shared_ptr<ModelFolder> folder(new ModelFolder);
  State& s = *folder->state_;
  s.path = path;
  const std::string config_path = join_path(path, "config.json");
  s.config = ModelConfig::from_json(read_json(config_path), config_path);

  const std::string generation_path = join_path(path, "generation_config.json");
  s.generation.eos_token_ids = s.config.eos_token_ids;
  if (exists(generation_path)) s.generation = GenerationConfig::from_json(read_json(generation_path), generation_path, s.config);

  if (!s.config.routing.dense()) {
    const std::string dial_path = join_path(path, "fathom_dial.json");
    if (exists(dial_path)) {
      s.dial = routing::DialTable::from_json(read_json(dial_path), dial_path, s.config.routing.blocks.size());
    } else if (need_dial) {
      throw UserError({dial_path, "", "no such file", "the calibration of the routed blocks",
                       "without thresholds no token's path can be decided; calibrate the model"});
    }
  }

  if (!exists(join_path(path, "model.safetensors")) && !exists(join_path(path, "model.safetensors.index.json")))
    throw UserError({path, "", "neither model.safetensors nor model.safetensors.index.json", "the weights",
                     exists(join_path(path, "pytorch_model.bin")) ? "pytorch_model.bin is not read: save the model again as safetensors" : ""});
  s.set = std::make_unique<formats::SafetensorsSet>(path);
  s.tensors = match(*s.set, s.config);
  return folder;
}

const std::string& ModelFolder::path() const { return state_->path; }
const ModelConfig& ModelFolder::config() const { return state_->config; }
const GenerationConfig& ModelFolder::generation() const { return state_->generation; }
const std::optional<routing::DialTable>& ModelFolder::dial() const { return state_->dial; }
bool ModelFolder::has_tokenizer() const { return exists(join_path(path(), "tokenizer.json")); }

std::string ModelFolder::tokenizer_path() const {
  if (!has_tokenizer()) throw UserError({join_path(path(), "tokenizer.json"), "", "no such file", "the model's tokenizer", ""});
  return join_path(path(), "tokenizer.json");
}

std::vector<float> ModelFolder::read_f32(const std::string& name) const {
  std::vector<float> values = state_->at(name).to_f32();
  refuse_not_finite(values, state_->set->where(name), name, "the file is damaged or its training diverged");
  return values;
}

std::span<const float> ModelFolder::view_f32(const std::string& name) const {
  const std::span<const float> values = state_->at(name).f32_view();
  refuse_not_finite(values, state_->set->where(name), name, "the file is damaged or its training diverged");
  return values;
}

std::string ModelFolder::dtype(const std::string& name) const { return formats::dtype_name(state_->at(name).dtype); }

void write_model_files(const std::string& folder, const ModelToWrite& model) {
  const std::optional<Dtype> dtype = formats::dtype_from_name(model.dtype);
  if (!dtype || !readable(*dtype)) throw UserError({"dtype", "", "\"" + printable(model.dtype) + "\"", "F32, BF16 or F16", ""});
  const std::string config_path = join_path(folder, "config.json");
  model.config.validate(config_path);
  Json config = model.config.to_json();
  config["dtype"] = torch_name(*dtype);
  write_tensors(join_path(folder, "model.safetensors"), model, *dtype);
  if (!model.tokenizer_json.empty()) atomic_write(join_path(folder, "tokenizer.json"), model.tokenizer_json);
  if (model.dial) {
    for (const routing::DialPoint& p : model.dial->points)
      FATHOM_ASSERT(p.thresholds.size() == model.config.routing.blocks.size(), "thresholds of another model");
    atomic_write(join_path(folder, "fathom_dial.json"), pretty(model.dial->to_json()));
  }
  atomic_write(join_path(folder, "generation_config.json"), pretty(model.generation.to_json(model.config)));
  atomic_write(config_path, pretty(config));
}

void write_model_folder(const std::string& path, const ModelToWrite& model) {
  atomic_folder(path, [&](const std::string& temporary) { write_model_files(temporary, model); });
}

}  // namespace fathom::model
