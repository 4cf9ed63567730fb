#include <algorithm>
#include <cmath>

#include "cli/bar.h"
#include "cli/calibration.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/dial_text.h"
#include "cli/engine_flags.h"
#include "cli/eval_tasks.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/human.h"
#include "core/limits.h"
#include "core/work_folder.h"
#include "infer/weights.h"
#include "study/curve_page.h"
#include "study/dial_curve.h"

namespace fathom::cli {
namespace {

using model::CurvePoint;
using study::Subject;

constexpr double kSameDial = 1e-9;

// --dials as they are wanted, falling, with dial 1 first; empty where they are not given.
std::vector<double> dials_of(const Arguments& args) {
  std::vector<double> dials;
  const std::string text = args.text("dials");
  const auto wrong = [&](const std::string& found) { args.wrong("dials", "\"" + printable(found) + "\"", "falling block fractions above 0 and at most 1, with commas between: 1,0.85,0.75"); };
  for (const std::string& word : args.given("dials") ? comma_list(text) : std::vector<std::string>()) {
    const auto dial = parse_number(word);
    if (!dial || !(*dial > 0 && *dial <= 1)) wrong(word);
    if (!dials.empty() && *dial >= dials.back()) wrong(text);
    dials.push_back(*dial);
  }
  if (!dials.empty() && dials[0] != 1) dials.insert(dials.begin(), 1);
  if (static_cast<int64_t>(dials.size()) > limits::kDialPoints) args.wrong("dials", str(dials.size(), " dials"), str("at most ", limits::kDialPoints));
  return dials;
}

void add(std::vector<double>& dials, double dial) {
  if (std::ranges::any_of(dials, [&](double d) { return std::abs(d - dial) < kSameDial; })) return;
  dials.insert(std::ranges::upper_bound(dials, dial, std::greater<>()), dial);
}

std::optional<study::LossBound> bound_of(const Arguments& args) {
  if (!args.given("max-loss-increase")) return {};
  std::string text = args.text("max-loss-increase");
  const bool relative = text.ends_with('%');
  if (relative) text.pop_back();
  const auto value = parse_number(text);
  if (!value || *value < 0) args.wrong("max-loss-increase", "\"" + printable(args.text("max-loss-increase")) + "\"", "a share of the loss, 1%, or nats per token, 0.05");
  if (!relative && *value >= 1) args.wrong("max-loss-increase", "\"" + text + "\"", "a share of the loss, " + text + "%, or nats per token below 1, as in 0.05");
  return study::LossBound{.value = relative ? *value / 100 : *value, .relative = relative};
}

std::string bound_words(const Arguments& args) { return args.text("max-loss-increase") + (args.text("max-loss-increase").ends_with('%') ? "" : " nats"); }

void check_words(const Arguments& args) {
  const bool only_default = args.given("set-default") && !args.given("data");
  if (!args.given("data") && !only_default) args.wrong("data", "nothing", "text to measure on", "a file, a folder or a dataset folder; or --set-default alone");
  for (const char* flag : {"dials", "calibrate", "max-loss-increase", "out", "tasks", "task-file", "rival", "against"})
    if (only_default && args.given(flag)) args.wrong(flag, "no --data", "text to measure on");
  if (args.given("set-default") && args.given("max-loss-increase")) args.wrong("set-default", "--max-loss-increase as well", "one of the two");
  if (args.given("calibrate-on") && !args.boolean("calibrate")) args.wrong("calibrate-on", "no --calibrate", "--calibrate as well");
  for (const char* flag : {"task-data", "task-limit"})
    if (args.given(flag) && !args.given("tasks") && !args.given("task-file")) args.wrong(flag, "neither --tasks nor --task-file", "the task that it is about");
  if (!args.text("out").empty()) require_place(args.text("out"));
}

Subject open_model(const Arguments& args, const infer::EngineOptions& options) {
  const std::string& path = args.positional("MODEL");
  Subject s = Subject::open(path, options, !args.boolean("calibrate"));
  const routing::RoutingConfig& routing = s.engine->config().routing;
  if (!routing.decides()) throw UserError({path, "fathom.routed_blocks", "a model whose tokens choose nothing", "one with routed blocks", "fathom convert makes one of a dense model"});
  if (routing.random()) throw UserError({path, "fathom.selection", "random, a control", "a model with thresholds", "fathom eval measures it at its one dial"});
  return s;
}

Subject open_beside(const Subject& model, const std::string& path, const infer::EngineOptions& options, bool dense) {
  Subject s = Subject::open(path, options);
  if (s.tokenizer->identity() != model.tokenizer->identity())
    throw UserError({path, "tokenizer.json", "another tokenizer than that of " + model.folder->path(), "the same one", "losses per token of different tokenizers do not compare"});
  if (dense && !s.engine->config().routing.dense()) throw UserError({path, "fathom.routed_blocks", "routed or static blocks", "a dense model", "--rival takes it"});
  study::warn_of_other_ends(model, s);
  return s;
}

// The grid to calibrate: the dials asked for, or those of the old table, with its default and the point of the configured capacities. Shares of cuts at a dial
// stay what they were, or lie between those of its neighbours.
routing::DialTable grid_of(const Subject& model, const std::vector<double>& dials, int64_t context) {
  const std::optional<routing::DialTable>& old = model.folder->dial();
  routing::DialTable grid = old ? *old : convert::uncalibrated(model.engine->config(), context);
  if (dials.empty()) return grid;
  std::vector<double> all = dials;
  add(all, grid.default_dial), add(all, grid.trained());
  grid.points.clear();
  for (auto dial = all.rbegin(); dial != all.rend(); ++dial) grid.points.push_back({.dial = *dial, .block_fraction = *dial, .thresholds = {}, .capacity = old && old->reachable(*dial) == *dial ? old->at(*dial).capacity : std::vector<double>(), .loss = 0});
  return grid;
}

int set_default_alone(const Arguments& args) {
  const auto folder = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  if (!folder->dial() || folder->config().routing.random()) throw UserError({folder->path(), "", "a model without thresholds", "one with a dial", ""});
  const double dial = args.number("set-default");
  if (folder->dial()->reachable(dial) != dial)
    args.wrong("set-default", str(dial), str("at least ", folder->dial()->points.front().dial, ", the lowest dial that the model was calibrated for"), "--calibrate with --dials and --data reaches lower");
  routing::DialTable table = *folder->dial();
  table.set_default(dial);
  if (args.boolean("store")) model::write_dial(folder->path(), table);
  if (args.boolean("json")) return out_json({{"default_dial", dial}, {"stored", args.boolean("store")}}), kExitDone;
  out(str("Dial ", fixed(dial, 3), args.boolean("store") ? " is the default of " : " would be the default of ", folder->path(), ".\n"));
  return kExitDone;
}

int run(const Arguments& args) {
  apply_quiet(args);
  apply_colour(args);
  catch_interrupts();
  check_words(args);
  std::vector<double> dials = dials_of(args);
  const std::optional<study::LossBound> bound = bound_of(args);
  if (!args.given("data")) return set_default_alone(args);

  std::vector<study::Task> tasks;
  if (args.given("tasks") || args.given("task-file")) tasks = read_tasks(args, args.integer("task-limit"));
  const infer::EngineOptions engine = engine_options(args, threads_of(args));
  const Subject model = open_model(args, engine);
  std::optional<Subject> dense;
  std::vector<Subject> rivals;
  if (args.given("against")) dense = open_beside(model, args.text("against"), engine, true);
  for (const std::string& path : args.texts("rival")) rivals.push_back(open_beside(model, path, engine, false));
  std::vector<const model::ModelFolder*> folders = {model.folder.get()};
  if (dense) folders.push_back(dense->folder.get());
  for (const Subject& r : rivals) folders.push_back(r.folder.get());
  const int64_t context = context_of(args, folders);
  Texts texts = load_texts(args, *model.folder, args.boolean("calibrate"), context);
  study::HeldOut& text = *texts.data;
  if (args.boolean("calibrate")) {
    model.folder->set_dial(calibrate(args, infer::Weights::load(*model.folder, engine.threads), grid_of(model, dials, context), texts.to_calibrate()));
    if (!args.given("calibrate-on")) text.name += ", the windows between those of the calibration";
  }
  routing::DialTable table = *model.folder->dial();
  if (dials.empty())
    for (auto p = table.points.rbegin(); p != table.points.rend(); ++p) dials.push_back(p->dial);
  if (args.given("set-default")) add(dials, args.number("set-default"));
  if (table.reachable(dials.back()) > dials.back() + kSameDial)
    throw UserError({model.folder->path(), "--dials", str("dial ", dials.back()), str("at least ", table.points.front().dial, ", the lowest that it was calibrated for"), "--calibrate measures thresholds for the dials asked for"});

  Stage stage(args.boolean("quiet"));
  const bool store = args.boolean("store");
  std::optional<WorkFolder> work;  // names of files in it say what they are of
  if (store) work.emplace(join_path(model.folder->path(), "fathom_curve.json"));
  study::CurveOptions options{.dials = dials, .tasks = std::move(tasks), .kept = work ? work->part("measured", Json::object()) : ""};
  options.progress = {.begin = [&](const std::string& what, const std::string& unit, int64_t total) { stage.begin(what, unit, total); },
                      .update = [&](int64_t done, const std::string& note) { stage.update(done, note); }};
  if (args.boolean("speed")) {
    const int64_t depth = std::min<int64_t>(64, context / 2);
    options.speed = study::BenchWork{.prompt = std::min<int64_t>(512, context), .generate = std::min<int64_t>(32, context - depth), .depth = depth, .batches = {1, 8},
                                     .rounds = static_cast<int>(args.integer("rounds"))};
  }
  model::DialCurve curve;
  try {
    curve = study::measure_curve(model, dense ? &*dense : nullptr, rivals, text, options);
  } catch (const Interrupted&) {
    throw Interrupted(store ? "stopped; the same command goes on with the losses and tasks that are measured" : "stopped");
  }
  curve.weights = stored_as(*model.folder), curve.machine = machine_words(threads_of(args)), curve.date = today();

  const CurvePoint* chosen = nullptr;
  if (bound) {
    chosen = study::pick(curve, *bound);
    if (!chosen) {
      const auto rise = [&](const CurvePoint& p) { return p.dial < 1 ? (dense ? p.over_dense : p.over_full).value : std::numeric_limits<double>::infinity(); };
      const CurvePoint& best = *std::ranges::min_element(curve.points, {}, rise);
      throw UserError({model.folder->path(), "--max-loss-increase", str("no dial below 1 within ", bound_words(args), " of ", dense ? dense->name + "'s" : "dial 1's", " loss", best.dial < 1 ? str("; the least is ", fixed(rise(best), 4), " nats over it, at dial ", fixed(best.dial, 3)) : ""),
                       "one that is", "nothing was stored; allow more, measure other --dials, or tune the model"});
    }
  } else if (args.given("set-default")) {
    chosen = &*std::ranges::find_if(curve.points, [&](const CurvePoint& p) { return std::abs(p.dial - args.number("set-default")) < kSameDial; });
  }
  std::string words;
  if (chosen) {
    table.set_default(chosen->dial);
    words = chosen_text(curve, *chosen, bound ? bound_words(args) : "", store);
  }
  std::string page;
  if (!args.text("out").empty()) {
    std::string command = "fathom dial " + args.positional("MODEL");
    for (const std::string& path : args.texts("data")) command += " --data " + path;
    if (dense) command += " --against " + args.text("against");
    for (const std::string& path : args.texts("rival")) command += " --rival " + path;
    page = study::curve_page(curve, study::depth_maps(model, text, options), words, command);
  }
  stage.end();
  stop_if_interrupted();
  if (store) {  // a curve of other thresholds is known by their hash, so that the order holds whenever it ends
    if (chosen || args.boolean("calibrate")) model::write_dial(model.folder->path(), table);
    model::write_curve(model.folder->path(), curve);
    work->remove();
  }
  if (!page.empty()) atomic_write(args.text("out"), page);
  if (args.boolean("json")) {
    Json j = curve.to_json();
    j["default_dial"] = table.default_dial, j["chosen"] = chosen ? Json(chosen->dial) : Json(), j["stored"] = store;
    if (!page.empty()) j["out"] = args.text("out");
    return out_json(j), kExitDone;
  }
  out(curve_text(curve) + (words.empty() ? "" : "\n" + words + "\n") + (store ? "\nfathom_curve.json in " + model.folder->path() + " has the curve.\n" : "\n") + (page.empty() ? "" : args.text("out") + " has the page.\n"));
  return kExitDone;
}

}  // namespace

Command dial_command() {
  Command c{.name = "dial", .summary = "Measure what a model with routed blocks gives and costs at its dials, keep the curve with it, and pick a default"};
  c.details = "For every dial: block fraction, loss with its paired difference to dial 1 (and to a dense model), accuracy on tasks, tokens per second of a prompt, of one text and of eight, "
              "beside what FLOPs and bytes allow, and the bytes of keys and values that the cache gave out. The curve is stored in the model's folder, where `fathom info` shows it.\n"
              "--max-loss-increase makes the lowest measured dial the model's default whose loss is at most so much above that of --against, or without it of dial 1: by the difference as measured; its "
              "interval is printed beside it. Stopped, the same command goes on with the losses and tasks that are measured. With --calibrate thresholds are found anew on every second window of --data (or on --calibrate-on), and the curve is measured on the other windows.";
  c.positional("MODEL", "a model folder with routed blocks, or the folder of a run");
  c.flag(path_flag("data", "PATH", "text to measure on: a file, a folder, or a dataset folder (its validation split)").many());
  c.flag(text_flag("dials", "LIST", "falling block fractions to measure, with commas between").noted("all of the model's table"));
  c.flag(path_flag("against", "MODEL", "the dense model, for paired differences and speeds beside it"));
  c.flag(path_flag("rival", "MODEL", "a model with static blocks, or any other, as a point beside the curve").many());
  c.flag(text_flag("max-loss-increase", "X", "make the lowest dial below 1 the default whose loss rises by at most 1% or 0.05 nats per token"));
  c.flag(number_flag("set-default", "X", "make this dial the model's default; without --data nothing is measured").range(1e-6, 1));
  c.flag(boolean_flag("store", "keep the curve, and what else was found, in the model's folder").otherwise("true"));
  c.group("Text");
  c.flag(count_flag("limit", "N", "tokens to measure on, in windows spread evenly over the text; 0 is all").range(0, 1e15).otherwise("32k"));
  c.flag(integer_flag("context", "N", "tokens in a window").range(2, 1 << 24).noted("that of the training run, else the model's, at most 1024"));
  c.flag(boolean_flag("calibrate", "find the thresholds anew first, for --dials or those of the model's table"));
  calibration_flags(c);
  c.flag(field_flag()).flag(repair_flag());
  task_source_flags(c);
  c.flag(count_flag("task-limit", "N", "first items of each task; 0 is all").range(0, 1e15).otherwise("200"));
  c.group("Speed");
  c.flag(boolean_flag("speed", "measure tokens per second").otherwise("true"));
  c.flag(integer_flag("rounds", "N", "rounds in turns, after one that warms up").range(1, 1000).otherwise("5"));
  engine_flags(c);
  c.group("Output");
  c.flag(path_flag("out", "FILE", "write a page about it; an older one is replaced"));
  c.flag(json_flag()).flag(threads_flag()).flag(quiet_flag()).flag(colour_flag());
  c.examples = {"fathom dial smol-mod --data other.txt --against models/SmolLM2-135M-Instruct.Q4_1.gguf --out dial.html", "fathom dial smol-mod --data other.txt --dials 1,0.85,0.75,0.65 --calibrate --max-loss-increase 1%",
                "fathom dial smol-mod --set-default 0.75"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
