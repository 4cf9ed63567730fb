#include <cmath>
#include <filesystem>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/train/commands.h"
#include "cli/train_table.h"
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
    const double value = a.number(name);
    const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
    overrides.emplace_back(str("budget.", name), whole ? Json(static_cast<int64_t>(value)).dump() : Json(value).dump());
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
  Command c = train_table();
  c.overrides = true;
  c.run = run;
  return c;
}

}  // namespace fathom::cli
