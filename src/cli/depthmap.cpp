#include "study/depthmap.h"

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/human.h"
#include "core/progress.h"
#include "study/depth.h"
#include "study/runs.h"

namespace fathom::cli {
namespace {

int run(const Arguments& args) {
  apply_quiet(args);
  catch_interrupts();
  const std::string& path = args.text("out");
  require_place(path);
  const study::Subject subject = study::Subject::open(args.positional("MODEL"), {.threads = threads_of(args)});
  const std::optional<double> dial = dial_of(args, *subject.folder);

  const int64_t most = subject.engine->config().max_position_embeddings;
  const int64_t context = args.maybe_integer("context").value_or(study::default_context({subject.folder->path()}, {most}));
  if (context > most) args.wrong("context", str(context), str("at most the model's max_position_embeddings ", most));
  const study::HeldOut text = study::load_held_out(args.texts("data"), *subject.tokenizer, subject.ends(), held_out_options(args, *subject.folder, context, args.integer("limit")));

  std::unique_ptr<Progress> bar;
  if (!args.boolean("quiet")) bar = std::make_unique<Progress>("reading depths", "tokens", text.predicted);
  const study::DepthStudy depths = study::study_depth(subject, text, dial, [&](int64_t done, int64_t, double loss) {
    stop_if_interrupted();
    if (bar) bar->update(done, "loss " + fixed(loss, 3));
  });
  if (bar) bar->finish();
  stop_if_interrupted();
  atomic_write(path, study::depthmap_page(depths));
  if (args.boolean("json")) {
    Json j = depths.to_json();
    j["out"] = path;
    out_json(j);
  } else {
    out(str(path, ": ", grouped(depths.tokens), " tokens, mean depth ", fixed(depths.all.mean_depth(depths.least), 2), " of ", depths.most, " blocks, block fraction ",
            fixed(depths.block_fraction, 3), "\n"));
  }
  return kExitDone;
}

}  // namespace

Command depthmap_command() {
  Command c{.name = "depthmap", .summary = "Write a page that shows which token went how deep"};
  c.details = "One self-contained HTML file: a passage with every token's blocks, shares by block, position, class of token, frequency and difficulty, "
              "and the deepest and shallowest tokens in context. All under the causal rule.";
  c.positional("MODEL", "the model folder, the folder of a run, or a .gguf file");
  c.flag(path_flag("data", "PATH", "text: a file, a folder, or a dataset folder (its validation split)").many().needed());
  c.flag(path_flag("out", "FILE", "the page to write; an older one is replaced").otherwise("depthmap.html"));
  c.flag(dial_flag());
  c.group("Text");
  c.flag(integer_flag("context", "N", "tokens in a window").range(2, 1 << 24).noted("that of the training run, else the model's, at most 1024"));
  c.flag(count_flag("limit", "N", "tokens to read, in windows spread evenly over the text; 0 is all").range(0, 1e15).otherwise("50000"));
  c.flag(field_flag()).flag(repair_flag());
  c.group("Output");
  c.flag(json_flag()).flag(threads_flag()).flag(quiet_flag());
  c.examples = {"fathom depthmap model/ --data book.txt --out depthmap.html"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
