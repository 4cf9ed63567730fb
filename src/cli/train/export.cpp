#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/train/commands.h"
#include "train/trainer.h"

namespace fathom::cli {
namespace {

int run(const Arguments& a) {
  catch_interrupts();
  const Json figures = train::export_checkpoint(a.positional("CHECKPOINT"), a.text("out"), interrupted);
  if (a.boolean("json")) out_json(figures);
  else out(str("wrote ", a.text("out"), "\n"));
  return kExitDone;
}

}  // namespace

Command export_command() {
  Command c;
  c.name = "export";
  c.summary = "Calibrate a checkpoint and write it as a model folder";
  c.details = "For a look at a run before its end, or for the checkpoint of least validation loss.";
  c.positional("CHECKPOINT", "A folder RUN/checkpoints/step-…");
  c.flag(path_flag("out", "MODEL", "The model folder to write").needed());
  c.flag(boolean_flag("json", "Print the figures as JSON"));
  c.examples = {"fathom-train export runs/small/checkpoints/step-000002000 --out model"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
