#include "cli/eval_tasks.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "cli/common.h"
#include "cli/engine_flags.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/task_text.h"
#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "core/progress.h"
#include "study/task_progress.h"

namespace fathom::cli {
namespace {

using study::Subject;
using study::Task;
using study::TaskResult;

constexpr std::array kOfTasks = {"task-data", "against", "resume", "items"};
constexpr std::array kOfText = {"data", "twin", "rule", "teacher", "context", "field", "repair-utf8"};

std::string joined(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& w : words) all += (all.empty() ? "" : ", ") + w;
  return all;
}

std::vector<std::string> task_names(const Arguments& args) {
  const std::vector<std::string> known = study::known_tasks();
  std::vector<std::string> names;
  for (const std::string& list : args.texts("tasks"))
    for (const std::string& name : comma_list(list)) {
      if (std::ranges::find(known, name) == known.end()) {
        const std::string near = nearest(name, known);
        args.wrong("tasks", "\"" + printable(name) + "\"", "some of " + joined(known) + ", with commas between them",
                   near.empty() ? "give a task of your own by --task-file" : "did you mean " + near + "?");
      }
      names.push_back(name);
    }
  return names;
}

TaskResult evaluate(const Arguments& args, const Subject& subject, const Task& task, std::optional<double> dial, study::TaskProgress* kept, size_t s, size_t t) {
  std::unique_ptr<Progress> bar;
  if (!args.boolean("quiet")) bar = std::make_unique<Progress>(task.name + " by " + subject.name, "items", std::ssize(task.items), kept ? kept->known(s, t) : 0);
  study::TaskOptions options{.dial = dial};
  if (kept) options.known = [&](size_t item) { return kept->known(s, t, item); };
  options.done = [&](size_t item, const study::ItemResult& result, int64_t done) {
    if (kept) kept->add(s, t, item, result);
    if (bar) bar->update(done);
    stop_if_interrupted();
  };
  TaskResult result = study::evaluate_task(subject, task, options);
  if (bar) bar->finish();
  if (result.cut > 0)
    log_warning(task.name, ": ", result.cut, result.cut == 1 ? " item is" : " items are", " longer than the context of ", subject.name, ", ", subject.engine->config().max_position_embeddings,
                " tokens: their beginnings are left out");
  return result;
}

}  // namespace

std::vector<Task> read_tasks(const Arguments& args, int64_t limit) {
  std::vector<Task> tasks;
  for (const std::string& name : task_names(args)) tasks.push_back(study::read_known_task(name, args.text("task-data")));
  for (const std::string& path : args.texts("task-file")) tasks.push_back(study::read_task(path));
  for (Task& t : tasks) {
    if (std::ranges::count(tasks, t.name, &Task::name) > 1)
      throw UserError({t.path, "", "a second task " + printable(t.name), "tasks of different names", "name each once"});
    if (limit > 0 && limit < std::ssize(t.items)) t.items.resize(static_cast<size_t>(limit));
  }
  return tasks;
}

void task_source_flags(Command& c) {
  c.group("Tasks");
  c.flag(text_flag("tasks", "NAMES", "log-likelihood tasks: " + joined(study::known_tasks()) + ", with commas between them").many());
  c.flag(path_flag("task-file", "FILE", "a task of your own: .jsonl, or six lines an item, or their .zst or .bz2").many());
  c.flag(path_flag("task-data", "FOLDER", "where the files of --tasks are").otherwise("data/eval"));
}

void task_flags(Command& c) {
  task_source_flags(c);
  c.flag(path_flag("against", "MODEL", "a dense model that answers the same items, for the paired difference"));
  c.flag(path_flag("resume", "FILE", "keep results of items in this file, and go on from those that it holds"));
  c.flag(boolean_flag("items", "with --json: the log-likelihoods of every item"));
}

bool wants_tasks(const Arguments& args) {
  const bool tasks = args.given("tasks") || args.given("task-file");
  const std::string given = args.given("tasks") ? "--tasks" : "--task-file";
  if (tasks) {
    for (const char* flag : kOfText)
      if (args.given(flag)) args.wrong(flag, given + " as well", "one of the two", "text and tasks are evaluated in runs of their own");
  } else {
    for (const char* flag : kOfTasks)
      if (args.given(flag)) args.wrong(flag, "neither --tasks nor --task-file", "the task that it is about", flag == std::string_view("against") ? "beside --data a dense model is --twin" : "");
    if (!args.given("data")) args.wrong("data", "nothing", "held-out text, or --tasks or --task-file", "see fathom eval --help");
  }
  return tasks;
}

int run_tasks(const Arguments& args) {
  if (args.boolean("items") && !args.boolean("json")) args.wrong("items", "no --json", "--json as well", "items are shown nowhere else");
  if (args.given("resume")) require_place(args.text("resume"));
  const std::vector<Task> tasks = read_tasks(args, args.integer("limit"));
  const infer::EngineOptions engine = engine_options(args, threads_of(args));
  std::vector<Subject> subjects = {Subject::open(args.positional("MODEL"), engine)};
  const std::optional<double> dial = dial_of(args, *subjects[0].folder);
  if (args.given("against")) subjects.push_back(Subject::open(args.text("against"), engine));

  std::unique_ptr<study::TaskProgress> kept;
  if (args.given("resume")) {
    Json of = Json::array();
    for (size_t s = 0; s < subjects.size(); ++s) of.push_back(study::task_subject_json(subjects[s], s == 0 ? dial : std::nullopt));
    kept = std::make_unique<study::TaskProgress>(args.text("resume"), of, tasks);
  }
  TaskReport report;
  try {
    for (size_t s = 0; s < subjects.size(); ++s) {
      report.names.push_back(subjects[s].name);
      report.dense.push_back(!subjects[s].engine->config().routing.decides());
      report.results.emplace_back();
      for (size_t t = 0; t < tasks.size(); ++t)
        report.results[s].push_back(evaluate(args, subjects[s], tasks[t], s == 0 ? dial : std::nullopt, kept.get(), s, t));
    }
  } catch (const Interrupted& e) {
    throw Interrupted(str(e.what(), kept ? "; results are in " + args.text("resume") + ": the same command goes on" : "; with --resume FILE results would have been kept"));
  }
  if (args.boolean("json")) out_json(task_json(report, args.boolean("items")));
  else out(task_text(report));
  return kExitDone;
}

}  // namespace fathom::cli
