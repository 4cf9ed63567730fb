#include "cli/program.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "core/json.h"

namespace fathom::cli {
namespace {

// A file opened later must not become descriptor 0, 1 or 2 of a program that was started without them.
void open_standard_files() {
  for (int fd = 0; fd <= 2; ++fd)
    if (::fcntl(fd, F_GETFD) == -1 && ::open("/dev/null", O_RDWR) != fd) return;
}

void complain(const Program& program, const std::string& message) {
  const bool named = message.starts_with(program.name + " ") || message.starts_with(program.name + ":");
  std::fprintf(stderr, "%s%s%s\n", named ? "" : program.name.c_str(), named ? "" : ": ", message.c_str());
}

std::string two_words(const std::vector<std::string>& words) {
  return words.size() > 1 ? words[0] + " " + words[1] : words.empty() ? "" : words[0];
}

const Command* find_command(const Program& program, const std::vector<std::string>& words, size_t& taken) {
  for (const Command& c : program.commands) {
    taken = c.name.find(' ') == std::string::npos ? 1 : 2;
    if (!words.empty() && c.name == (taken == 1 ? words[0] : two_words(words))) return &c;
  }
  return nullptr;
}

bool is_family(const Program& program, const std::string& word) {
  return std::any_of(program.commands.begin(), program.commands.end(), [&](const Command& c) { return c.name.starts_with(word + " "); });
}

[[noreturn]] void no_command(const Program& program, const std::vector<std::string>& words) {
  std::string family;  // the commands of "tokenizer …" when only "tokenizer" was written
  std::vector<std::string> names = {"help", "version", "completion"};
  for (const Command& c : program.commands) {
    if (!c.hidden) names.push_back(c.name);
    if (c.name.starts_with(words[0] + " ")) family += (family.empty() ? "" : ", ") + c.name.substr(words[0].size() + 1);
  }
  if (!family.empty())
    throw UsageError({program.name + " " + words[0], "", words.size() > 1 ? "\"" + printable(words[1]) + "\"" : "no command",
                      "one of " + family, "see " + program.name + " --help"});
  std::string near = nearest(two_words(words), names);
  if (near.empty()) near = nearest(words[0], names);
  throw UsageError({program.name, "", "\"" + printable(words[0]) + "\"", "a command",
                    near.empty() ? "see " + program.name + " --help" : "did you mean " + near + "?"});
}

int show_help(const Program& program, std::vector<std::string> words) {
  const auto markdown = std::find(words.begin(), words.end(), "--markdown");
  if (markdown != words.end()) {
    out(markdown_help(program));
    return kExitDone;
  }
  std::erase(words, "--help");
  size_t taken = 0;
  if (words.empty()) {
    out(program_help(program, terminal_width()));
  } else if (const Command* c = find_command(program, words, taken)) {
    out(command_help(program, *c, terminal_width()));
  } else if (words.size() == 1 && is_family(program, words[0])) {
    out(program_help(program, terminal_width(), words[0]));
  } else {
    no_command(program, words);
  }
  return kExitDone;
}

int show_completion(const Program& program, const std::vector<std::string>& words) {
  const std::string shell = words.empty() ? "" : words[0];
  if (shell == "bash") {
    out(bash_completion(program));
  } else if (shell == "zsh") {
    out(zsh_completion(program));
  } else if (shell == "--help") {
    out(str("Usage: ", program.name, " completion bash|zsh\n\nPrints the completion script of a shell:\n  source <(", program.name,
            " completion bash)\n  ", program.name, " completion zsh > \"${fpath[1]}/_", program.name, "\"\n"));
  } else {
    throw UsageError({program.name + " completion", "", shell.empty() ? "no shell" : "\"" + printable(shell) + "\"", "bash or zsh", ""});
  }
  return kExitDone;
}

int dispatch(const Program& program, std::vector<std::string> words) {
  if (words.empty()) {
    std::fputs(program_help(program).c_str(), stderr);
    return kExitUsage;
  }
  const std::vector<std::string> after(words.begin() + 1, words.end());
  if (words[0] == "--help") return show_help(program, {});
  if (words[0] == "help") return show_help(program, after);
  if (words[0] == "completion") return show_completion(program, after);
  if (words[0] == "version" || words[0] == "--version") {
    if (after == std::vector<std::string>{"--json"}) out_json({{"program", program.name}, {"version", program.version}});
    else out(program.name + " " + program.version + "\n");
    return kExitDone;
  }
  size_t taken = 0;
  const Command* command = find_command(program, words, taken);
  if (!command) {
    if (words.size() == 2 && words[1] == "--help") return show_help(program, {words[0]});
    no_command(program, words);
  }
  words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(taken));
  const auto end = std::find(words.begin(), words.end(), "--");
  if (std::find(words.begin(), end, "--help") != end) {
    out(command_help(program, *command, terminal_width()));
    return kExitDone;
  }
  return command->run(parse_arguments(*command, program.name + " " + command->name, words));
}

}  // namespace

int run_program(const Program& program, int argc, char** argv) {
  open_standard_files();
  std::signal(SIGPIPE, SIG_IGN);
  int code = kExitFailure;
  try {
    try {
      code = dispatch(program, {argv + std::min(argc, 1), argv + argc});
      out_flush();
    } catch (const OutputClosed&) {
      throw;
    } catch (...) {
      out_flush();  // what was written before the failure belongs to the reader
      throw;
    }
  } catch (const OutputClosed&) {
    code = kExitDone;
  } catch (const UsageError& e) {
    complain(program, e.what());
    code = kExitUsage;
  } catch (const UserError& e) {
    complain(program, e.what());
    code = interrupted() ? kExitInterrupted : kExitFailure;  // "cannot open: Interrupted system call"
  } catch (const Interrupted& e) {
    complain(program, e.what());
    code = kExitInterrupted;
  } catch (const std::bad_alloc&) {
    complain(program, "out of memory");
  } catch (const std::exception& e) {
    complain(program, e.what());
  }
  return code;
}

}  // namespace fathom::cli
