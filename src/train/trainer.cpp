#include "train/trainer.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

#include <ATen/Parallel.h>

#include "core/file.h"
#include "core/log.h"
#include "core/human.h"
#include "core/thread_pool.h"
#include "data/shards.h"
#include "nn/matmul.h"
#include "train/corpus.h"
#include "train/finish.h"
#include "train/run.h"

namespace fathom::train {
namespace {

std::string config_path(const std::string& run) { return join_path(run, "config.json"); }

// A start that fails before its first step is done leaves the folder as it found it, so that the corrected command can
// be given again as it is. Not so one that was interrupted: it is gone on with. Text that was prepared stays, for that may
// have taken hours: the corrected command takes it as its dataset.
class Start {
 public:
  explicit Start(const std::string& run) : run_(run), made_(!exists(run)) {
    if (!made_) before_ = names();
    make_folders(run);
  }
  void undo() const {
    const std::string data = join_path(run_, "data");
    const bool prepared = !before_.contains("data") && data::is_dataset(data);
    for (const std::string& name : names())
      if (!before_.contains(name) && !(prepared && name == "data")) remove_all(join_path(run_, name));
    if (prepared) log_warning("the text is prepared and stays: train on it by --data.dataset ", data, " in place of the text");
    else if (made_) remove_all(run_);
  }

 private:
  std::set<std::string> names() const {
    std::set<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(run_)) out.insert(entry.path().filename().string());
    return out;
  }
  std::string run_;
  bool made_;
  std::set<std::string> before_;
};

Json start(const TrainConfig& config, const RunOptions& options) {
  const std::string& run = options.run;
  if (exists(run) && !is_folder(run)) throw UserError({run, "", "a file", "a folder, or none yet", "choose another name"});
  if (exists(config_path(run)))
    throw UserError({run, "", "the folder of another run", "a new folder", "go on with it by --resume, or choose another name"});
  std::vector<std::string> written = {"checkpoints", "metrics.jsonl", "model", "summary.json"};
  if (config.data.dataset.empty()) written.insert(written.end(), {"data", "tokenizer.json"});
  for (const std::string& name : written) {
    const std::string path = join_path(run, name);
    if (exists(path))
      throw UserError({path, "", "there already, though not a run's", "a folder without it: the run writes its own",
                       data::is_dataset(path) ? str("train on it by --data.dataset ", path, ", or choose another folder") : "choose another folder"});
  }
  const Start begun(run);
  const FileLock lock = lock_run(run);
  std::optional<Run> going;
  try {
    atomic_write(config_path(run), config.to_json().dump(2) + "\n");
    going.emplace(config, options);
    return going->train();
  } catch (const Interrupted&) {
    throw;
  } catch (...) {
    const bool stepped = going && going->step_count() > 0;
    going.reset();
    if (!stepped) begun.undo();
    throw;
  }
}

}  // namespace

TrainConfig config_of_run(const std::string& run, const std::vector<std::pair<std::string, std::string>>& overrides) {
  if (!exists(config_path(run)))
    throw UserError({run, "", exists(run) ? "a folder without config.json" : "no such folder", "the folder of a run",
                     "start one with: fathom train CONFIG --out " + run});
  return load_config(config_path(run), overrides);
}

// What describe_summary reads and --json promises must be there: the file may be another program's, or damaged.
Json read_summary(const std::string& path) {
  Json summary = read_json(path);
  const Fields f(summary, path);
  f.string("model");
  for (const char* key : {"steps", "tokens", "train_flops", "train_seconds"}) f.number(key, 0, 1e300);
  const Fields figures = f.object("figures");
  figures.number("parameters", 0, 1e300);
  std::vector<const char*> losses = {"loss", "bits_per_byte"};  // null where they were not finite
  if (figures.has("share")) losses.insert(losses.end(), {"loss_topk", "block_fraction", "total_fraction"});
  if (figures.has("targets")) figures.number("targets", 0, 1e300);
  for (const char* key : losses) {
    if (!figures.value().contains(key)) figures.missing(key, "a number or null");
    if (figures.has(key)) figures.number(key, -1e300, 1e300);
  }
  return summary;
}

