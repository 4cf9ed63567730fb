#include "tune/finish.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "convert/artifact.h"
#include "convert/calibrate.h"
#include "convert/quantize.h"
#include "convert/surgery.h"
#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "core/progress.h"
#include "infer/score.h"
#include "infer/weights.h"

namespace fathom::tune {
namespace {

using formats::GgmlType;

constexpr int64_t kBlock = 256;  // elements that every type takes whole

// Later stages over earlier ones.
convert::Tuned together(const std::vector<convert::Tuned>& stages) {
  convert::Tuned out;
  for (const convert::Tuned& stage : stages) {
    for (const auto& [name, tensor] : stage.tensors) out.tensors.insert_or_assign(name, tensor);
    if (stage.adapter_scale != 0) out.adapter_scale = stage.adapter_scale;
  }
  return out;
}

// Shares of the cuts as capacities of the units.
void set_capacities(model::ModelConfig& config, const std::vector<double>& shares) {
  for (size_t u = 0; u < config.routing.units.size(); ++u) {
    routing::RoutedUnit& unit = config.routing.units[u];
    if (unit.is_static()) continue;
    const size_t first = config.routing.first_cut(u), last = first + unit.cuts() - 1;
    unit.capacity = std::clamp(shares[last], convert::kLeastCapacity, 1.0);
    if (unit.cuts() > 1) unit.light_capacity = std::clamp(shares[first] - unit.capacity, 0.0, 1 - unit.capacity);
  }
}

// Documents of the held-out split as they lie in its windows.
struct Windows {
  std::vector<std::vector<int32_t>> texts;
  std::vector<std::span<const int32_t>> spans;
};

Windows read_windows(const data::Dataset& dataset, int64_t tokens, int64_t row_tokens) {
  Windows out;
  const train::Batch rows = train::read_batch(dataset, train::evaluation_windows(dataset, tokens, row_tokens, 0, 1), row_tokens);
  for (int64_t row = 0; row < rows.rows; ++row)
    for (int64_t from = 0, to = 0; from < row_tokens; from = to) {
      to = train::document_end(rows, row, from);
      const auto at = rows.input.begin() + row * row_tokens;
      if (to - from > 1) out.texts.emplace_back(at + from, at + to);
    }
  for (const auto& text : out.texts) out.spans.push_back(text);
  return out;
}

std::function<void()> stopper(const Shared& shared) {
  return [&shared] {
    if (shared.stop && shared.stop()) throw Interrupted(str("stopped before the model was written; go on with: fathom tune --resume ", shared.run));
  };
}

double teacher_loss(const Shared& shared, const Windows& text) {
  infer::Engine engine(infer::Weights::load(shared.teacher->folder(), static_cast<int>(shared.config.threads)), {.threads = static_cast<int>(shared.config.threads), .kernels = nullptr, .kv_bytes = 0});
  double sum = 0;
  int64_t n = 0;
  const auto check = stopper(shared);
  infer::score_documents(engine, text.spans, {.policy = infer::RoutingPolicy::full(engine.config())}, [&](infer::DocumentScore&& score) {
    check();
    for (const float nll : score.nll) sum += nll, ++n;
  });
  return sum / static_cast<double>(std::max<int64_t>(n, 1));
}

routing::DialTable calibrate(const Shared& shared, const model::ModelFolder& written, const Windows& text) {
  const TuneConfig& config = shared.config;
  const routing::DialTable grid = convert::uncalibrated(written.config(), config.sequence_length, {config.lowest, config.highest});
  Progress progress("calibrate", "dials", static_cast<int64_t>(grid.points.size()));
  routing::DialTable table = convert::calibrate_dial(infer::Weights::load(written, static_cast<int>(config.threads)), grid, {text.spans, "held-out part of the text it was tuned on", config.sequence_length},
                                                     {.threads = static_cast<int>(config.threads), .shift = true, .progress = [&](size_t done, size_t) { progress.update(static_cast<int64_t>(done)); },
                                                      .check = stopper(shared)});
  progress.finish();
  return table;
}

}  // namespace

GgmlType changed_type(const TuneConfig& config, const model::ModelFolder& student) {
  const GgmlType source = convert::surgery_type(student);
  if (config.type.empty()) return formats::is_quantized(source) ? GgmlType::Q8_0 : source;
  for (const auto& [name, type] : convert::quantize_types())
    if (config.type == name) return type;
  throw UserError({"fathom tune", "type", "\"" + printable(config.type) + "\"", "a type of fathom quantize", ""});
}

bool rests_on(const model::ModelFolder& teacher, const model::ModelFolder& student, const convert::Tuned& tuned) {
  if (teacher.config().num_hidden_layers != student.config().num_hidden_layers) return false;
  std::set<std::string> own;
  for (const model::TensorSpec& spec : model::schema(teacher.config())) own.insert(spec.name);
  for (const model::TensorSpec& spec : model::schema(student.config())) {
    if (!own.contains(spec.name) || tuned.tensors.contains(spec.name)) continue;
    const model::StoredTensor &a = teacher.stored(spec.name), &b = student.stored(spec.name);
    if (a.shape != b.shape) return false;
    std::vector<float> x(static_cast<size_t>(a.columns())), y(x.size());
    for (int64_t row = 0; row < a.rows(); ++row) {
      a.row_f32(row, x.data()), b.row_f32(row, y.data());
      if (std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) != 0) return false;
    }
  }
  return true;
}

