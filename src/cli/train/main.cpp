#include <csignal>

#include "cli/program.h"
#include "cli/train/commands.h"

int main(int argc, char** argv) {
  // A write past RLIMIT_FSIZE is an error of that write (EFBIG), not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  using namespace fathom::cli;
  return run_program({"fathom-train", "trains and tunes Mixture-of-Depths language models (also reached as `fathom train` and `fathom tune`)", FATHOM_VERSION,
                      {train_command(), tune_command(), export_command()}},
                     argc, argv);
}
