#include <algorithm>
#include <memory>
#include <sstream>

#include "cli/bench_peer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/engine_flags.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/human.h"
#include "core/limits.h"
#include "core/memory.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "infer/weights.h"
#include "model/folder.h"
#include "study/bench.h"
#include "study/evaluate.h"

namespace fathom::cli {
namespace {

using study::BenchLine;
using study::BenchModel;
using study::MachineLine;

std::vector<int64_t> list_of(const Arguments& args, const std::string& flag, int64_t high) {
  std::vector<int64_t> out;
  std::istringstream in(args.text(flag));
  for (std::string part; std::getline(in, part, ',');) {
    const std::optional<int64_t> n = parse_integer(part, true);
    if (!n || *n < 1 || *n > high) args.wrong(flag, "\"" + printable(part) + "\"", str("whole numbers from 1 to ", high, ", with commas between"));
    out.push_back(*n);
  }
  if (out.empty()) args.wrong(flag, "no number", "one or more");
  return out;
}

std::vector<int64_t> thread_counts(const Arguments& args) {
  if (args.given("threads")) return list_of(args, "threads", limits::kThreads);
  std::vector<int64_t> out;
  for (int64_t n = 1; n < available_threads(); n *= 2) out.push_back(n);
  out.push_back(available_threads());
  return out;
}

std::vector<std::string> machine_row(const MachineLine& m) {
  const auto known = [](double rate) { return rate > 0 ? fixed(rate, 0) : std::string("–"); };
  return {str("  ", m.threads), fixed(m.memory, 1), fixed(m.third_level, 1), fixed(m.second_level, 1), known(m.f32), known(m.bf16), known(m.int8)};
}

const std::vector<std::string> kMachineHead = {"  threads", "memory GB/s", "8 MiB GB/s", "512 KiB GB/s", "f32 Gop/s", "bf16 Gop/s", "int8 Gop/s"};

int run_machine(const Arguments& args) {
  catch_interrupts();
  std::vector<std::vector<std::string>> rows = {kMachineHead};
  Json all = Json::array();
  for (const int64_t threads : thread_counts(args)) {
    stop_if_interrupted();
    const MachineLine m = study::bench_machine(static_cast<int>(threads));
    rows.push_back(machine_row(m));
    all.push_back(study::to_json(m));
  }
  if (args.boolean("json")) return out_json({{"isa", kernels::chosen().name}, {"machine", all}}), kExitDone;
  out(str("Reading, each thread its own stretch, and multiply–adds in registers (one counts as two); kernels for ", kernels::chosen().name, "\n"));
  out(text_table(rows));
  out_flush();
  return kExitDone;
}

// --shape and --routed; what is wrong with them is a wrong command line.
model::ModelConfig shape_of(const Arguments& args, const std::string& routed, int64_t positions) {
  try {
    return study::bench_shape(args.text("shape"), routed, positions, "fathom bench");
  } catch (const UserError& e) {
    if (!e.parts().field.starts_with("--")) throw;
    args.wrong(e.parts().field.substr(2), e.parts().found, e.parts().expected, e.parts().hint.text());
  }
}

// What is measured, at every number of threads: a model and its form at dial 1, or a shape and, if asked for, its routed form.
struct Form {
  std::string name;
  std::shared_ptr<const infer::Weights> weights;
  infer::RoutingPolicy policy;
  std::vector<double> capacity;  // [cuts] that the policy was calibrated for
};

std::vector<Form> forms_of(const Arguments& args, int64_t positions) {
  if (!args.positional("MODEL").empty()) {
    if (args.given("shape") || args.given("routed") || args.given("type")) args.wrong("shape", "MODEL as well", "a model or a shape", "--routed and --type go with --shape");
    const auto folder = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
    if (positions > folder->config().max_position_embeddings)
      args.wrong(positions == args.integer("prompt") ? "prompt" : "depth", str(positions, positions == args.integer("prompt") ? " positions" : " positions with those of --generate"),
                 str("at most the model's ", folder->config().max_position_embeddings));
    const std::optional<double> dial = dial_of(args, *folder);
    const auto weights = infer::Weights::load(*folder, static_cast<int>(std::ranges::max(thread_counts(args))));
    const routing::RoutingConfig& routing = folder->config().routing;
    const Form full{"every token in full", weights, infer::RoutingPolicy::full(folder->config()), std::vector<double>(routing.cuts(), 1.0)};
    if (!routing.decides()) return {{"dense", full.weights, full.policy, full.capacity}};
    const infer::RoutingPolicy policy = infer::RoutingPolicy::at_dial(folder->config(), folder->dial(), dial);
    const double at = dial.value_or(folder->dial() ? folder->dial()->default_dial : 1.0);
    return {full, {str("dial ", fixed(at, 2)), weights, policy, at == 1 ? full.capacity : folder->dial() ? folder->dial()->at(at).capacity : routing.capacities()}};
  }
  if (!args.given("shape")) args.wrong("shape", "neither it nor a MODEL", "one of them");
  const auto type = formats::ggml_type_from_name(args.text("type"));
  if (!type) args.wrong("type", "\"" + printable(args.text("type")) + "\"", "one of " + formats::ggml_type_names());
  std::vector<Form> forms;
  const auto add = [&](const std::string& name, const std::string& routed) {
    const model::ModelConfig config = shape_of(args, routed, positions);
    const auto weights = study::bench_weights(config, *type, 1);
    forms.push_back({name, weights, study::bench_policy(weights, 512, 3), config.routing.capacities()});
  };
  add("dense", "");
  if (args.given("routed")) add("routed " + args.text("routed"), args.text("routed"));
  return forms;
}

const std::vector<std::string> kLineHead = {"", "tokens/s", "range", "GB/s", "Gop/s", "attention", "KV cache", "skipped", "expected", "FLOPs saved", "time saved", "speed-up", "allowed"};

// The share of its limit stands behind a rate.
std::vector<std::string> line_row(const BenchLine& l, const std::string& first) {
  const auto of = [](double rate, double share) { return fixed(rate, 1) + (share > 0 ? " (" + percent(share, 0) + ")" : ""); };
  const auto skipped = [&](double share) { return l.run_share < 1 || l.expected_run_share < 1 ? percent(1 - share) : std::string("–"); };
  const double attention = l.attention_share, gb = l.gb_share, gop = l.gop_share();
  return {"  " + l.model, fixed(l.tokens_per_second, 1), str(fixed(l.slowest, 1), " to ", fixed(l.fastest, 1)), of(l.gb, gb), of(l.gop, gop),
          l.decodes ? of(l.attention, attention) : "–", l.decodes ? human_bytes(l.kv_bytes) : "–", skipped(l.run_share), skipped(l.expected_run_share),
          l.model == first ? "–" : percent(l.flops_saved), l.model == first ? "–" : percent(l.seconds_saved()), l.model == first ? "–" : fixed(l.speedup, 2), l.model == first ? "–" : fixed(l.allowed, 2)};
}

// A heading for every work, a row for every model.
std::string lines_table(const std::vector<BenchLine>& lines, const std::string& first) {
  std::vector<std::vector<std::string>> rows = {kLineHead};
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i == 0 || lines[i].work != lines[i - 1].work) rows.push_back({lines[i].work});
    rows.push_back(line_row(lines[i], first));
  }
  return text_table(rows);
}

