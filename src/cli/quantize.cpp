#include "convert/quantize.h"

#include "cli/bar.h"
#include "cli/calibration.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/quantize_text.h"
#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "study/divergence.h"

namespace fathom::cli {
namespace {

using study::HeldOut;

bool to_calibrate(const Arguments& args, const model::ModelFolder& model) {
  return model.config().routing.decides() && !model.config().routing.random() && args.boolean("calibrate");
}

void check_words(const Arguments& args, const model::ModelFolder& model) {
  if (args.given("calibrate-on") && !model.config().routing.decides()) args.wrong("calibrate-on", "text", "none: this model has no routed block");
  if (args.given("calibrate-on") && !args.boolean("calibrate")) args.wrong("calibrate-on", "text beside --no-calibrate", "one of the two");
  if (to_calibrate(args, model) && !args.given("data") && !args.given("calibrate-on"))
    args.wrong("data", "no text", "text to calibrate the thresholds of the routed blocks on", "or --no-calibrate, to keep those of the original weights");
}

study::Divergence measure(const Arguments& args, const std::string& model, const std::string& out, const HeldOut& text) {
  const int threads = threads_of(args);
  const study::Subject original = study::Subject::open(model, {.threads = threads}), result = study::Subject::open(out, {.threads = threads});
  Bar bar(args, "measuring", "tokens", text.predicted);
  try {
    const study::Divergence d = study::diverge(original, result, text, [&](int64_t done, int64_t, double kl) { bar.update(done, "KL " + fixed(kl, 5)); });
    bar.finish();
    return d;
  } catch (const Interrupted&) {
    throw Interrupted(str("interrupted: ", out, " is written, its quality was not measured"));
  }
}

int run(const Arguments& args) {
  apply_quiet(args);
  apply_colour(args);
  catch_interrupts();
  const std::string out_path = args.positional("OUT");
  if (exists(out_path) && !args.boolean("overwrite"))
    throw UsageError({"fathom quantize: OUT", "", "the existing \"" + printable(out_path) + "\"", "a new name", "give --overwrite to replace it"});
  if (out_path.ends_with(".gguf")) require_place(out_path);
  const auto model = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  check_words(args, *model);

  convert::QuantizeOptions options;
  for (const auto& [name, type] : convert::quantize_types())
    if (args.text("type") == name) options.type = type;
  options.overwrite = args.boolean("overwrite");
  options.threads = threads_of(args);
  convert::check_quantize(*model, out_path, options);
  const bool calibrated = to_calibrate(args, *model);
  const Texts texts = calibrated || args.given("data") ? load_texts(args, *model, calibrated, context_of(args, {model.get()})) : Texts{};

  QuantizeReport report{.model = args.positional("MODEL"), .out = out_path, .type = args.text("type"), .plan = convert::plan_quantize(*model, options.type),
                        .tied = model->config().tie_word_embeddings, .before = model->dial(), .after = {}, .text = {}, .quality = {}};
  if (const std::string twice = requantized_words(report.plan); !twice.empty())
    log_warning(twice, ", through f32: rounding of rounded weights; better begin from the original ones");
  if (model->config().routing.decides() && !model->config().routing.random() && !args.boolean("calibrate"))
    log_warning("the thresholds of the routed blocks are those of the original weights: the share of tokens that run may differ");
  Bar bar(args, "quantising", "weights", convert::totals(report.plan).elements);
  options.progress = [&](int64_t done, int64_t) { bar.update(done); };
  if (calibrated)
    options.calibrate = [&](const model::ModelFolder& written) {
      bar.finish();
      report.after = calibrate(args, infer::Weights::load(written, threads_of(args)), *model->dial(), texts.to_calibrate());
      return *report.after;
    };
  convert::quantize(*model, out_path, report.plan, options);
  bar.finish();
  if (texts.data) {
    report.text = texts.data->name;
    report.quality = measure(args, args.positional("MODEL"), out_path, *texts.data);
  }
  if (args.boolean("json")) out_json(quantize_json(report));
  else out(quantize_text(report));
  return kExitDone;
}

}  // namespace

Command quantize_command() {
  Command c{.name = "quantize", .summary = "Store a model's matrices in fewer bits, and measure what that costs"};
  c.details = "OUT that ends in .gguf becomes one GGUF file for llama.cpp and others (dense models only), any other name a model folder: with model.gguf for the "
              "quantised types, with model.safetensors for f32, f16 and bf16. Norms, routers and predictors stay f32, the head of a 4-bit model is q8_0, and rows that are no "
              "whole blocks of the type are q8_0 or f16. The thresholds of routed blocks are calibrated again, on every second window of --data or on --calibrate-on. "
              "Quality is measured on --data, under the causal rule: perplexity of both, mean KL divergence from the original, and how often the most likely token is the same.";
  c.positional("MODEL", "a model folder, the folder of a run, or a .gguf file");
  c.positional("OUT", "the folder or the .gguf file to write");
  c.flag(text_flag("type", "TYPE", "type of the matrices").one_of({"q8_0", "q4_0", "q4_1", "q4_k", "q6_k", "f16", "bf16", "f32"}).needed());
  c.flag(boolean_flag("overwrite", "replace OUT if it exists"));
  c.group("Text");
  c.flag(path_flag("data", "PATH", "text to measure on: a file, a folder, or a dataset folder (its validation split)").many());
  c.flag(count_flag("limit", "N", "tokens to measure on, in windows spread evenly over the text; 0 is all").range(0, 1e15).otherwise("10k"));
  c.flag(boolean_flag("calibrate", "calibrate the dial of routed blocks again").otherwise("true"));
  calibration_flags(c);
  c.flag(integer_flag("context", "N", "tokens in a window").range(2, 1 << 24).noted("that of the training run, else the model's, at most 1024"));
  c.flag(field_flag()).flag(repair_flag());
  c.group("Output");
  c.flag(json_flag()).flag(threads_flag()).flag(quiet_flag()).flag(colour_flag());
  c.examples = {"fathom quantize runs/mod runs/mod-q8 --type q8_0 --data data/books", "fathom quantize model model.q4_0.gguf --type q4_0 --data book.txt --json"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
