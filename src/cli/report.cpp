#include "study/report.h"

#include <algorithm>
#include <functional>

#include "cli/bar.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/human.h"
#include "core/limits.h"
#include "infer/generate.h"
#include "infer/weights.h"

namespace fathom::cli {
namespace {

using study::Report;
using study::Subject;

constexpr int kDecodeRounds = 15;

std::vector<std::string> inputs_of(const Arguments& args, const study::RunRecord& run) {
  if (args.given("data")) return args.texts("data");
  if (!run.dataset.empty()) return {run.dataset};
  args.wrong("data", "nothing, and no dataset that " + run.path + " was trained on", "held-out text");
}

study::Sample sample(const Subject& s, std::optional<double> dial, const std::vector<int32_t>& prompt, int64_t tokens, uint64_t seed, const std::function<void(int64_t)>& progress) {
  infer::GenerateOptions o;
  o.policy = study::policy_of(s, infer::Rule::causal, dial);
  o.max_new_tokens = tokens;
  o.sampling = {.temperature = 0.8, .top_k = 0, .top_p = 0.95, .min_p = 0, .repetition_penalty = 1, .seed = seed};
  int64_t steps = 0;
  o.cancel = [&] { return progress(steps++), false; };
  const std::vector<std::vector<int32_t>> prompts = {prompt};
  const infer::GenerateResult r = infer::generate(*s.engine, s.tokenizer.get(), prompts, o);
  std::vector<int32_t> ids = prompt;
  ids.insert(ids.end(), r.texts[0].ids.begin(), r.texts[0].ids.end());
  const model::ModelConfig& c = s.engine->config();
  return {study::views(*s.tokenizer, ids, r.texts[0].decisions, c), prompt.size()};
}

std::vector<int32_t> prompt_of(const Subject& s, const std::string& text) {
  std::vector<int32_t> ids;
  if (const auto begin = s.ends().begin) ids.push_back(*begin);
  s.tokenizer->encode_append(text, {}, ids);
  return ids;
}

void add_samples(const Arguments& args, const Subject& s, std::optional<double> dial, const study::HeldOut& text, Stage& stage, Report& report) {
  const int64_t room = s.engine->config().max_position_embeddings, length = args.integer("sample-tokens");
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& p : args.texts("prompt")) prompts.push_back(prompt_of(s, p));
  if (prompts.empty())
    for (const size_t i : {text.windows.size() / 4, text.windows.size() / 2}) {
      const auto tokens = text.windows[i].tokens;
      prompts.emplace_back(tokens.begin(), tokens.begin() + std::min<std::ptrdiff_t>(24, static_cast<std::ptrdiff_t>(tokens.size())));
    }
  for (std::vector<int32_t>& p : prompts) {
    if (p.empty()) args.wrong("prompt", "a text without tokens", "a text of at least one token");
    if (static_cast<int64_t>(p.size()) >= room) p.resize(static_cast<size_t>(std::max<int64_t>(1, room / 2)));
  }
  stage.begin("sampling " + report.models[0].run.name, "tokens", length * static_cast<int64_t>(prompts.size()));
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::vector<int32_t>& p = prompts[i];
    const int64_t before = length * static_cast<int64_t>(i);
    report.samples.push_back(sample(s, dial, p, std::min(length, room - static_cast<int64_t>(p.size())), i, [&](int64_t steps) { stage.update(before + steps); }));
  }
  stage.update(length * static_cast<int64_t>(prompts.size()));
  stage.end();
}