int run(const Arguments& args) {
  apply_colour(args);
  apply_quiet(args);
  catch_interrupts();
  study::BenchWork work{.prompt = args.integer("prompt"), .generate = args.integer("generate"), .depth = args.integer("depth"),
                        .batches = list_of(args, "batch", 1024), .chunk = args.integer("chunk"), .rounds = static_cast<int>(args.integer("rounds"))};
  const int64_t positions = std::max<int64_t>({work.prompt, work.depth + work.generate, 1});
  if (work.prompt == 0 && work.generate == 0) args.wrong("generate", "0 with --prompt 0", "some work", "give one of the two");
  const std::string peer = args.text("against");
  if (!peer.empty() && !args.positional("MODEL").ends_with(".gguf")) args.wrong("against", "no GGUF file as MODEL", "one, which both programs read");

  const std::vector<Form> forms = forms_of(args, positions);
  Json all = Json::array();
  for (const int64_t threads : thread_counts(args)) {
    std::vector<BenchModel> models;
    for (const Form& form : forms)
      models.push_back({form.name, std::make_shared<infer::Engine>(form.weights, engine_options(args, static_cast<int>(threads))), form.policy, form.capacity});
    for (const int64_t batch : work.batches) models[0].engine->require_room(work.generate > 0 ? work.depth + work.generate : 0, batch);
    models[0].engine->require_room(work.prompt);
    PeerBench against(peer, args.positional("MODEL"), work, static_cast<int>(threads));
    std::unique_ptr<Progress> bar;
    if (!args.boolean("quiet")) bar = std::make_unique<Progress>(str("threads ", threads), "rounds", work.rounds + 1);
    const std::vector<BenchLine> lines = study::bench_engines(models, work, [&](int round) {
      stop_if_interrupted();
      against.turn(round);
      if (bar) bar->update(round + 2);
    });
    if (bar) bar->finish();
    const MachineLine machine = study::bench_machine(static_cast<int>(threads));
    const infer::Engine& engine = *models[0].engine;

    Json run = {{"threads", threads}, {"isa", engine.kernels().name}, {"weight_bytes", engine.weights().bytes()}, {"kv_type", args.text("kv-type")}, {"resident_bytes", process_memory().resident}, {"machine", study::to_json(machine)}, {"lines", Json::array()}};
    for (const BenchLine& line : lines) run["lines"].push_back(study::to_json(line));
    if (!peer.empty()) run["peer"] = against.to_json();
    all.push_back(run);
    if (args.boolean("json")) continue;

    out(str(threads, threads == 1 ? " thread, " : " threads, ", engine.kernels().name, ", weights ", human_bytes(static_cast<double>(engine.weights().bytes())), ", keys and values ", args.text("kv-type"), "\n"));
    out(text_table({kMachineHead, machine_row(machine)}));
    out(lines_table(lines, models[0].name) + "\n");
    if (!peer.empty()) out(against.table(lines) + "\n");
    out_flush();
  }
  if (args.boolean("json")) out_json({{"runs", all}});
  out_flush();
  return kExitDone;
}

