#include "tune/helpers.h"

#include "convert/artifact.h"
#include "convert/calibrate.h"
#include "convert/surgery.h"
#include "core/file.h"
#include "core/log.h"
#include "infer/score.h"
#include "model/cost.h"
#include "train/corpus.h"
#include "train/evaluate.h"

namespace fathom::tune {
namespace {

std::vector<std::vector<int32_t>> fit_texts() {
  const auto data = data::Dataset::open(train::corpus(), "train");
  std::vector<std::vector<int32_t>> texts;
  for (const int64_t begin : train::evaluation_windows(*data, 4096, 32, 0, 1)) texts.push_back(train::read_batch(*data, {&begin, 1}, 32).input);
  return texts;
}

void convert_to(const std::string& from, const std::string& to, const convert::SurgeryOptions& options, bool fit = true) {
  const std::vector<std::vector<int32_t>> texts = fit_texts();
  const auto source = model::ModelFolder::open(from);
  const auto weights = infer::Weights::load(*source, 1);
  const std::vector<std::span<const int32_t>> windows(texts.begin(), texts.end());
  convert::Surgery surgery = convert::plan_surgery(source->config(), options, from);
  if (fit) convert::fit_surgery(surgery, surgery.block_of.size() == static_cast<size_t>(source->config().num_hidden_layers) ? weights : convert::kept_blocks(*source, surgery, 1), windows, options, {.loss_tokens = 512, .threads = 1});
  const convert::Contents contents = convert::contents_of(*source, surgery);
  const auto type = convert::surgery_type(*source);
  convert::WriteOptions write{.threads = 1};
  if (fit && surgery.config.routing.decides())
    write.calibrate = [&](const model::ModelFolder& written) {
      const model::ModelConfig& c = written.config();
      routing::DialTable grid{.default_dial = model::expected_block_fraction(c, options.context, c.routing.capacities())};
      for (const double dial : {options.lowest, grid.default_dial, options.highest, 1.0}) grid.points.push_back({.dial = dial});
      return convert::calibrate_dial(infer::Weights::load(written, 1), grid, {windows, "text", options.context}, {.threads = 1, .shift = true});
    };
  convert::write_folder(contents, to, type, convert::plan_tensors(contents, type), write);
}

}  // namespace

const Models& models() {
  static const TemporaryFolder folder;
  static const Models made = [] {
    set_log_level(LogLevel::quiet);
    Models m;
    const std::string run = join_path(folder.path(), "dense");
    train::train(train::tiny({{"model.fathom", "null"}, {"budget.steps", "150"}, {"interval.eval_steps", "0"}, {"interval.checkpoint_steps", "0"}}), {.run = run});
    m.dense = join_path(run, "model");
    m.routed = join_path(folder.path(), "routed");
    convert::SurgeryOptions options{.blocks = {1, 2}, .light_rank = 4, .target = 0.8, .lowest = 0.7, .highest = 0.9, .context = 32};
    convert_to(m.dense, m.routed, options);
    m.statics = join_path(folder.path(), "static");
    convert_to(m.dense, m.statics, {.light_rank = 4, .statics = {1}, .context = 32});
    return m;
  }();
  return made;
}

void convert_dense(const std::string& to, const convert::SurgeryOptions& options, bool fit) { convert_to(models().dense, to, options, fit); }

std::vector<float> full_losses(const std::string& path) {
  const auto folder = model::ModelFolder::open(path);
  infer::Engine engine(infer::Weights::load(*folder, 1), {.threads = 1});
  const auto data = data::Dataset::open(train::corpus(), "validation");
  std::vector<float> out;
  for (const int64_t begin : train::evaluation_windows(*data, 512, 32, 0, 1)) {
    const auto nll = infer::score_document(engine, train::read_batch(*data, {&begin, 1}, 32).input, {.policy = infer::RoutingPolicy::full(folder->config())}).nll;
    out.insert(out.end(), nll.begin(), nll.end());
  }
  return out;
}

void lay_artifact(const std::string& run, const std::string& out) {
  const convert::Artifact artifact = convert::read_artifact(join_path(run, "artifact"));
  const auto source = model::ModelFolder::open(models().dense);
  convert::Contents base;
  const convert::Contents contents = convert::contents_of(*source, artifact, base);
  convert::write_folder(contents, out, convert::surgery_type(*source), convert::plan_tuned(base, artifact.tuned, convert::artifact_type(artifact, "artifact")), {.threads = 1});
}

TuneConfig tiny(const std::string& model, const std::vector<What>& stages) {
  TuneConfig c;
  c.model = model;
  c.teacher = models().dense;
  c.teacher_top = 16;
  c.data.dataset = train::corpus();
  c.sequence_length = 32;
  c.batch_size = 4;
  c.lowest = 0.7, c.highest = 0.9;
  for (const What what : stages) c.stages.push_back({.what = what, .tokens = 6 * 4 * 32});
  c.lora.rank = 2;
  c.lora.alpha = 4;
  c.interval.log_steps = 1;
  c.interval.eval_tokens = 512;
  c.interval.checkpoint_steps = 3;
  c.interval.checkpoint_seconds = 0;
  c.calibration_tokens = 512;
  c.precision = train::Precision::f32;
  c.f32_route = train::Route::onednn;
  c.seed = 1;
  c.threads = 1;
  return c;
}

std::string bytes_of(const std::string& path) { return read_file(path, 1 << 30); }

std::vector<Json> stage_metrics(const std::string& stage) { return train::metrics_of(stage); }

}  // namespace fathom::tune
