#include "cli/bench_peer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/output.h"
#include "core/error.h"
#include "core/human.h"
#include "study/statistics.h"

extern char** environ;

namespace fathom::cli {
namespace {

// Standard output of a program, its standard error passed over.
std::string output_of(const std::vector<std::string>& words) {
  const auto fail = [&](const std::string& what, const std::string& expected) { throw UserError({"--against", printable(words[0], 200), what, expected, ""}); };
  int ends[2];
  if (::pipe(ends) != 0) fail(std::strerror(errno), "a pipe");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  ::posix_spawn_file_actions_addclose(&actions, ends[0]);
  ::posix_spawn_file_actions_addclose(&actions, ends[1]);
  ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", 1 /* O_WRONLY */, 0);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, words[0].c_str(), &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string out;
  char buffer[4096];
  for (ssize_t n; !failed && (n = ::read(ends[0], buffer, sizeof buffer)) != 0;) {
    if (n > 0) out.append(buffer, static_cast<size_t>(n));
    else if (errno != EINTR) break;
  }
  ::close(ends[0]);
  if (failed) fail(std::strerror(failed), "a program that runs");
  int status = 0;
  while (::waitpid(child, &status, 0) == -1 && errno == EINTR) {}
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail(str("exit code ", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)), "0");
  return out;
}

}  // namespace

PeerBench::PeerBench(std::string program, std::string model, const study::BenchWork& work, int threads)
    : program_(std::move(program)), model_(std::move(model)), work_(work), threads_(threads) {}

void PeerBench::turn(int round) {
  if (program_.empty()) return;
  // Decoding behind a filled cache: -d sets it for both tests, so each has a run of its own.
  const auto take = [&](const std::string& name, const std::vector<std::string>& flags) {
    std::vector<std::string> call = {program_, "-m", model_, "-t", str(threads_), "-r", "1", "-o", "json"};
    call.insert(call.end(), flags.begin(), flags.end());
    const Json json = parse_json(output_of(call), program_);
    if (!json.is_array() || json.empty() || !json.back().is_object() || !json.back().contains("avg_ts") || !json.back()["avg_ts"].is_number())
      throw UserError({"--against", printable(program_, 200), "other output than llama-bench's JSON", "an array of objects with \"avg_ts\"", ""});
    if (round < 0) return;
    auto at = std::ranges::find(rates_, name, &Rates::work);
    if (at == rates_.end()) at = rates_.insert(rates_.end(), {name, {}});
    at->tokens_per_second.push_back(json.back()["avg_ts"].get<double>());
  };
  if (work_.prompt > 0) take(str("prompt ", work_.prompt), {"-p", str(work_.prompt), "-n", "0"});
  if (work_.generate > 0) take("generate", {"-p", "0", "-n", str(work_.generate), "-d", str(work_.depth)});
}

Json PeerBench::to_json() const {
  Json out = Json::array();
  for (const Rates& r : rates_) out.push_back({{"work", r.work}, {"tokens_per_second", study::median(r.tokens_per_second)}, {"samples", r.tokens_per_second}});
  return out;
}

std::string PeerBench::table(const std::vector<study::BenchLine>& ours) const {
  std::vector<std::vector<std::string>> rows = {{"  work", "ours tokens/s", "peer tokens/s", "ratio"}};
  for (const Rates& r : rates_)
    for (const study::BenchLine& line : ours) {
      const bool same = line.work == r.work || (r.work == "generate" && line.work.starts_with("generate") && line.work.find("batch") == std::string::npos);
      if (!same) continue;
      const double peer = study::median(r.tokens_per_second);
      rows.push_back({"  " + line.work, fixed(line.tokens_per_second, 1), fixed(peer, 1), fixed(line.tokens_per_second / peer, 2)});
      break;
    }
  return text_table(rows);
}

}  // namespace fathom::cli