Flag thread_list() { return text_flag("threads", "N,N", "numbers of threads, one after the other").noted("1, 2, 4, … up to all cores that the process may use"); }

}  // namespace

Command bench_machine_command() {
  Command c{.name = "bench machine", .summary = "Measure what this machine reads and computes: the roofline of every other figure"};
  c.flag(thread_list()).flag(json_flag());
  c.examples = {"fathom bench machine", "fathom bench machine --threads 1,2,4 --json"};
  c.run = run_machine;
  return c;
}

Command bench_command() {
  Command c{.name = "bench", .summary = "Measure the engine's speed beside this machine's limits"};
  c.details =
      "A model, or a shape with random weights; its routed form in turns beside it. Decoding stands beside the bandwidth at which this machine reads as many bytes, a prompt "
      "beside the peak of its arithmetic: in brackets. \"Skipped\" is the share of tokens that did not run a routed unit in full, \"expected\" the one that the dial was calibrated for, "
      "\"allowed\" what the work that is left would take at this machine's limits: a prompt its FLOPs, decoding its bytes or its FLOPs, whichever take longer.";
  c.positionals.push_back({.name = "MODEL", .help = "a model folder, the folder of a run, or a GGUF file", .required = false, .repeated = false});
  c.flag(text_flag("shape", "SHAPE", "random weights instead: llama-110m, llama-1b, smollm2-135m, or C,L,H,G,F,V"));
  c.flag(text_flag("routed", "PATTERN", "also a routed form: every-second:0.125 or all-but-ends:0.25, then keys of the configuration as :KEY=VALUE"));
  c.flag(text_flag("type", "TYPE", "of a shape's matrices: f32, q8_0, q4_0, q4_1, …").otherwise("f32"));
  c.flag(dial_flag());
  c.group("Work");
  c.flag(count_flag("prompt", "N", "tokens of a prompt; 0 is none").range(0, static_cast<double>(limits::kContext)).otherwise("512"));
  c.flag(count_flag("generate", "N", "tokens to decode; 0 is none").range(0, static_cast<double>(limits::kContext)).otherwise("64"));
  c.flag(count_flag("depth", "N", "tokens in the cache before the first that is decoded").range(0, static_cast<double>(limits::kContext)).otherwise("64"));
  c.flag(text_flag("batch", "N,N", "texts that are decoded together").otherwise("1"));
  c.flag(count_flag("chunk", "N", "rows of a prompt in one step").range(1, 1 << 20).otherwise("512"));
  c.flag(integer_flag("rounds", "N", "rounds that count, after one that warms up").range(1, 1000).otherwise("5"));
  c.flag(path_flag("against", "PATH", "a llama-bench program that has its turn in every round; MODEL is a GGUF file"));
  engine_flags(c);
  c.group("Output");
  c.flag(thread_list()).flag(json_flag()).flag(quiet_flag()).flag(colour_flag());
  c.examples = {"fathom bench --shape llama-110m --type q8_0 --routed every-second:0.125", "fathom bench models/SmolLM2-135M-Instruct.Q4_1.gguf --against llama-bench"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
