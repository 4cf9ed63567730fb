#include "cli/commands.h"
#include "cli/common.h"
#include "cli/engine_flags.h"
#include "cli/eval_tasks.h"
#include "cli/evaluation_text.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/human.h"
#include "core/progress.h"
#include "study/evaluate.h"

namespace fathom::cli {
namespace {

using study::Evaluation;
using study::Subject;

infer::Rule rule_of(const std::string& name) {
  return name == "topk" ? infer::Rule::topk : name == "random" ? infer::Rule::random : infer::Rule::causal;
}

study::EvaluateProgress progress_of(const Arguments& args, const std::string& label, int64_t total, std::unique_ptr<Progress>& bar) {
  if (bar) bar->finish();
  bar.reset();
  if (!args.boolean("quiet")) bar = std::make_unique<Progress>(label, "tokens", total);
  return [&bar](int64_t done, int64_t, double loss) {
    stop_if_interrupted();
    if (bar) bar->update(done, "loss " + fixed(loss, 3));
  };
}

std::vector<Subject> open_subjects(const Arguments& args) {
  const infer::EngineOptions options = engine_options(args, threads_of(args));
  std::vector<Subject> subjects = {Subject::open(args.positional("MODEL"), options)};
  for (const std::string& path : args.texts("twin")) {
    subjects.push_back(Subject::open(path, options));
    if (subjects.back().tokenizer->identity() != subjects.front().tokenizer->identity())
      throw UserError({path, "tokenizer.json", "another tokenizer than that of " + args.positional("MODEL"), "the same one",
                       "losses per token of different tokenizers do not compare; evaluate it on its own and compare bits per byte"});
    study::warn_of_other_ends(subjects.front(), subjects.back());
    if (subjects.back().engine->config().routing.decides() && args.given("dial"))
      throw UserError({path, "fathom.routed_blocks", "a twin with routed blocks", "a dense twin when --dial is given", ""});
  }
  return subjects;
}

int run(const Arguments& args) {
  apply_quiet(args);
  apply_colour(args);
  catch_interrupts();
  if (wants_tasks(args)) return run_tasks(args);
  const std::vector<Subject> subjects = open_subjects(args);
  const infer::Rule rule = rule_of(args.text("rule"));
  if (rule == infer::Rule::topk && subjects[0].engine->config().routing.random())
    args.wrong("rule", "topk", "causal or random", "the model's blocks pick tokens at random, so nobody trained the scores that top-k would read");
  const std::optional<double> dial = dial_of(args, *subjects[0].folder);

  const study::HeldOut text = study::load_held_out(args.texts("data"), *subjects[0].tokenizer, subjects[0].ends(), held_out_options(args, *subjects[0].folder, context_of(args, subjects), args.integer("limit")));

  EvaluationReport report{.text = text, .names = {}, .results = {}, .teacher = {}};
  std::unique_ptr<Progress> bar;
  for (size_t i = 0; i < subjects.size(); ++i) {
    report.names.push_back(subjects[i].name);
    const auto progress = progress_of(args, "evaluating " + subjects[i].name, text.predicted, bar);
    report.results.push_back(study::evaluate(subjects[i], text, i == 0 ? rule : infer::Rule::causal, i == 0 ? dial : std::nullopt, progress));
  }
  if (rule == infer::Rule::causal && study::has_teacher(subjects[0]) && args.boolean("teacher")) {
    const auto progress = progress_of(args, "teacher's view", text.predicted, bar);
    report.teacher = study::compare_with_teacher(subjects[0], text, report.results[0], dial, progress);
  }
  if (bar) bar->finish();
  if (args.boolean("json")) out_json(evaluation_json(report));
  else out(evaluation_text(report));
  return kExitDone;
}

}  // namespace

Command eval_command() {
  Command c{.name = "eval", .summary = "Measure a model's quality on text, under the causal rule, beside its dense twins"};
  c.details = "Loss, perplexity and bits per byte with 95 % intervals over documents; per routed block the share of tokens that ran and how the causal "
              "rule agrees with top-k. A model of random selection is measured as the control that it is. Text is cut into windows of --context tokens; of a "
              "dataset it is the whole validation split, a part of which has also set the thresholds of the dial (one number per routed block). Top-k looks into the future: its loss is the teacher's view, "
              "no measure of quality. With --tasks or --task-file: how often a model finds the right answer, by the log-likelihoods of the choices, items and prompts as "
              "lm-evaluation-harness has them.";
  c.positional("MODEL", "the model folder, the folder of a run, or a .gguf file");
  c.flag(path_flag("data", "PATH", "held-out text: a file, a folder, or a dataset folder (its validation split)").many());
  c.flag(path_flag("twin", "MODEL", "a dense model to set beside it").many());
  c.flag(text_flag("rule", "RULE", "who runs a routed block: the causal rule, the teacher's top-k, or a random control").one_of({"causal", "topk", "random"}).otherwise("causal"));
  c.flag(dial_flag());
  c.flag(boolean_flag("teacher", "also run the teacher's view, for agreement and its loss").otherwise("true"));
  c.group("Text");
  c.flag(integer_flag("context", "N", "tokens in a window").range(2, 1 << 24).noted("that of the training run, else the model's, at most 1024"));
  c.flag(count_flag("limit", "N", "tokens to score, in windows spread evenly over the text, or the first items of each task; 0 is all").range(0, 1e15).otherwise("0"));
  c.flag(field_flag()).flag(repair_flag());
  task_flags(c);
  engine_flags(c);
  c.group("Output");
  c.flag(json_flag()).flag(threads_flag()).flag(quiet_flag()).flag(colour_flag());
  c.examples = {"fathom eval runs/mod/model --data data/books --twin runs/dense/model", "fathom eval model --data book.txt --dial 0.6 --json",
                "fathom eval model --tasks lambada,arc_easy --task-data data/eval --against dense --resume results.jsonl"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