Finished finish(const Shared& shared, const std::vector<convert::Tuned>& stages, const std::vector<double>& shares, const Json& recipe) {
  const TuneConfig& config = shared.config;
  const model::ModelFolder& student = *shared.student;
  Finished out{.model = join_path(shared.run, "model"), .artifact = "", .dial = nullptr};
  convert::Tuned tuned = together(stages);
  convert::Contents base = convert::contents_of(student);
  const bool decides = base.config.routing.decides();
  if (decides) set_capacities(base.config, shares);
  const GgmlType source = convert::surgery_type(student), changed = changed_type(config, student);
  const std::string artifact = join_path(shared.run, "artifact");
  remove_all(artifact);
  remove_all(out.model);
  const bool parts = config.stages.back().what != What::everything && shared.teacher && rests_on(shared.teacher->folder(), student, tuned);
  if (parts) tuned = convert::rounded(std::move(tuned), formats::Dtype::F16);  // the model is that of what others read from the artifact
  const bool adapted = tuned.adapter_scale != 0;
  // Not where no artifact is to be had: a model with adapters is neither tuned nor converted again.
  const bool narrow = parts && config.type.empty() && formats::ggml_bytes(source, kBlock) < kBlock;
  const bool apart = adapted && (config.adapters == Keep::separate || (config.adapters == Keep::automatic && narrow));
  const model::ModelConfig without_adapters = base.config;  // an artifact's: how its adapters are kept is said beside it
  if (apart) base.config.adapters = convert::adapters_of(tuned, base.config, student.path());
  const convert::Contents result = convert::contents_of(base, tuned);
  const std::vector<convert::TensorPlan> plan = convert::plan_tuned(base, tuned, changed);
  const GgmlType type = formats::is_quantized(source) || !formats::is_quantized(changed) ? source : changed;
  const convert::Totals totals = convert::totals(plan);
  const double before = convert::tensor_bytes(student);
  if (adapted && !apart && static_cast<double>(totals.after) > 1.1 * before)
    log_info("the model grows from ", human_bytes(before), " to ", human_bytes(static_cast<double>(totals.after)), ", since what tuning changed is stored as ", formats::ggml_type_name(changed),
             ": one text is decoded that much slower; --adapters separate keeps it small, --stages routers leaves it as it is");
  Progress progress("write", "weights", totals.elements);
  convert::WriteOptions write{.threads = static_cast<int>(config.threads), .progress = [&](int64_t done, int64_t) { progress.update(done); }, .calibrate = {}};
  std::optional<routing::DialTable> dial;
  if (decides)
    write.calibrate = [&](const model::ModelFolder& written) {
      progress.finish();
      const Windows text = read_windows(*shared.corpus.validation, config.calibration_tokens, config.sequence_length);
      dial = calibrate(shared, written, text);
      if (shared.teacher) out.dense_loss = teacher_loss(shared, text);
      return *dial;
    };
  convert::write_folder(result, out.model, type, plan, write);
  progress.finish();
  if (dial) out.dial = dial->to_json();
  out.bytes = static_cast<double>(totals.after);
  if (shared.teacher) out.dense_bytes = convert::tensor_bytes(shared.teacher->folder());
  if (parts) {
    out.artifact = artifact;
    convert::write_artifact(artifact, {.config = without_adapters, .dial = dial, .tuned = std::move(tuned), .base = shared.teacher->folder().fingerprint(),
                                       .base_name = shared.teacher->folder().path().substr(shared.teacher->folder().path().find_last_of('/') + 1), .apart = apart, .type = formats::ggml_type_name(changed), .recipe = recipe});
  }
  return out;
}

}  // namespace fathom::tune
