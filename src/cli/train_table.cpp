#include "cli/train_table.h"

namespace fathom::cli {

Command train_table() {
  Command c;
  c.name = "train";
  c.summary = "Train a model from a configuration file, or go on with a run";
  c.details =
      "The configuration is JSON with comments (configs/ has examples, docs/training.md every field). Every field can be set on "
      "the command line by its path: --optimizer.lr 3e-3, or --set optimizer.lr=3e-3.\n\n"
      "The run folder gets checkpoints, metrics.jsonl, TensorBoard event files, and at the end model/ and summary.json. Ctrl-C "
      "finishes the step, saves and ends with code 130; --resume goes on and computes the same bits as an uninterrupted run. "
      "`fathom-train export RUN/checkpoints/step-… --out MODEL` calibrates a checkpoint and writes it as a model folder.";
  Positional config{"CONFIG", "Configuration file; with --resume it may be left out", false, false};
  c.positionals.push_back(config);
  c.flag(path_flag("out", "RUN", "Folder of the new run").noted("runs/ and the name of CONFIG"));
  c.flag(path_flag("resume", "RUN", "Go on with this run from its last checkpoint"));
  c.flag(text_flag("set", "FIELD=VALUE", "Set a field of the configuration").many());
  c.group("Budget");
  c.flag(count_flag("steps", "N", "Train this many steps"));
  c.flag(count_flag("tokens", "N", "Train on this many tokens"));
  c.flag(number_flag("flops", "X", "Train with this many FLOPs, as the cost model counts them"));
  c.group("Output");
  c.flag(boolean_flag("json", "Print the summary as JSON"));
  c.flag(boolean_flag("quiet", "Print warnings and the summary only"));
  c.flag(boolean_flag("print-config", "Print the whole configuration and stop"));
  c.examples = {"fathom train configs/small.json --data.text texts/ --out runs/small", "fathom train configs/small.json --data.text texts/ --out runs/b --flops 2e15 --optimizer.lr 2e-3",
                "fathom train --resume runs/small"};
  return c;
}

}  // namespace fathom::cli
