// A program: its commands, and the one way from argv to an exit code.
//   0 done, 1 failure, 2 wrong command line, 130 interrupted by Ctrl-C
#pragma once
#include <string>
#include <vector>

#include "cli/flags.h"

namespace fathom::cli {

inline constexpr int kExitDone = 0, kExitFailure = 1, kExitUsage = 2, kExitInterrupted = 130;

struct Program {
  std::string name;     // "fathom"
  std::string summary;  // one line
  std::string version;
  std::vector<Command> commands;
};

// Finds the command (one or two words), parses, runs it, prints errors to stderr. Handles by itself: --help and
// --version, `help [COMMAND…] [--markdown]`, `version`, `completion bash|zsh`, and a standard output that is closed early.
int run_program(const Program& program, int argc, char** argv);

// Documentation from the table (help.cpp). `width` is where lines are broken; `family` ("tokenizer") shows only the
// commands that begin with this word.
std::string program_help(const Program& program, size_t width = 100, const std::string& family = "");
std::string command_help(const Program& program, const Command& command, size_t width = 100);
std::string markdown_help(const Program& program);

// Shell completion from the table (completion.cpp).
std::string bash_completion(const Program& program);
std::string zsh_completion(const Program& program);

}  // namespace fathom::cli
