#include "convert/write.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "core/file.h"
#include "core/thread_pool.h"
#include "formats/gguf_writer.h"
#include "model/gguf_model.h"
#include "model/gguf_write.h"

namespace fs = std::filesystem;

namespace fathom::convert {
namespace {

using formats::GgmlType;
using model::ModelFolder;
using model::StoredTensor;

constexpr int64_t kPieceElements = 1 << 20;  // of a tensor in memory at once, at least a row
constexpr int64_t kRowsPerTask = 8;

// Weights that are done, over all tensors.
class Count {
 public:
  Count(const std::vector<TensorPlan>& plan, const WriteOptions& options) : total_(totals(plan).elements), options_(options) {}
  void add(int64_t elements) {
    done_ += elements;
    if (options_.progress) options_.progress(done_, total_);
  }

 private:
  int64_t total_, done_ = 0;
  const WriteOptions& options_;
};

// One row of a tensor, checked and in its new type. `head`: as in append_tensor, of a vector's elements.
void convert_row(const TensorPlan& p, const StoredTensor& source, int64_t row, int64_t head, const std::string& out, std::vector<float>& values, std::byte* to) {
  const int64_t K = source.columns();
  values.resize(static_cast<size_t>(K));
  source.row_f32(row, values.data());
  model::refuse_not_finite(values, source.where, source.name, "the file is damaged or its training diverged", row * K);
  if (source.shape.size() == 1 && head > 0) {
    const std::vector<float> schema = values;
    for (int64_t i = 0; i < K; ++i) values[static_cast<size_t>(i)] = schema[static_cast<size_t>(model::not_interleaved(i, head))];
  }
  if (p.carried && source.shape.size() > 1) {  // a vector's elements may lie otherwise in the source
    std::ranges::copy(source.row(row), to);
    return;
  }
  formats::quantize(p.to, values, to);
  std::vector<float> back(values.size());
  formats::dequantize(p.to, {to, static_cast<size_t>(formats::ggml_bytes(p.to, K))}, back.data());
  for (size_t k = 0; k < back.size(); ++k)
    if (!std::isfinite(back[k]))
      throw UserError({out, str(p.spec.name, "[", row * K + static_cast<int64_t>(k), "]"), str(values[k]), str("a number that ", formats::ggml_type_name(p.to), " can hold"),
                       "bf16 and f32 have a wider range"});
}

// The rows of a tensor in the order of a GGUF file: of the schema, or with rotary halves interleaved by `head` (0: they are not).
void append_tensor(formats::GgufWriter& writer, const TensorPlan& p, const StoredTensor& source, int64_t head, const std::string& out, ThreadPool& threads, Count& count) {
  const int64_t rows = source.rows(), row_bytes = formats::ggml_bytes(p.to, source.columns());
  const int64_t piece = std::max<int64_t>(1, kPieceElements / source.columns());
  const auto schema_row = [&](int64_t n) { return head == 0 || source.shape.size() == 1 ? n : model::not_interleaved(n, head); };
  std::vector<std::byte> bytes;
  for (int64_t first = 0; first < rows; first += piece) {
    const int64_t here = std::min(piece, rows - first);
    bytes.resize(static_cast<size_t>(here * row_bytes));
    threads.parallel_for((here + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
      std::vector<float> values;
      for (int64_t i = task * kRowsPerTask; i < std::min(here, (task + 1) * kRowsPerTask); ++i)
        convert_row(p, source, schema_row(first + i), head, out, values, bytes.data() + i * row_bytes);
    });
    writer.append(bytes);
    count.add(here * source.columns());
  }
}

const char* safetensors_name(GgmlType type) { return type == GgmlType::F16 ? "F16" : type == GgmlType::BF16 ? "BF16" : "F32"; }

void fill_folder(const Contents& model, const std::string& folder, const std::string& out, GgmlType type, const std::vector<TensorPlan>& plan, const WriteOptions& options) {
  model::ModelToWrite to;
  Count count(plan, options);
  to.config = model.config;
  to.generation = model.generation;
  to.dial = model.dial;
  to.chat_format = model.chat_format;
  to.tokenizer_json = model.tokenizer_json;
  to.config_more = model.config_more;
  if (formats::is_quantized(type) || std::ranges::any_of(plan, [](const TensorPlan& p) { return formats::is_quantized(p.to); })) {
    to.gguf = [&](const std::string& path) { write_gguf(model, path, model::folder_gguf_entries(type), out, plan, options); };
  } else {
    to.tensor = [&](const model::TensorSpec& spec) {
      const StoredTensor& tensor = model.stored(spec.name);
      tensor.refuse_not_finite();
      count.add(spec.elements());
      return tensor.to_f32();
    };
    to.dtype = safetensors_name(type);
    to.only_matrices = true;
    for (const TensorPlan& p : plan)
      if (model::is_reducible(p.spec)) to.dtypes.emplace(p.spec.name, safetensors_name(p.to));
    to.metadata = {{"producer", "fathom"}};
  }
  model::write_model_files(folder, to);
  if (model.files) model.files(folder);
  if (!options.calibrate || !model.config.routing.decides()) return;
  model::write_dial(folder, options.calibrate(*ModelFolder::open(folder, false)));
}

// Whether `inner` is `outer` or lies in it.
bool within(const std::string& outer, const std::string& inner) {
  const fs::path o = fs::weakly_canonical(outer), i = fs::weakly_canonical(inner);
  return std::mismatch(o.begin(), o.end(), i.begin(), i.end()).first == o.end();
}

}  // namespace

bool is_gguf(const std::string& path) { return path.ends_with(".gguf"); }

GgmlType fitting(GgmlType type, int64_t columns) {
  for (const GgmlType t : {type, GgmlType::Q8_0})
    if (formats::ggml_block_elements(t) <= formats::ggml_block_elements(type) && columns % formats::ggml_block_elements(t) == 0) return t;
  return GgmlType::F16;
}

GgmlType light_type(GgmlType type, int64_t columns) { return formats::is_quantized(type) ? fitting(GgmlType::Q8_0, columns) : type; }

Totals totals(const std::vector<TensorPlan>& plan) {
  Totals t;
  for (const TensorPlan& p : plan) t.elements += p.spec.elements(), t.before += p.bytes_before(), t.after += p.bytes_after();
  return t;
}

Contents contents_of(const ModelFolder& model) {
  Contents out{.config = model.config(), .generation = model.generation(), .dial = model.dial(), .chat_format = model.chat_format(), .tokenizer_json = {}, .files = {}, .architecture = {},
               .stored = [&model](const std::string& name) -> const StoredTensor& { return model.stored(name); }};
  if (model.gguf() || exists(join_path(model.path(), "tokenizer.json"))) out.tokenizer_json = model.tokenizer().json();
  return out;
}

void check_out(const ModelFolder& model, const std::string& out, bool overwrite) {
  if (within(out, model.path())) throw UserError({out, "", "the model itself, or a folder that it lies in", "another name", "the original is read while the result is written"});
  if (exists(out) && !overwrite) throw UserError({out, "", "an existing path", "a new name", "choose another name or remove it"});
  if (is_gguf(out)) {
    if (is_folder(out)) throw UserError({out, "", "a folder", "the name of a file", "name a file in it"});
  } else if (exists(out)) {
    if (!is_folder(out)) throw UserError({out, "", "a file", "a model folder to replace, or a name that ends in .gguf", ""});
    if (!exists(join_path(out, "config.json")) && !fs::is_empty(out))
      throw UserError({out, "", "a folder without config.json", "a model folder to replace", "whatever it holds would be lost; remove it yourself or choose another name"});
  }
}

void write_folder(const Contents& model, const std::string& out, GgmlType type, const std::vector<TensorPlan>& plan, const WriteOptions& options) {
  const auto fill = [&](const std::string& folder) { fill_folder(model, folder, out, type, plan, options); };
  fs::path place = fs::path(out).lexically_normal();
  if (place.filename().empty()) place = place.parent_path();  // OUT/
  if (!exists(out)) return atomic_folder(place.string(), fill);
  // A folder cannot be renamed over another one: the new one is complete, beside its place, before the old one goes.
  const std::string beside = (place.parent_path() / str(".", place.filename().string(), ".new-", ::getpid())).string();
  atomic_folder(beside, fill);
  remove_all(place.string());
  rename_folder(beside, place.string());
}

void write_gguf(const Contents& model, const std::string& path, formats::GgufEntries entries, const std::string& out, const std::vector<TensorPlan>& plan, const WriteOptions& options) {
  const model::ModelConfig& config = model.config;
  const bool whole = !model.architecture.empty();
  const std::vector<float> divisors = whole ? model::rope_divisors(config.head_dim, config.rope_theta, config.rope_scaling) : std::vector<float>();
  std::vector<formats::GgufTensorEntry> tensors;
  for (const TensorPlan& p : plan) tensors.push_back({whole ? model::gguf_name(p.spec.name) : p.spec.name, p.to, p.spec.shape});
  if (!divisors.empty()) tensors.push_back({model::kGgufRopeTensor, GgmlType::F32, {config.head_dim / 2}});
  const std::vector<formats::GgufTensorEntry> names = tensors;
  ThreadPool threads(options.threads > 0 ? options.threads : available_threads());
  formats::GgufWriter writer(path, entries, std::move(tensors));
  Count count(plan, options);
  for (size_t i = 0; i < plan.size(); ++i)
    append_tensor(writer, plan[i], model.stored(plan[i].spec.name), model::gguf_interleaves(model.architecture, names[i].name) ? config.head_dim : 0, out, threads, count);
  if (!divisors.empty()) writer.append(std::as_bytes(std::span(divisors)));
  writer.commit();
}

}  // namespace fathom::convert
