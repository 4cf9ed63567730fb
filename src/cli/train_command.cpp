#include <cerrno>
#include <cstring>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/train_table.h"
#include "core/file.h"

namespace fathom::cli {
namespace {

// fathom-train is a program of its own because it links LibTorch; this one only finds it and becomes it.
int become(const std::string& command, const Arguments& args) {
  const std::string path = join_path(program_folder(), "fathom-train");
  if (!exists(path))
    throw UserError({"fathom " + command, "", "no fathom-train beside " + join_path(program_folder(), "fathom"), "the training program",
                     "this is the engine alone; build with cmake -DFATHOM_TRAIN=ON (scripts/setup installs LibTorch)"});
  std::vector<std::string> words = {path, command};
  words.insert(words.end(), args.raw().begin(), args.raw().end());
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  out_flush();
  ::execv(path.c_str(), argv.data());
  throw UserError({"fathom " + command, path, std::strerror(errno), "a program that runs", ""});
}

}  // namespace

Command train_command() {
  Command c = train_table();
  c.summary += "; fathom-train export makes a model of a checkpoint";
  c.raw = true;
  c.run = [](const Arguments& args) { return become("train", args); };
  return c;
}

Command tune_command() {
  Command c = tune_table();
  c.raw = true;
  c.run = [](const Arguments& args) { return become("tune", args); };
  return c;
}

}  // namespace fathom::cli
