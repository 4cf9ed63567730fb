#include "model/folder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include "core/file.h"
#include "core/human.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/gguf_model.h"

namespace fathom::model {
namespace {

using formats::Dtype;
using formats::TensorView;

bool readable(Dtype dtype) { return dtype == Dtype::F32 || dtype == Dtype::BF16 || dtype == Dtype::F16; }

formats::GgmlType plain_type(Dtype dtype) {
  return dtype == Dtype::F32 ? formats::GgmlType::F32 : dtype == Dtype::F16 ? formats::GgmlType::F16 : formats::GgmlType::BF16;
}

// Holds the file's tensors against the schema; returns those of the schema by name.
std::unordered_map<std::string, StoredTensor> match(const formats::SafetensorsSet& set, const ModelConfig& config) {
  std::unordered_map<std::string, StoredTensor> out;
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
    out.emplace(spec.name, StoredTensor{.where = set.where(spec.name), .name = spec.name, .type = plain_type(view->dtype), .shape = spec.shape,
                                        .bytes = view->bytes, .interleaved_head = 0, .owner = {}});
    names.push_back(spec.name);
  }
  for (const TensorView* view : set.tensors()) {
    const std::string& name = view->name;
    if (out.count(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
    if (name == "lm_head.weight") {  // only reached when the embeddings are tied
      const StoredTensor& embedding = out.at("model.embed_tokens.weight");
      if (readable(view->dtype) && plain_type(view->dtype) == embedding.type && view->shape == embedding.shape && std::ranges::equal(view->bytes, embedding.bytes)) continue;
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

Dtype readable_dtype(const std::string& name) {
  const std::optional<Dtype> dtype = formats::dtype_from_name(name);
  if (!dtype || !readable(*dtype)) throw UserError({"dtype", "", "\"" + printable(name) + "\"", "F32, BF16 or F16", ""});
  return *dtype;
}

void write_tensors(const std::string& path, const ModelToWrite& model, Dtype dtype) {
  const std::vector<TensorSpec> specs = schema(model.config);
  std::vector<formats::TensorEntry> entries;
  for (const TensorSpec& spec : specs) {
    const auto own = model.dtypes.find(spec.name);
    const Dtype as = own != model.dtypes.end() ? readable_dtype(own->second) : model.only_matrices && !is_reducible(spec) ? Dtype::F32 : dtype;
    entries.push_back({spec.name, as, spec.shape});
  }
  std::map<std::string, std::string> metadata = model.metadata;
  metadata.emplace("format", "pt");  // transformers asks for it
  formats::SafetensorsWriter writer(path, std::move(entries), metadata);
  for (const TensorSpec& spec : specs) {
    const std::vector<float> values = model.tensor(spec);
    const Dtype as = writer.current().dtype;
    // The largest magnitude that still rounds to a finite number.
    const float largest = as == Dtype::F16 ? 65519.996f : as == Dtype::BF16 ? std::bit_cast<float>(0x7f7f7fffu) : INFINITY;
    FATHOM_ASSERT(static_cast<int64_t>(values.size()) == spec.elements(), spec.name, " has ", values.size(), " elements");
    refuse_not_finite(values, path, spec.name, "nothing was written");
    const auto big = std::find_if(values.begin(), values.end(), [largest](float v) { return std::abs(v) > largest; });
    if (big != values.end())
      throw UserError({path, str(spec.name, "[", big - values.begin(), "]"), str(*big),
                       str("a number that ", formats::dtype_name(as), " can hold"), "write the model as F32"});
    writer.append_f32(values);
  }
  writer.commit();
}

bool has_safetensors(const std::string& folder) {
  return exists(join_path(folder, "model.safetensors")) || exists(join_path(folder, "model.safetensors.index.json"));
}

}  // namespace

bool has_weights(const std::string& folder) { return has_safetensors(folder) || exists(join_path(folder, "model.gguf")); }

struct ModelFolder::State {
  std::string path;
  ModelConfig config;
  GenerationConfig generation;
  std::optional<routing::DialTable> dial;
  std::unique_ptr<formats::SafetensorsSet> set;
  std::unique_ptr<formats::GgufFile> gguf;  // the model itself, or a folder's model.gguf
  bool whole = false;                       // the former
  std::unordered_map<std::string, StoredTensor> tensors;

  const StoredTensor& at(const std::string& name) const {
    const auto it = tensors.find(name);
    FATHOM_ASSERT(it != tensors.end(), "the schema has no tensor ", name);
    return it->second;
  }
};

ModelFolder::ModelFolder() : state_(std::make_unique<State>()) {}
ModelFolder::~ModelFolder() = default;

std::shared_ptr<ModelFolder> ModelFolder::open(const std::string& path, bool need_dial) {
  if (exists(path) && !is_folder(path) && path.ends_with(".gguf")) return open_gguf(path);
  if (!is_folder(path))
    throw UserError({path, "", exists(path) ? "a file" : "no such file or folder", "a model folder with config.json and model.safetensors, or a .gguf file", ""});
  std::shared_ptr<ModelFolder> folder(new ModelFolder);
  State& s = *folder->state_;
  s.path = path;
  const std::string config_path = join_path(path, "config.json");
  s.config = ModelConfig::from_json(read_json(config_path), config_path);

  const std::string generation_path = join_path(path, "generation_config.json");
  s.generation.eos_token_ids = s.config.eos_token_ids;
  if (exists(generation_path)) s.generation = GenerationConfig::from_json(read_json(generation_path), generation_path, s.config);
  if (folder_adds_bos(path) == false) s.config.bos_token_id.reset();  // named, but before no text

  if (s.config.routing.decides()) {
    const std::string dial_path = join_path(path, "fathom_dial.json");
    if (exists(dial_path)) {
      s.dial = routing::DialTable::from_json(read_json(dial_path), dial_path, s.config.routing.cuts());
      s.dial->require_order(s.config.routing, dial_path);
    } else if (need_dial) {
      throw UserError({dial_path, "", "no such file", "the calibration of the routed blocks",
                       "without thresholds no token's path can be decided; calibrate the model"});
    }
  }

  const std::string gguf = join_path(path, "model.gguf");
  if (has_safetensors(path)) {
    s.set = std::make_unique<formats::SafetensorsSet>(path);
    s.tensors = match(*s.set, s.config);
  } else if (exists(gguf)) {
    s.gguf = std::make_unique<formats::GgufFile>(gguf);
    s.tensors = folder_gguf_tensors(*s.gguf, s.config);
  } else {
    throw UserError({path, "", "neither model.safetensors nor model.safetensors.index.json nor model.gguf", "the weights",
                     exists(join_path(path, "pytorch_model.bin")) ? "pytorch_model.bin is not read: save the model again as safetensors" : ""});
  }
  return folder;
}

std::shared_ptr<ModelFolder> ModelFolder::open_gguf(const std::string& path) {
  std::shared_ptr<ModelFolder> folder(new ModelFolder);
  State& s = *folder->state_;
  s.path = path;
  s.gguf = std::make_unique<formats::GgufFile>(path);
  s.whole = true;
  s.config = gguf_config(*s.gguf);
  s.generation.eos_token_ids = s.config.eos_token_ids;
  s.tensors = gguf_tensors(*s.gguf, s.config);
  return folder;
}

const std::string& ModelFolder::path() const { return state_->path; }
const ModelConfig& ModelFolder::config() const { return state_->config; }
const GenerationConfig& ModelFolder::generation() const { return state_->generation; }
const std::optional<routing::DialTable>& ModelFolder::dial() const { return state_->dial; }

void ModelFolder::set_dial(routing::DialTable table) { state_->dial = std::move(table); }

text::Tokenizer ModelFolder::tokenizer() const {
  if (state_->whole) return gguf_tokenizer(*state_->gguf);
  const std::string file = join_path(path(), "tokenizer.json");
  if (!exists(file)) throw UserError({file, "", "no such file", "the model's tokenizer", ""});
  return text::Tokenizer::load(file);
}

std::optional<ChatFormat> ModelFolder::chat_format() const {
  return state_->whole ? gguf_chat_format(*state_->gguf) : folder_chat_format(path());
}

const formats::GgufFile* ModelFolder::gguf() const { return state_->whole ? state_->gguf.get() : nullptr; }

const StoredTensor& ModelFolder::stored(const std::string& name) const { return state_->at(name); }

std::vector<float> ModelFolder::read_f32(const std::string& name) const {
  const StoredTensor& tensor = state_->at(name);
  tensor.refuse_not_finite();
  return tensor.to_f32();
}

std::string ModelFolder::dtype(const std::string& name) const { return formats::ggml_type_name(state_->at(name).type); }

void ModelFolder::release() const {
  if (state_->gguf) state_->gguf->release();
  if (!state_->set) return;
  for (const auto& file : state_->set->files()) file->release();
}

std::string ModelFolder::fingerprint() const {
  Hasher hash;
  const auto add = [&](const std::string& text) { hash.update(text.c_str(), text.size() + 1); };
  add(state_->config.to_json().dump());
  for (const TensorSpec& spec : schema(state_->config)) {
    const StoredTensor& t = state_->at(spec.name);
    add(spec.name), add(formats::ggml_type_name(t.type)), add(shape_text(t.shape)), add(str(t.interleaved_head));
    hash.update(t.bytes.data(), t.bytes.size());
  }
  release();
  return hash.hex();
}

void write_dial(const std::string& folder, const routing::DialTable& dial) {
  atomic_write(join_path(folder, "fathom_dial.json"), pretty(dial.to_json()));
}

void write_model_files(const std::string& folder, const ModelToWrite& model) {
  const Dtype dtype = readable_dtype(model.dtype);
  const std::string config_path = join_path(folder, "config.json");
  model.config.validate(config_path);
  Json config = model.config.to_json();
  config.update(model.config_more);
  if (model.gguf) {  // no "dtype": none that the Hugging Face tools know
    model.gguf(join_path(folder, "model.gguf"));
  } else {
    config["dtype"] = torch_name(dtype);
    write_tensors(join_path(folder, "model.safetensors"), model, dtype);
  }
  if (!model.tokenizer_json.empty()) atomic_write(join_path(folder, "tokenizer.json"), model.tokenizer_json);
  if (model.chat_format) write_chat_format(folder, *model.chat_format);
  if (model.dial) {
    for (const routing::DialPoint& p : model.dial->points)
      FATHOM_ASSERT(p.thresholds.size() == model.config.routing.cuts(), "thresholds of another model");
    write_dial(folder, *model.dial);
  }
  atomic_write(join_path(folder, "generation_config.json"), pretty(model.generation.to_json(model.config)));
  atomic_write(config_path, pretty(config));
}

void write_model_folder(const std::string& path, const ModelToWrite& model) {
  atomic_folder(path, [&](const std::string& temporary) { write_model_files(temporary, model); });
}

}  // namespace fathom::model
