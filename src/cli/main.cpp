#include <csignal>

#include "cli/commands.h"
#include "cli/program.h"

int main(int argc, char** argv) {
  // A write past RLIMIT_FSIZE is an error of that write (EFBIG), not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  using namespace fathom::cli;
  Program program;
  program.name = "fathom";
  program.summary = "train, evaluate and run Mixture-of-Depths language models";
  program.version = FATHOM_VERSION;
  program.commands = {tokenizer_train_command(), tokenizer_encode_command(), tokenizer_decode_command(), data_prepare_command(),
                      data_verify_command(),     train_command(), tune_command(), eval_command(),             generate_command(),
                      chat_command(),            depthmap_command(),        info_command(),             report_command(),
                      sensitivity_command(),     convert_command(),         dial_command(),            quantize_command(),        export_command(),          bench_machine_command(),   bench_command()};
  return run_program(program, argc, argv);
}
