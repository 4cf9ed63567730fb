#include "study/runs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "core/file.h"
#include "core/limits.h"
#include "data/shards.h"
#include "model/folder.h"

namespace fathom::study {
namespace {

constexpr int64_t kDefaultContext = 1024;
constexpr double kSmoothing = 0.9;  // of the training loss: an exponential mean over about ten lines

double number(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_number() ? json[key].get<double>() : NAN;
}

void add(Curve& curve, const Json& line, double loss) {
  curve.flops.push_back(number(line, "flops"));
  curve.seconds.push_back(number(line, "seconds"));
  curve.loss.push_back(loss);
}

void read_metrics(const std::string& path, RunRecord& run) {
  const std::string text = read_file(path, limits::kMetricsBytes);
  double mean = NAN;
  size_t begin = 0;
  for (int64_t line_number = 1; begin < text.size(); ++line_number) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // a line that is being written
    const Json line = parse_json(std::string_view(text).substr(begin, end - begin), str(path, ":", line_number));
    begin = end + 1;
    if (!line.is_object() || !line.contains("type") || !line["type"].is_string()) continue;
    const std::string type = line["type"];
    const double loss = number(line, "loss");
    if (type == "train" && std::isfinite(loss)) {
      mean = std::isfinite(mean) ? kSmoothing * mean + (1 - kSmoothing) * loss : loss;
      add(run.train, line, mean);
    } else if ((type == "eval" || (type == "final" && run.held_out.loss.empty())) && std::isfinite(loss)) {
      add(run.held_out, line, loss);  // the final one is of more windows: as a last point it would look like a jump
    } else if (type == "warning" && line.contains("text") && line["text"].is_string()) {
      run.warnings.push_back({line["text"], number(line, "step")});
    }
  }
}

}  // namespace

void require_finished(const std::string& path) {
  if (model::has_weights(path)) return;
  const bool run = exists(join_path(path, "checkpoints")) || exists(join_path(path, "metrics.jsonl"));
  char magic[4] = {};
  if (!is_folder(path)) std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  const bool gguf = std::string_view(magic, sizeof magic) == "GGUF";
  throw UserError({path, "", is_folder(path) ? "a folder without a model" : gguf ? "a GGUF file of another name" : exists(path) ? "a file" : "no such file or folder",
                   "a model folder, a .gguf file, or the folder of a run that has finished",
                   run ? "finish it with: fathom train --resume " + path : gguf ? "give it a name that ends in .gguf" : ""});
}

RunRecord read_run(const std::string& path) {
  RunRecord run;
  run.path = path;
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  run.name = trimmed.substr(trimmed.rfind('/') + 1);
  run.model = join_path(path, "model");
  if (!is_folder(run.model)) {
    require_finished(path);
    run.model = path;
    return run;
  }
  if (const std::string file = join_path(path, "summary.json"); exists(file)) {
    const Json summary = read_json(file);
    if (!summary.is_object()) throw UserError({file, "", describe(summary), "an object { … }", ""});
    run.steps = number(summary, "steps");
    run.tokens = number(summary, "tokens");
    run.flops = number(summary, "train_flops");
    run.seconds = number(summary, "train_seconds");
    if (summary.contains("precision") && summary["precision"].is_string()) run.precision = summary["precision"];
  }
  if (const std::string own = join_path(path, "data"); is_folder(own)) {
    run.dataset = own;
  } else if (const std::string file = join_path(path, "config.json"); exists(file)) {
    const Json config = read_json(file, {.comments = true});
    if (config.is_object() && config.contains("data") && config["data"].is_object() && config["data"].contains("dataset") && config["data"]["dataset"].is_string())
      run.dataset = config["data"]["dataset"];
  }
  if (const std::string file = join_path(path, "metrics.jsonl"); exists(file)) read_metrics(file, run);
  return run;
}

bool trained_on(const RunRecord& run, const std::string& dataset) {
  if (run.dataset.empty() || !data::is_dataset(run.dataset) || !data::is_dataset(dataset)) return false;
  const auto manifest = [](const std::string& folder) { return read_file(join_path(folder, "manifest.json"), limits::kManifestBytes); };
  return run.dataset == dataset || manifest(run.dataset) == manifest(dataset);
}

std::optional<int64_t> trained_context(const std::string& model_folder) {
  // RUN/model only: what lies beside a model folder of another name is not about it.
  const std::filesystem::path model = std::filesystem::absolute(model_folder).lexically_normal();
  const std::filesystem::path folder = model.filename().empty() ? model.parent_path() : model;
  const std::string run = folder.parent_path().string();
  if (folder.filename() != "model" || !exists(join_path(run, "metrics.jsonl")) || !exists(join_path(run, "config.json"))) return std::nullopt;
  const Json config = read_json(join_path(run, "config.json"), {.comments = true});
  if (!config.is_object() || !config.contains("sequence_length") || !config["sequence_length"].is_number_integer()) return std::nullopt;
  const int64_t length = config["sequence_length"];
  return length >= 2 ? std::optional(length) : std::nullopt;
}

int64_t default_context(const std::vector<std::string>& model_folders, const std::vector<int64_t>& max_positions) {
  FATHOM_ASSERT(model_folders.size() == max_positions.size() && !model_folders.empty(), "one length per model");
  int64_t context = kDefaultContext;
  for (size_t i = 0; i < model_folders.size(); ++i) {
    context = std::min(context, max_positions[i]);
    if (const auto trained = trained_context(model_folders[i])) context = std::min(context, *trained);
  }
  return context;
}

}  // namespace fathom::study
