#include "study/task_progress.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/file.h"
#include "core/kv_type.h"
#include "core/limits.h"

namespace fathom::study {
namespace {

constexpr int64_t kVersion = 1;

// "subjects[1].dial": where two headers differ first; both are of one shape up to there.
std::string first_difference(const Json& a, const Json& b, const std::string& path = "") {
  if (a == b) return "";
  if (a.is_object() && b.is_object())
    for (const auto& [key, value] : a.items()) {
      if (!b.contains(key)) return path + key;
      if (value != b.at(key)) return first_difference(value, b.at(key), path + key + ".");
    }
  if (a.is_array() && b.is_array() && a.size() == b.size())
    for (size_t i = 0; i < a.size(); ++i)
      if (a[i] != b[i]) return first_difference(a[i], b[i], str(path.substr(0, path.size() - 1), "[", i, "]."));
  return path.ends_with('.') ? path.substr(0, path.size() - 1) : path;
}

const Json& at_path(const Json& header, const std::string& path) {
  std::string pointer = "/";
  for (const char c : path) {
    if (c == '.' || c == '[') pointer += '/';
    else if (c != ']') pointer += c;
  }
  static const Json none;
  const Json::json_pointer place(pointer);
  return header.contains(place) ? header.at(place) : none;
}

}  // namespace

Json task_subject_json(const Subject& subject, std::optional<double> dial) {
  const infer::RoutingPolicy policy = policy_of(subject, infer::Rule::causal, dial);
  return {{"fingerprint", subject.folder->fingerprint()}, {"tokenizer", subject.tokenizer->identity()}, {"dial", dial_of(subject, dial)},
          {"rule", name_of(policy.rule, infer::kRuleNames)}, {"thresholds", policy.thresholds}, {"capacity", policy.capacity}, {"seed", policy.seed},
          {"kv_type", name_of(subject.engine->pool().layout().type, kKvTypeNames)}};
}

TaskProgress::TaskProgress(std::string path, const Json& subjects, std::span<const Task> tasks) : path_(std::move(path)) {
  Json header = {{"task_results", kVersion}, {"subjects", subjects}, {"tasks", Json::array()}};
  for (const Task& t : tasks) header["tasks"].push_back({{"name", t.name}, {"hash", t.hash}});
  header = Json::parse(header.dump());  // numbers as the file says them
  if (exists(path_)) read(header, tasks, std::ssize(subjects));
  const bool fresh = !exists(path_) || file_size(path_) == 0;
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw UserError({path_, "", str("cannot open: ", std::strerror(errno)), "a file to keep results in", ""});
  if (fresh) append(header);
}

TaskProgress::~TaskProgress() {
  if (fd_ >= 0) ::close(fd_);
}

void TaskProgress::read(const Json& header, std::span<const Task> tasks, int64_t subjects) {
  const std::string text = read_file(path_, limits::kTaskResultsBytes);
  const size_t whole = text.rfind('\n') + 1;  // npos + 1 is 0
  size_t begin = 0;
  for (int64_t number = 1; begin < whole; ++number) {
    const size_t end = text.find('\n', begin);
    const std::string where = str(path_, ": line ", number);
    const std::string foreign = "name another file, or delete this one to begin anew";
    const Json line = parse_json(std::string_view(text).substr(begin, end - begin), where);
    begin = end + 1;
    if (number == 1) {
      if (!line.is_object() || !line.contains("task_results")) throw UserError({where, "", describe(line), "results of tasks that an evaluation left", foreign});
      if (const std::string other = first_difference(header, line); !other.empty())
        throw UserError({path_, other, printable(at_path(line, other).dump()), printable(at_path(header, other).dump()) + ", as it is now", "these are results of something else; " + foreign});
      continue;
    }
    const Fields f(line, where);
    const size_t subject = static_cast<size_t>(f.integer("subject", 0, subjects - 1)), task = static_cast<size_t>(f.integer("task", 0, std::ssize(tasks) - 1));
    const int64_t item = f.integer("item", 0, INT64_MAX), items = std::ssize(tasks[task].items);
    if (item >= items) continue;  // of a run without a limit, or with a greater one
    known_[{subject, task, static_cast<size_t>(item)}] =
        ItemResult::from_json(f.raw("result"), where, std::ssize(tasks[task].items[static_cast<size_t>(item)].choices));
  }
  std::error_code error;
  if (whole < text.size()) std::filesystem::resize_file(path_, whole, error);
  if (error) throw UserError({path_, "", str("cannot cut off a half line: ", error.message()), "", ""});
}

const ItemResult* TaskProgress::known(size_t subject, size_t task, size_t item) const {
  const auto found = known_.find({subject, task, item});
  return found == known_.end() ? nullptr : &found->second;
}

int64_t TaskProgress::known(size_t subject, size_t task) const {
  return std::distance(known_.lower_bound({subject, task, 0}), known_.lower_bound({subject, task + 1, 0}));
}

void TaskProgress::add(size_t subject, size_t task, size_t item, const ItemResult& result) {
  append({{"subject", subject}, {"task", task}, {"item", item}, {"result", result.to_json()}});
}

void TaskProgress::append(const Json& line) {
  const std::string text = line.dump() + "\n";
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw UserError({path_, "", str("cannot write: ", std::strerror(errno)), "", "free some space and give the same command again"});
    done += static_cast<size_t>(n);
  }
}

}  // namespace fathom::study
