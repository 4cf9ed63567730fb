// A model's files, tensor by tensor from wherever they come: a folder, or one GGUF file. What quantisation and surgery share.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "formats/ggml_types.h"
#include "formats/gguf_writer.h"
#include "model/folder.h"
#include "routing/dial.h"

namespace fathom::convert {

struct TensorPlan {
  model::TensorSpec spec;
  formats::GgmlType from = formats::GgmlType::F32, to = formats::GgmlType::F32;
  bool carried = false;  // same type: the same bytes, row by row
  bool head = false;     // to another type than asked for, because it is the head
  bool fallback = false;  // or because its rows do not fit the blocks of that type
  int64_t bytes_before() const { return formats::ggml_bytes(from, spec.elements()); }
  int64_t bytes_after() const { return formats::ggml_bytes(to, spec.elements()); }
};

struct Totals {
  int64_t elements = 0, before = 0, after = 0;  // bytes of tensors
  double bits_before() const { return 8.0 * static_cast<double>(before) / static_cast<double>(elements); }
  double bits_after() const { return 8.0 * static_cast<double>(after) / static_cast<double>(elements); }
};
Totals totals(const std::vector<TensorPlan>& plan);

// Of a light path [r, C] or [C, r] in a model whose matrices are of `type`: Q8_0 where that has fewer than eight bits or another form.
formats::GgmlType light_type(formats::GgmlType type, int64_t columns);

// `type`, or where rows of so many columns are no whole blocks of it, Q8_0 or F16.
formats::GgmlType fitting(formats::GgmlType type, int64_t columns);

// What a model is, without where it lies.
struct Contents {
  model::ModelConfig config;
  model::GenerationConfig generation;
  std::optional<routing::DialTable> dial;
  std::optional<model::ChatFormat> chat_format;
  std::string tokenizer_json;   // empty: none
  Json config_more = Json::object();         // keys of config.json beside those of `config`
  std::function<void(const std::string& folder)> files;  // writes what a folder holds beside the model's own files; may be empty
  std::string architecture;     // of a whole GGUF file, whose names and orders of rows are llama.cpp's; empty: of a folder
  std::function<const model::StoredTensor&(const std::string& name)> stored;  // a tensor of the schema of `config`
};
// Its tensors are the folder's, which must outlive them.
Contents contents_of(const model::ModelFolder& model);

struct WriteOptions {
  int threads = 0;                                   // 0: all cores that this process may use
  std::function<void(int64_t done, int64_t total)> progress;  // weights; may throw to interrupt, then nothing is left
  // Asked for the dial of a folder with routed blocks once its weights are written, before it appears under its name. Without
  // it the dial is that of the contents.
  std::function<routing::DialTable(const model::ModelFolder& written)> calibrate;
};

bool is_gguf(const std::string& path);  // by its name

// UserError where `out` is the model that is read, or exists and may not be replaced.
void check_out(const model::ModelFolder& model, const std::string& out, bool overwrite);

// A model folder by `plan`, with model.gguf where `type` is quantised, else model.safetensors in that type. An existing folder is replaced
// when all is written. UserError: a weight that is NaN, infinite or too large for its type, a full disk; then `out` is as it was before.
void write_folder(const Contents& model, const std::string& out, formats::GgmlType type, const std::vector<TensorPlan>& plan, const WriteOptions& options);
// A GGUF file, also as a part of a folder; `out` is what errors name.
void write_gguf(const Contents& model, const std::string& path, formats::GgufEntries entries, const std::string& out, const std::vector<TensorPlan>& plan, const WriteOptions& options);

}  // namespace fathom::convert