Report make_report(const Arguments& args) {
  const int threads = threads_of(args);
  Report report;
  std::vector<Subject> subjects;
  for (const std::string& path : args.rest()) {
    report.models.push_back({.run = study::read_run(path), .role = "", .quality = {}, .teacher = {}, .speed = {}});
    subjects.push_back(Subject::open(report.models.back().run.model, {.threads = threads}));
    const model::ModelConfig& c = subjects.back().engine->config();
    if (subjects.back().tokenizer->identity() != subjects.front().tokenizer->identity())
      throw UserError({path, "tokenizer.json", "another tokenizer than that of " + args.rest()[0], "the same one", "losses per token of different tokenizers do not compare"});
    study::warn_of_other_ends(subjects.front(), subjects.back());
    study::ReportModel& m = report.models.back();
    m.role = study::role_of(subjects.front().engine->config(), report.models.front().run, c, m.run);
    m.blocks = c.num_hidden_layers, m.width = c.hidden_size;
    m.parameters = model::parameters(c).total();
  }
  const std::optional<double> dial = dial_of(args, *subjects[0].folder);
  const int64_t context = context_of(args, subjects);
  const std::vector<std::string> inputs = inputs_of(args, report.models[0].run);
  const study::HeldOut text = study::load_held_out(inputs, *subjects[0].tokenizer, subjects[0].ends(), held_out_options(args, *subjects[0].folder, context, args.integer("limit")));
  report.text = text.name, report.date = today();
  report.held_out = std::all_of(report.models.begin(), report.models.end(), [&](const study::ReportModel& m) {
    return std::all_of(inputs.begin(), inputs.end(), [&](const std::string& input) { return study::trained_on(m.run, input); });
  });
  report.machine = machine_words(threads);

  Stage stage(args.boolean("quiet"));
  const auto watch = [&](const std::string& what) -> study::EvaluateProgress {
    stage.begin(what, "tokens", text.predicted);
    return [&stage](int64_t done, int64_t, double loss) { stage.update(done, "loss " + fixed(loss, 3)); };
  };
  std::vector<const Subject*> all;
  for (size_t i = 0; i < subjects.size(); ++i) {
    study::ReportModel& m = report.models[i];
    const std::optional<double> own = i == 0 ? dial : std::nullopt;
    m.quality = study::evaluate(subjects[i], text, infer::Rule::causal, own, watch("evaluating " + m.run.name));
    if (study::has_teacher(subjects[i]))
      m.teacher = study::compare_with_teacher(subjects[i], text, m.quality, own, watch("teacher's view of " + m.run.name));
    const std::vector<double> realised = m.quality.capacities();
    m.decode_bytes = model::decode_bytes(subjects[i].engine->config(), context, realised, infer::weight_bytes(*subjects[i].folder)).total();
    m.kv_bytes = study::kv_bytes_per_token(subjects[i].engine->config(), realised);
    m.kv_bytes_dense = study::kv_bytes_per_token(subjects[i].engine->config(), {});
    all.push_back(&subjects[i]);
  }
  report.depths = study::study_depth(subjects[0], text, dial, watch("reading depths"));
  const auto first = text.windows[0].tokens;
  const auto prompt = first.subspan(0, std::max<size_t>(1, std::min<size_t>(first.size() / 2, 32)));
  const int64_t new_tokens = std::min<int64_t>(128, context - static_cast<int64_t>(prompt.size()));
  stage.begin("measuring decoding", "tokens", new_tokens * kDecodeRounds * static_cast<int64_t>(all.size()));
  const std::vector<study::DecodeSpeed> speeds =
      study::measure_decode(all, dial, prompt, new_tokens, kDecodeRounds, [&](int64_t done, int64_t) { stage.update(done); });
  for (size_t i = 0; i < speeds.size(); ++i) report.models[i].speed = speeds[i];
  add_samples(args, subjects[0], dial, text, stage, report);
  return report;
}

int run(const Arguments& args) {
  apply_quiet(args);
  catch_interrupts();
  const std::string& path = args.text("out");
  require_place(path);
  Report report = make_report(args);
  report.command = "fathom report";
  for (const std::string& run : args.rest()) report.command += " " + run;
  const std::string page = study::report_page(report);
  stop_if_interrupted();
  atomic_write(path, page);
  if (args.boolean("json")) {
    Json j = study::report_json(report);
    j["out"] = path;
    out_json(j);
  } else {
    std::string text = text_table(study::comparison(report)) + "\n" + study::verdict(report) + "\n";
    for (const std::string& caution : study::cautions(report)) text += caution + "\n";
    out(text + path + " has the page.\n");
  }
  return kExitDone;
}

}  // namespace

Command report_command() {
  Command c{.name = "report", .summary = "Compare a trained model with its dense twins, or with others, and write a page about it"};
  c.details = "Reads run folders (or model folders), evaluates all on the same text, measures decoding in turns, and writes one self-contained HTML file. "
              "Of a dataset the text is the validation split, a part of which has also set the thresholds of the dial (one number per routed block).";
  c.positionals.push_back({"RUNS", "run folders: the model that it is about first, then those to set beside it", true, true});
  c.flag(path_flag("data", "PATH", "held-out text: a file, a folder, or a dataset folder (its validation split)").many().noted("the first run's own"));
  c.flag(path_flag("out", "FILE", "the page to write; an older one is replaced").otherwise("report.html"));
  c.flag(count_flag("limit", "N", "tokens to evaluate, in windows spread evenly over the text; 0 is all").range(0, 1e15).otherwise("1M"));
  c.flag(integer_flag("context", "N", "tokens in a window").range(2, 1 << 24).noted("that of the training runs, else the models', at most 1024"));
  c.flag(field_flag()).flag(repair_flag());
  c.flag(dial_flag("block fraction to ask of the first model"));
  c.flag(text_flag("prompt", "TEXT", "a text to go on with").many().noted("two places of the held-out text"));
  c.flag(integer_flag("sample-tokens", "N", "length of the sampled texts").range(1, 100000).otherwise("160"));
  c.flag(json_flag()).flag(threads_flag()).flag(quiet_flag());
  c.examples = {"fathom report runs/mod runs/dense-short runs/dense-thin --out demo-report.html"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