std::string describe_summary(const Json& s) {
  const Json& f = s.at("figures");
  const auto number = [](const Json& j) { return j.is_number() ? j.get<double>() : std::nan(""); };
  std::string out = str("model       ", s.at("model").get<std::string>(), "  (", human_count(number(f.at("parameters"))), " parameters)\n");
  out += str("trained     ", human_count(number(s.at("tokens"))), " tokens, ", human_count(number(s.at("train_flops"))), "FLOP",
             s.contains("planned_flops") ? str(" (", fixed(100 * number(s.at("train_flops")) / number(s.at("planned_flops")), 1), " % of the plan)") : "", ", ",
             human_duration(number(s.at("train_seconds"))), "\n");
  out += str("held out    loss ", fixed(number(f.at("loss")), 4), " nats per token, ", fixed(number(f.at("bits_per_byte")), 4), " bits per byte");
  if (f.contains("share"))
    out += str(" under the causal rule\n            loss ", fixed(number(f.at("loss_topk")), 4), " under top-k (the teacher's view)\n",
               "blocks      ", fixed(100 * number(f.at("block_fraction")), 1), " % of the dense blocks' FLOPs, ",
               fixed(100 * number(f.at("total_fraction")), 1), " % of the whole model's");
  if (f.contains("targets"))
    out += str("\n            over ", human_count(number(f.at("targets"))), " tokens of the validation split",
               f.contains("share") ? ", others than those that set the thresholds" : "");
  return out + "\n";
}

Json train(const TrainConfig& config, const RunOptions& options) {
  const std::string& run = options.run;
  if (!options.resume) return start(config, options);
  require_same(config_of_run(run, {}), config, run);
  const std::string summary = join_path(run, "summary.json");
  if (exists(summary)) {
    log_info(run, " is finished");
    return read_summary(summary);
  }
  const FileLock lock = lock_run(run);
  return Run(config, options).train();
}

Json export_checkpoint(const std::string& checkpoint, const std::string& model_folder, const std::function<bool()>& stop) {
  if (is_folder(checkpoint) && !exists(join_path(checkpoint, "checkpoint.json"))) {
    const std::vector<Found> found = find_checkpoints(checkpoint);
    throw UserError({checkpoint, "", "a folder without checkpoint.json", "a folder RUN/checkpoints/step-…",
                     found.empty() ? "" : "the newest of this run is " + found.back().path});
  }
  if (exists(model_folder)) throw UserError({model_folder, "", "an existing path", "a new folder", "choose another name or remove it"});
  const Checkpoint c = read_checkpoint(checkpoint);
  TrainConfig config = TrainConfig::from_json(c.identity.config, join_path(checkpoint, "checkpoint.json"));
  // RUN/checkpoints/step-…, however it was written: with a slash at its end, or as "." from inside it.
  std::filesystem::path path = std::filesystem::absolute(checkpoint).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  const std::string run = path.parent_path().parent_path().string();
  at::set_num_threads(config.threads > 0 ? static_cast<int>(config.threads) : available_threads());
  nn::use_f32_route(nn::f32_route_from(c.identity.f32_route));
  const Corpus corpus = open_prepared(config, run);
  require_same_data(c.identity, corpus, checkpoint, "its checkpoint.json");
  config.model = effective_model(config, corpus.tokenizer, corpus.train->manifest(), checkpoint);
  nn::Transformer network(config.model);
  load_weights(checkpoint, network);
  return finish_model(network, corpus, config, nn::compute_from(c.identity.precision), model_folder, [&] {
    if (stop && stop()) throw Interrupted("stopped before the model was written");
  });
}

}  // namespace fathom::train
