#include <algorithm>

#include "cli/bar.h"
#include "cli/calibration.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/convert_data.h"
#include "cli/convert_text.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/train_table.h"
#include "convert/artifact.h"
#include "convert/calibrate.h"
#include "convert/surgery.h"
#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "core/work_folder.h"
#include "infer/weights.h"
#include "model/cost.h"
#include "study/evaluate.h"
#include "study/runs.h"

namespace fathom::cli {
namespace {

using routing::Part;
using routing::Path;

// "1-28", "3,5,8-10": ascending, each once.
std::vector<int> block_list(const Arguments& args, const std::string& flag, int64_t blocks) {
  std::vector<int> out;
  const std::string text = args.text(flag);
  const auto wrong = [&] { args.wrong(flag, "\"" + printable(text) + "\"", str("ascending blocks of 0 to ", blocks - 1, ", as 12-18 or 3,5,8-10")); };
  for (const std::string& piece : text.empty() ? std::vector<std::string>() : comma_list(text)) {
    const size_t dash = piece.find('-');
    const auto from = parse_integer(piece.substr(0, dash), false), to = dash == std::string::npos ? from : parse_integer(piece.substr(dash + 1), false);
    if (!from || !to || *from < 0 || *to < *from || *to >= blocks) wrong();
    for (int64_t block = *from; block <= *to; ++block) out.push_back(static_cast<int>(block));
  }
  if (!std::ranges::is_sorted(out, std::less_equal<>())) wrong();
  return out;
}

// RANK of "fit:RANK"; nothing for "none".
std::optional<int64_t> fitted_rank(const Arguments& args) {
  const std::string text = args.text("light");
  if (text == "none") return {};
  const auto rank = text.starts_with("fit:") ? parse_integer(text.substr(4), false) : std::nullopt;
  if (!rank || *rank < 1) args.wrong("light", "\"" + printable(text) + "\"", "fit:RANK with a rank of at least 1, or none");
  return rank;
}

convert::SurgeryOptions surgery_options(const Arguments& args, const model::ModelConfig& dense) {
  convert::SurgeryOptions o;
  const auto rank = fitted_rank(args);
  const std::string granularity = args.text("granularity");
  if (granularity == "attention") o.parts = {Part::attention};
  else if (granularity == "mlp") o.parts = {Part::mlp};
  else if (granularity == "attention+mlp") o.parts = {Part::attention, Part::mlp};
  o.paths = args.given("paths") ? routing::Paths::parse(args.text("paths"), "fathom convert", "--paths") : routing::Paths{.exit = false, .skip = !rank, .light = rank.has_value(), .full = true};
  if (!o.paths.full) args.wrong("paths", o.paths.text(), "full among them", "--static names the blocks that no token runs in full");
  if (o.paths.exit) args.wrong("paths", o.paths.text(), "skip, light and full", "which tokens may exit is learned in training from scratch");
  if (o.paths.light && !rank) args.wrong("paths", o.paths.text() + " beside --light none", "a rank for the light path", "--light fit:64");
  o.light_rank = rank.value_or(0);
  if (args.given("light") && o.light_rank > dense.hidden_size) args.wrong("light", args.text("light"), str("a rank of at most ", dense.hidden_size, ", the width of the model"));
  o.statics = block_list(args, "static", dense.num_hidden_layers);
  o.dropped = block_list(args, "drop-blocks", dense.num_hidden_layers);
  if (!o.statics.empty() && !rank) args.wrong("static", args.text("static") + " beside --light none", "a rank for the light path that stands there", "--light fit:64, or --drop-blocks");
  o.full_attention = block_list(args, "full-attention", dense.num_hidden_layers);
  const std::string blocks = args.text("blocks");
  if (blocks == "auto" || blocks == "inner") {
    for (const int block : convert::inner_blocks(dense))
      if (std::ranges::count(o.statics, block) + std::ranges::count(o.dropped, block) == 0) o.blocks.push_back(block);
    o.leave_needed = blocks == "auto";
  } else if (blocks != "none") {
    o.blocks = block_list(args, "blocks", dense.num_hidden_layers);
  }
  o.kv = args.text("kv") == "keep" ? routing::KvPolicy::keep : routing::KvPolicy::drop;
  o.rule = args.text("router") == "mlp" ? routing::CausalRule::predictor : routing::CausalRule::score;
  o.gate = args.text("gate") == "hard" ? routing::Gate::hard : routing::Gate::one_plus_tanh;
  o.forced_positions = args.integer("forced-positions");
  o.target = args.number("target");
  o.refit = args.boolean("refit");
  o.lowest = args.given("lowest") ? args.number("lowest") : std::min(args.number("lowest"), o.target);
  o.highest = args.given("highest") ? args.number("highest") : std::max(args.number("highest"), o.target);
  if (o.lowest > o.target) args.wrong("lowest", str(o.lowest), str("at most the target, ", o.target), "");
  if (o.highest < o.target) args.wrong("highest", str(o.highest), str("at least the target, ", o.target), "");
  return o;
}

// Few blocks save little: a target that was asked for must be in their reach, and the usual one comes into it.
void bring_into_reach(const Arguments& args, const convert::Surgery& surgery, const model::ModelConfig& dense, convert::SurgeryOptions& options) {
  if (!surgery.config.routing.decides()) return;
  const double least = least_block_fraction(surgery.config, dense, options.context);
  if (args.given("target") && options.target < least) args.wrong("target", str(options.target), str("at least ", fixed(least, 3), ", which is what runs when no token takes these blocks in full"), "name more blocks with --blocks, or replace some by --static");
  if (!args.given("target") && options.target < least) options.target = (1 + least) / 2;
  options.lowest = std::min(options.target, std::max(options.lowest, least));
  options.highest = std::max(options.target, options.highest);
}

routing::DialTable calibrate_written(const Arguments& args, const model::ModelFolder& written, const ConvertData& text, int64_t context) {
  // One number per dial needs no more text than this; windows evenly from all of it.
  constexpr size_t kTokens = 8192;
  size_t tokens = 0;
  for (const auto& window : text.windows) tokens += window.size();
  std::vector<std::span<const int32_t>> some;
  for (size_t i = 0; i < text.windows.size(); i += (tokens + kTokens - 1) / kTokens) some.push_back(text.windows[i]);
  return calibrate(args, infer::Weights::load(written, threads_of(args)), convert::uncalibrated(written.config(), context), {some, text.name, context}, true);
}

// How the result was made: fathom_convert.json, which fathom tune hands on to its artifact. Names of files without where they lie.
Json record_of(const Arguments& args, const model::ModelFolder& source, const ConvertReport& report) {
  const auto name_of_file = [](const std::string& path) { return path.substr(path.find_last_of('/') + 1); };
  Json settings = Json::object(), data = Json::array();
  for (const char* flag : {"blocks", "granularity", "full-attention", "paths", "light", "static", "drop-blocks", "kv", "router", "gate"})
    if (!args.text(flag).empty()) settings[flag] = args.text(flag);
  for (const char* flag : {"forced-positions", "tokens", "loss-tokens", "ridge", "chat-share", "seed"}) settings[flag] = args.number(flag);
  const convert::SurgeryOptions& o = report.options;
  settings.update({{"target", o.target}, {"lowest", o.lowest}, {"highest", o.highest}, {"context", o.context}, {"refit", o.refit}});
  for (const std::string& path : args.texts("data")) data.push_back(name_of_file(path));
  return {{"version", 1}, {"source", {{"name", name_of_file(source.path())}, {"fingerprint", source.fingerprint()}}}, {"settings", settings}, {"data", data}};
}

// What was tuned before, laid over its source.
int lay(const Arguments& args, const model::ModelFolder& source, const std::string& out_path) {
  for (const char* flag : {"blocks", "granularity", "full-attention", "paths", "light", "static", "drop-blocks", "kv", "router", "gate", "forced-positions", "target", "lowest", "highest", "data"})
    if (args.given(flag)) args.wrong(flag, "beside --from", "one of them", "the artifact says what the result is");
  convert::Artifact artifact = convert::read_artifact(args.text("from"));
  if (args.given("adapters")) {
    artifact.apart = args.text("adapters") == "separate";
    if (artifact.tuned.adapter_scale == 0) args.wrong("adapters", args.text("adapters"), "an artifact that has some: " + args.text("from") + " has none", "leave it out");
  }
  convert::Contents base;
  const convert::Contents contents = convert::contents_of(source, artifact, base);
  const std::vector<convert::TensorPlan> plan = convert::plan_tuned(base, artifact.tuned, convert::artifact_type(artifact, args.text("from")));
  const convert::Totals totals = convert::totals(plan);
  ConvertReport report{.source = source.path(), .out = args.boolean("plan") ? "" : out_path, .options = {}, .surgery = {.config = artifact.config, .block_of = {}, .made = {}, .fitted = {}}, .before = source.config(), .dial = artifact.dial, .text = {}, .fitted = false};
  report.bytes_before = convert::tensor_bytes(source), report.bytes_after = static_cast<double>(totals.after);
  if (!args.boolean("json")) out(convert_plan_text(report));
  if (!args.boolean("plan")) {
    Bar bar(args, "writing", "weights", totals.elements);
    convert::write_folder(contents, out_path, convert::surgery_type(source), plan, {.threads = threads_of(args), .progress = [&](int64_t done, int64_t) { bar.update(done); }, .calibrate = {}});
    bar.finish();
  }
  if (args.boolean("json")) out_json(convert_json(report));
  else if (!args.boolean("plan")) out(convert_result_text(report));
  return kExitDone;
}

// Fits and writes what was planned. What takes long lies in a work folder until it is done.
void make(const Arguments& args, const model::ModelFolder& source, convert::Surgery& surgery, ConvertReport& report, formats::GgmlType type) {
  const convert::SurgeryOptions& options = report.options;
  const bool fit = args.given("data") && !surgery.config.routing.dense();
  std::optional<WorkFolder> work;
  ConvertData text;
  if (args.given("data")) {
    work.emplace(report.out);
    const auto weights = infer::Weights::load(source, threads_of(args));
    text = load_convert_data(args, source, weights, options.context, *work);
    report.text = text.name;
    if (fit) {
      Json of = record_of(args, source, report);
      of["text"] = text.hash();
      Bar bar(args, "fitting", "blocks", source.config().num_hidden_layers * (options.refit && surgery.config.routing.decides() ? 2 : 1));
      convert::fit_surgery(surgery, options.dropped.empty() ? weights : convert::kept_blocks(source, surgery, threads_of(args)), text.windows, options,
                           {.ridge = args.number("ridge"), .forced_positions = options.forced_positions, .loss_tokens = args.integer("loss-tokens"), .threads = threads_of(args), .kept = work->part("fits", of),
                            .progress = [&](int64_t done, int64_t) { bar.update(done); }, .check = stop_if_interrupted});
      bar.finish();
      report.fitted = true;
    }
  }
  report.surgery = surgery;
  convert::Contents contents = convert::contents_of(source, surgery);
  contents.files = [record = record_of(args, source, report).dump(2)](const std::string& folder) { atomic_write(join_path(folder, "fathom_convert.json"), record + "\n"); };
  const std::vector<convert::TensorPlan> plan = convert::plan_tensors(contents, type);
  Bar bar(args, "writing", "weights", convert::totals(plan).elements);
  convert::WriteOptions write{.threads = threads_of(args), .progress = [&](int64_t done, int64_t) { bar.update(done); }, .calibrate = {}};
  if (fit && surgery.config.routing.decides())
    write.calibrate = [&](const model::ModelFolder& written) {
      bar.finish();
      report.dial = calibrate_written(args, written, text, options.context);
      return *report.dial;
    };
  convert::write_folder(contents, report.out, type, plan, write);
  bar.finish();
  if (work) work->remove();
}

int run(const Arguments& args) {
  apply_quiet(args);
  apply_colour(args);
  catch_interrupts();
  const std::string out_path = args.positional("OUT");
  const auto source = model::ModelFolder::open(study::model_folder_of(args.positional("SRC")));
  const bool plan_only = args.boolean("plan");
  if (!plan_only) {
    if (convert::is_gguf(out_path)) throw UsageError({"fathom convert: OUT", "", "\"" + printable(out_path) + "\"", "the name of a folder", "no GGUF file of other programs can say which tokens skip"});
    convert::check_out(*source, out_path, args.boolean("overwrite"));
  }
  if (args.given("from")) return lay(args, *source, out_path);
  if (args.given("adapters")) args.wrong("adapters", args.text("adapters"), "--from beside it", "adapters come from what fathom tune made");
  convert::SurgeryOptions options = surgery_options(args, source->config());
  const int64_t most = source->config().max_position_embeddings;
  options.context = std::min(args.integer("context"), most);
  convert::Surgery surgery = convert::plan_surgery(source->config(), options, source->path());
  bring_into_reach(args, surgery, source->config(), options);
  const bool light = std::ranges::any_of(surgery.config.routing.units, [](const auto& unit) { return unit.paths.light; });
  if (light && !args.given("data") && !plan_only)
    args.wrong("data", "no text", "text to fit light paths on", "a file or folder, or self: text that the model writes itself; or --light none --paths skip,full");

  ConvertReport report{.source = source->path(), .out = plan_only ? "" : out_path, .options = options, .surgery = surgery, .before = source->config(), .dial = {}, .text = {}, .fitted = false, .to_fit = args.given("data")};
  const formats::GgmlType type = convert::surgery_type(*source);
  report.bytes_before = convert::tensor_bytes(*source);
  report.bytes_after = static_cast<double>(convert::totals(convert::plan_tensors(convert::contents_of(*source, surgery), type)).after);
  if (!args.boolean("json")) out(convert_plan_text(report));  // before minutes go into it
  if (plan_only) return args.boolean("json") ? (out_json(convert_json(report)), kExitDone) : kExitDone;

  try {
    make(args, *source, surgery, report, type);
  } catch (const Interrupted&) {
    throw Interrupted(args.given("data") ? "stopped; the same command goes on where it was: what is done lies in " + partial_path(out_path) : "stopped");
  }
  if (args.boolean("json")) out_json(convert_json(report));
  else out(convert_result_text(report));
  return kExitDone;
}

}  // namespace

Command convert_command() {
  Command c{.name = "convert", .summary = "Make a dense model into one whose tokens choose their depth"};
  c.details = "Every routed block gets a router and, in place of what it adds to a token that does not run it, a light path: a linear map of low rank, fitted in closed form to what the "
              "block does on the text of --data. The source's weights are carried over as they are: at dial 1 the result computes what the source computes. Routers are fitted to tell where the "
              "light path would be missed most, one scale for all blocks, and the dial is calibrated on the same text. `fathom tune` makes a better model of the result.\n"
              "A static block (--static) is light for every token and loses its weights; a dropped one is gone.\n"
              "Stopped while it fits or writes text, it goes on there when the same command is given again: until it is done that lies in .NAME.partial beside OUT.";
  c.positional("SRC", "a dense model: a folder of the Hugging Face form, or a .gguf file");
  c.positional("OUT", "the model folder to write");
  c.group("Surgery");
  c.flag(text_flag("blocks", "LIST", "blocks to route: 1-28, 3,5,8-10; inner: all but the first and the last; auto: of these all that tokens can do without at the target; none").otherwise("auto"));
  c.flag(text_flag("granularity", "WHAT", "what a router decides about").one_of({"block", "attention", "mlp", "attention+mlp"}).otherwise("block"));
  c.flag(text_flag("full-attention", "LIST", "routed blocks whose attention every token runs: only their MLP is decided about"));
  c.flag(text_flag("paths", "LIST", "paths of a routed block: light,full or skip,full or skip,light,full").noted("light,full, or skip,full with --light none"));
  c.flag(text_flag("light", "HOW", "fit:RANK fits a light path of that rank; none").otherwise("fit:64"));
  c.flag(text_flag("static", "LIST", "blocks that are light for every token"));
  c.flag(text_flag("drop-blocks", "LIST", "blocks to take out for good"));
  c.flag(text_flag("kv", "WHAT", "keys and values of tokens that do not run a block's attention").one_of({"keep", "drop"}).otherwise("keep"));
  c.flag(text_flag("router", "KIND", "linear scores, or a small MLP, which begins as they are").one_of({"linear", "mlp"}).otherwise("linear"));
  c.flag(text_flag("gate", "KIND", "factor on what a block adds; one_plus_tanh with --router mlp only").one_of({"hard", "one_plus_tanh"}).otherwise("hard"));
  c.flag(integer_flag("forced-positions", "N", "first tokens of a text that always run in full").range(0, 1 << 20).otherwise("2"));
  c.flag(number_flag("target", "X", "block fraction that capacities are chosen for").range(kAboveZero, 1).otherwise("0.75"));
  c.flag(number_flag("lowest", "X", "lowest block fraction that light paths are to serve").range(kAboveZero, 1).otherwise("0.65"));
  c.flag(number_flag("highest", "X", "and the highest").range(kAboveZero, 1).otherwise("0.85"));
  c.flag(path_flag("from", "ARTIFACT", "lay routers, light paths and adapters that fathom tune made over SRC, instead of all this"));
  c.flag(text_flag("adapters", "HOW", "with --from: merged into the weights, or separate beside them, which then stay the source's bytes").one_of({"merged", "separate"}).noted("as the run had them"));
  c.flag(boolean_flag("plan", "print what would be made, and write nothing"));
  c.flag(boolean_flag("overwrite", "replace OUT if it exists"));
  c.group("Text");
  c.flag(path_flag("data", "PATH", "text to fit on: a file, a folder, a dataset folder (its validation split), or the word self: text that the model writes, half of it beside others").many());
  c.flag(count_flag("tokens", "N", "tokens to fit on, in windows spread evenly over the text; 0 is all").range(0, 1e15).otherwise("131072"));
  c.flag(count_flag("loss-tokens", "N", "tokens of them to measure the price of every light path on; 0 measures none").range(0, 1e15).otherwise("4096"));
  c.flag(integer_flag("context", "N", "tokens in a window").range(2, 1 << 24).otherwise("512"));
  c.flag(number_flag("ridge", "X", "ridge of the fits, relative to the inputs' mean square").range(1e-9, 1e3).otherwise("0.001"));
  c.flag(boolean_flag("refit", "fit light paths a second time, on the stream that routing makes").otherwise("true"));
  c.flag(chat_share_flag());
  c.flag(count_flag("seed", "N", "of --data self").range(0, 1e15).otherwise("1"));
  c.flag(field_flag()).flag(repair_flag());
  c.group("Output");
  c.flag(json_flag()).flag(threads_flag()).flag(quiet_flag()).flag(colour_flag());
  c.examples = {"fathom convert models/SmolLM2-135M-Instruct.Q4_1.gguf models/smol-mod --data book.txt", "fathom convert model model-static --static 12-18 --blocks none --data self",
                "fathom convert model model-mod --granularity attention+mlp --target 0.7 --data book.txt --json"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
