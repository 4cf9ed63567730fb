#include <algorithm>
#include <cmath>
#include <filesystem>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/train/commands.h"
#include "cli/train_table.h"
#include "core/log.h"
#include "data/shards.h"
#include "tune/tuner.h"

namespace fathom::cli {
namespace {

// "0.7" or "0.65-0.85".
std::pair<double, double> range_of(const Arguments& a) {
  const std::string& text = a.text("target");
  const size_t dash = text.find('-');
  const auto low = parse_number(text.substr(0, dash)), high = dash == std::string::npos ? low : parse_number(text.substr(dash + 1));
  if (!low || !high || !(*low > 0) || *low > *high || *high > 1) a.wrong("target", "\"" + printable(text) + "\"", "a block fraction above 0 and at most 1, or two as 0.65-0.85");
  return {*low, *high};
}

std::string absolute(const std::string& path) { return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string(); }

// The value of a flag whose words, those of its table, are checked as it is read.
template <class E>
E named(const Arguments& a, const std::string& flag, const std::vector<std::pair<const char*, E>>& table) {
  return std::ranges::find(table, a.text(flag), [](const auto& entry) { return std::string(entry.first); })->second;
}

tune::TuneConfig config_of(const Arguments& a) {
  tune::TuneConfig c;
  c.model = absolute(a.positional("MODEL"));
  c.teacher = absolute(a.text("teacher"));
  c.other_teacher = a.boolean("other-teacher");
  c.teacher_cache = absolute(a.text("teacher-cache"));
  c.teacher_top = a.integer("teacher-top");
  const std::vector<std::string> texts = a.texts("data");
  if (texts.empty()) a.wrong("data", "no text", "text to tune on", "a file or folder, or self: text that the teacher writes");
  if (texts.size() == 1 && data::is_dataset(texts[0])) {
    c.data.dataset = absolute(texts[0]);
  } else {
    for (const std::string& text : texts) c.data.text.push_back(text == "self" ? text : absolute(text));
  }
  for (const std::string& text : a.texts("other")) c.other.push_back(text == "self" ? text : absolute(text));
  for (const char* flag : {"other-share", "other-weight"})
    if (c.other.empty() && a.given(flag)) a.wrong(flag, "no --other", "the text that it is about");
  c.other_share = a.number("other-share"), c.other_weight = a.number("other-weight");
  for (const auto& [flag, all] : {std::pair("data", &c.data.text), {"other", &c.other}})
    if (c.teacher.empty() && std::ranges::count(*all, "self") > 0) a.wrong(flag, "self without --teacher", "the model that is to write the text", "--teacher SRC");
  c.data.field = a.text("field");
  c.data.repair_utf8 = a.boolean("repair-utf8");
  c.data.validation_share = a.number("validation-share");
  c.self_tokens = a.maybe_integer("self-tokens").value_or(0);
  c.chat_share = a.number("chat-share");
  c.sequence_length = a.integer("context");
  if (!a.given("context")) c.sequence_length = std::min(c.sequence_length, model::ModelFolder::open(c.model)->config().max_position_embeddings);
  c.batch_size = a.integer("batch-size");
  c.accumulation = a.integer("accumulation");
  std::tie(c.lowest, c.highest) = range_of(a);
  const std::vector<std::string> stages = comma_list(a.text("stages"));
  const double tokens = static_cast<double>(a.integer("tokens")), first = stages.size() > 1 ? a.number("first-share") : 1;
  for (size_t i = 0; i < stages.size(); ++i) {
    tune::StageConfig stage;
    const auto what = std::ranges::find_if(tune::kWhatNames, [&](const auto& w) { return stages[i] == w.first; });
    if (what == tune::kWhatNames.end()) a.wrong("stages", "\"" + printable(stages[i]) + "\"", "routers, adapters or everything");
    stage.what = what->second;
    stage.tokens = std::max<int64_t>(1, std::llround(tokens * (i == 0 ? first : (1 - first) / static_cast<double>(stages.size() - 1))));
    stage.lr = a.number("lr");
    stage.router_lr = a.number("router-lr");
    stage.bias_lr = a.number("bias-lr");
    stage.adapter_lr = a.number("adapter-lr");
    stage.noise = a.number("noise");
    c.stages.push_back(stage);
  }
  for (size_t i = 0; i + 1 < c.stages.size(); ++i)
    if (c.stages[i].what != tune::What::routers) a.wrong("stages", "\"" + printable(a.text("stages")) + "\"", "routers before the last stage, as in routers,adapters", "adapters belong to one stage, and after all weights have changed nothing is left for another");
  c.lora = {.rank = a.integer("lora-rank"), .alpha = a.number("lora-alpha"), .targets = comma_list(a.text("lora-targets"))};
  c.kl_weight = a.number("kl");
  c.loss_weight = a.number("lm");
  if (c.teacher.empty() && !a.given("lm")) c.loss_weight = 1;
  c.budget_weight = a.number("budget");
  c.unit_budget_weight = a.number("unit-budget");
  c.picks = named(a, "picks", tune::kPicksNames);
  for (const char* flag : {"budget", "unit-budget"})
    if (c.picks == tune::Picks::topk && a.given(flag) && a.number(flag) > 0) a.wrong(flag, a.text("picks"), "--picks threshold", "as many tokens as the shares say run in full: there is nothing to keep to");
  c.tau = a.number("tau");
  c.interval.eval_steps = a.integer("eval-steps");
  c.interval.eval_tokens = a.integer("eval-tokens");
  c.interval.checkpoint_steps = a.integer("checkpoint-steps");
  c.interval.checkpoint_seconds = a.number("checkpoint-seconds");
  c.adapters = named(a, "adapters", tune::kKeepNames);
  c.type = a.text("type");
  c.precision = named(a, "precision", train::kPrecisionNames);
  c.f32_route = named(a, "f32-route", train::kRouteNames);
  c.seed = static_cast<uint64_t>(a.integer("seed"));
  c.threads = a.integer("threads");
  return c;
}

int run(const Arguments& a) {
  tune::RunOptions options;
  const std::string& model = a.positional("MODEL");
  options.resume = a.given("resume");
  options.run = options.resume ? a.text("resume") : a.text("out");
  if (options.resume && (!model.empty() || a.given("out"))) a.wrong("resume", "a model or --out beside it", "the run alone, which knows them");
  if (!options.resume && model.empty()) throw UsageError({"fathom-train tune", "MODEL", "no model", "the folder of a converted model, or --resume RUN", ""});
  if (options.run.empty()) options.run = "runs/" + std::filesystem::path(absolute(model) + "/.").lexically_normal().parent_path().filename().string();
  options.stop = interrupted;
  const tune::TuneConfig config = options.resume ? tune::config_of_run(options.run) : config_of(a);
  if (a.boolean("quiet")) set_log_level(LogLevel::warning);
  catch_interrupts();
  const Json summary = tune::tune(config, options);
  if (a.boolean("json")) out_json(summary);
  else out(tune::describe_summary(summary));
  return kExitDone;
}

}  // namespace

Command tune_command() {
  Command c = tune_table();
  c.run = run;
  return c;
}

}  // namespace fathom::cli
