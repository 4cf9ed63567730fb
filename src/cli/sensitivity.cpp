#include "study/sensitivity.h"

#include "cli/bar.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/human.h"
#include "formats/svg.h"
#include "model/folder.h"
#include "study/evaluate.h"
#include "study/held_out.h"
#include "study/runs.h"

namespace fathom::cli {
namespace {

int run(const Arguments& args) {
  apply_quiet(args);
  apply_colour(args);
  catch_interrupts();
  const std::string picture = args.text("picture");
  if (!picture.empty()) require_place(picture), refuse_existing(args, "picture", picture);
  const auto folder = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  const text::Tokenizer tokenizer = folder->tokenizer();
  const int64_t context = std::min(args.integer("context"), folder->config().max_position_embeddings);
  const study::HeldOut text = study::load_held_out(args.texts("data"), tokenizer, study::document_ends(folder->config(), tokenizer), held_out_options(args, *folder, context, args.integer("limit")));
  std::vector<std::span<const int32_t>> windows;
  for (const study::Window& w : text.windows) windows.push_back(w.tokens);

  Bar bar(args, "measuring", "blocks", folder->config().num_hidden_layers);
  const study::Sensitivity s = study::measure_sensitivity(infer::Weights::load(*folder, threads_of(args)), windows,
                                                          {.share = args.number("share"), .forced_positions = args.integer("forced-positions"), .threads = threads_of(args),
                                                           .progress = [&](int64_t done, int64_t) { bar.update(done); }, .check = stop_if_interrupted});
  bar.finish();
  if (!picture.empty()) atomic_write(picture, formats::svg_file(s.chart()));
  if (args.boolean("json")) {
    Json j = s.to_json();
    j["text"] = text.name;
    return out_json(j), kExitDone;
  }
  out(str(folder->path(), " on ", text.name, ", ", grouped(s.tokens), " tokens, loss ", fixed(s.loss, 4), "\n\nNats per token without a part: for all tokens; for the ", percent(s.share),
          " of tokens whose stream it changes least; and by how much it changes the stream\n"));
  std::vector<std::vector<std::string>> rows = {{"  block", "all", "least", "change", "attention: all", "least", "change", "MLP: all", "least", "change"}};
  for (size_t i = 0; i < s.blocks.size(); ++i) {
    rows.push_back({str("  ", i)});
    for (const study::Sensitivity::One* one : {&s.blocks[i].block, &s.blocks[i].attention, &s.blocks[i].mlp})
      for (const std::string& cell : {fixed(one->all, 4), fixed(one->least, 4), percent(one->change)}) rows.back().push_back(cell);
  }
  out(text_table(rows));
  return kExitDone;
}

}  // namespace

Command sensitivity_command() {
  Command c{.name = "sensitivity", .summary = "Measure what each block, attention and MLP of a dense model is worth"};
  c.details = "For every block, its attention and its MLP: the loss when all tokens do without it, and when only those of every 512 or so do whose stream it changes least. Keys and values are written "
              "all the same. `fathom convert` measures the same with the substitutes that it fits.";
  c.positional("MODEL", "a dense model: a model folder or a .gguf file");
  c.flag(path_flag("data", "PATH", "text to measure on: a file, a folder, or a dataset folder (its validation split)").many().needed());
  c.flag(count_flag("limit", "N", "tokens to measure on, in windows spread evenly over the text; 0 is all").range(0, 1e15).otherwise("4096"));
  c.flag(integer_flag("context", "N", "tokens in a window").range(2, 1 << 24).otherwise("512"));
  c.flag(number_flag("share", "X", "share of tokens that do without, of those that are changed least").range(0, 1).otherwise("0.5"));
  c.flag(integer_flag("forced-positions", "N", "first tokens of a text that always run in full").range(0, 1 << 20).otherwise("2"));
  c.flag(path_flag("picture", "FILE", "write a chart as SVG"));
  c.flag(boolean_flag("overwrite", "replace the picture if it exists"));
  c.flag(field_flag()).flag(repair_flag());
  c.group("Output");
  c.flag(json_flag()).flag(threads_flag()).flag(quiet_flag()).flag(colour_flag());
  c.examples = {"fathom sensitivity models/SmolLM2-135M-Instruct.Q4_1.gguf --data book.txt --picture blocks.svg"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
