#include <filesystem>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/train/commands.h"
#include "core/log.h"
#include "train/overrides.h"
#include "train/trainer.h"

namespace fathom::cli {
namespace {

int run(const Arguments& a) {
  auto overrides = a.overrides();
  for (const std::string& text : a.texts("set")) overrides.push_back(train::split_override(text));
  int budgets = 0;
  for (const char* name : {"steps", "tokens", "flops"}) {
    if (!a.given(name)) continue;
    if (++budgets > 1) a.wrong(name, "a second budget", "one of --steps, --tokens and --flops");
    overrides.emplace_back(str("budget.", name), Json(a.number(name)).dump());
  }
  const std::string& path = a.positional("CONFIG");
  train::RunOptions options;
  options.resume = a.given("resume");
  options.run = options.resume ? a.text("resume") : a.text("out");
  if (options.run.empty() && !path.empty()) options.run = "runs/" + std::filesystem::path(path).stem().string();
  options.stop = interrupted;
  if (options.resume && a.given("out")) a.wrong("out", "\"" + a.text("out") + "\" beside --resume", "one of them");
  if (path.empty() && !options.resume) throw UsageError({"fathom-train train", "CONFIG", "no configuration file", "CONFIG --out RUN, or --resume RUN", ""});

  const train::TrainConfig config = path.empty() ? train::config_of_run(options.run, overrides) : train::load_config(path, overrides);
  if (a.boolean("quiet")) set_log_level(LogLevel::warning);
  if (a.boolean("print-config")) {
    out_json(config.to_json());
    return kExitDone;
  }
  catch_interrupts();
  const Json summary = train::train(config, options);
  if (a.boolean("json")) {
    out_json(summary);
  } else {
    out(train::describe_summary(summary));
  }
  return kExitDone;
}

}  // namespace

Command train_command() {
  Command c;
  c.name = "train";
  c.summary = "Train a model from a configuration file, or go on with a run";
  c.details =
      "The configuration is JSON with comments (configs/ has examples, docs/training.md every field). Every field can be set on "
      "the command line by its path: --optimizer.lr 3e-3, or --set optimizer.lr=3e-3.\n\n"
      "The run folder gets checkpoints, metrics.jsonl, TensorBoard event files, and at the end model/ and summary.json. Ctrl-C "
      "finishes the step, saves and ends with code 130; --resume goes on and computes the same bits as an uninterrupted run.";
  Positional config{"CONFIG", "Configuration file; with --resume it may be left out", false, false};
  c.positionals.push_back(config);
  c.flag(path_flag("out", "RUN", "Folder of the new run").noted("runs/ and the name of CONFIG"));
  c.flag(path_flag("resume", "RUN", "Go on with this run from its last checkpoint"));
  c.flag(text_flag("set", "FIELD=VALUE", "Set a field of the configuration").many());
  c.group("Budget");
  c.flag(count_flag("steps", "N", "Train this many steps"));
  c.flag(count_flag("tokens", "N", "Train on this many tokens"));
  c.flag(number_flag("flops", "X", "Train with this many FLOPs, as the cost model counts them"));
  c.group("Output");
  c.flag(boolean_flag("json", "Print the summary as JSON"));
  c.flag(boolean_flag("quiet", "Print warnings and the summary only"));
  c.flag(boolean_flag("print-config", "Print the whole configuration and stop"));
  c.examples = {"fathom train configs/small.json --out runs/small", "fathom train configs/small.json --out runs/b --flops 2e15 --optimizer.lr 2e-3",
                "fathom train --resume runs/small"};
  c.overrides = true;
  c.run = run;
  return c;
}

}  // namespace fathom::cli
