#include "cli/bench_peer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <spawn.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/output.h"
#include "core/error.h"
#include "core/human.h"
#include "study/statistics.h"

extern char** environ;

namespace fathom::cli {
namespace {

// The last line of a text that says something.
std::string last_line(const std::string& text) {
  std::istringstream lines(text);
  std::string last;
  for (std::string line; std::getline(lines, line);)
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  return last;
}

// Standard output of a program; where it fails, the last line of its standard error is told.
std::string output_of(const std::vector<std::string>& words) {
  struct Errors {
    int file = ::memfd_create("errors", MFD_CLOEXEC);
    ~Errors() { ::close(file); }
  } errors;
  const auto fail = [&](const std::string& what, const std::string& expected) {
    std::string text(1 << 20, '\0');  // of what it said last
    const off_t size = std::max<off_t>(0, ::lseek(errors.file, 0, SEEK_END));
    text.resize(static_cast<size_t>(std::max<ssize_t>(0, ::pread(errors.file, text.data(), text.size(), std::max<off_t>(0, size - static_cast<off_t>(text.size()))))));
    const std::string said = last_line(text);
    throw UserError({"--against", printable(words[0], 200), what, expected, said.empty() ? "" : "it said: " + printable(said, 300)});
  };
  int ends[2];
  if (::pipe(ends) != 0) fail(std::strerror(errno), "a pipe");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  ::posix_spawn_file_actions_addclose(&actions, ends[0]);
  ::posix_spawn_file_actions_addclose(&actions, ends[1]);
  ::posix_spawn_file_actions_adddup2(&actions, errors.file, 2);
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

void PeerBench::add(int round, const std::string& name, double rate) {
  if (round < 0) return;
  auto at = std::ranges::find(rates_, name, &Rates::work);
  if (at == rates_.end()) at = rates_.insert(rates_.end(), {name, {}});
  at->tokens_per_second.push_back(rate);
}

void PeerBench::turn(int round) {
  if (program_.empty()) return;
  const auto refuse = [](const std::string& program, const std::string& what, const std::string& expected) {
    throw UserError({"--against", printable(program, 200), what, expected, ""});
  };
  // Decoding behind a filled cache: -d sets it for both tests, so each has a run of its own.
  const auto take = [&](const std::string& name, const std::vector<std::string>& flags) {
    std::vector<std::string> call = {program_, "-m", model_, "-t", str(threads_), "-r", "1", "-o", "json"};
    call.insert(call.end(), flags.begin(), flags.end());
    const Json json = parse_json(output_of(call), program_);
    if (!json.is_array() || json.empty() || !json.back().is_object() || !json.back().contains("avg_ts") || !json.back()["avg_ts"].is_number())
      refuse(program_, "other output than llama-bench's JSON", "an array of objects with \"avg_ts\"");
    add(round, name, json.back()["avg_ts"].get<double>());
  };
  if (work_.prompt > 0) take(study::prompt_name(work_), {"-p", str(work_.prompt), "-n", "0"});
  if (work_.generate == 0) return;
  std::string batches;
  for (int64_t batch : work_.batches) {
    if (batch == 1) take(study::decode_name(work_, 1), {"-p", "0", "-n", str(work_.generate), "-d", str(work_.depth)});
    else batches += (batches.empty() ? "" : ",") + str(batch);
  }
  if (batches.empty()) return;
  const std::string beside = std::filesystem::path(program_).replace_filename("llama-batched-bench").string();
  const int64_t most = *std::ranges::max_element(work_.batches), depth = std::max<int64_t>(1, work_.depth);
  const std::string output = output_of({beside, "-m", model_, "-t", str(threads_), "-tb", str(threads_), "-c", str(most * (depth + work_.generate)), "-npp", str(depth), "-ntg",
                                        str(work_.generate), "-npl", batches, "--output-format", "jsonl"});
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("{")) continue;
    const Json json = parse_json(line, beside);
    if (!json.contains("pl") || !json["pl"].is_number_integer() || !json.contains("speed_tg") || !json["speed_tg"].is_number())
      refuse(beside, "other output than llama-batched-bench's lines of JSON", "objects with \"pl\" and \"speed_tg\"");
    add(round, study::decode_name(work_, json["pl"].get<int64_t>()), json["speed_tg"].get<double>());
  }
}

Json PeerBench::to_json() const {
  Json out = Json::array();
  for (const Rates& r : rates_) out.push_back({{"work", r.work}, {"tokens_per_second", study::median(r.tokens_per_second)}, {"samples", r.tokens_per_second}});
  return out;
}

std::string PeerBench::table(const std::vector<study::BenchLine>& ours) const {
  std::vector<std::vector<std::string>> rows = {{"  work", "ours tokens/s", "peer tokens/s", "ratio"}};
  for (const Rates& r : rates_) {
    const auto line = std::ranges::find(ours, r.work, &study::BenchLine::work);  // of the first model at this work
    if (line == ours.end()) continue;
    const double peer = study::median(r.tokens_per_second);
    rows.push_back({"  " + line->work, fixed(line->tokens_per_second, 1), fixed(peer, 1), fixed(line->tokens_per_second / peer, 2)});
  }
  return text_table(rows);
}

}  // namespace fathom::cli
