#include <malloc.h>

#include <csignal>

#include "cli/program.h"
#include "cli/train/commands.h"

int main(int argc, char** argv) {
  // A write past RLIMIT_FSIZE is an error of that write (EFBIG), not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  // Activations come and go every step: kept by the allocator instead of being mapped and zeroed by the kernel again.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  using namespace fathom::cli;
  return run_program({"fathom-train", "trains Mixture-of-Depths language models (also reached as `fathom train`)", FATHOM_VERSION,
                      {train_command(), export_command()}},
                     argc, argv);
}
