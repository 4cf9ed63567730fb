#include "study/tasks.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include "core/file.h"
#include "core/json.h"
#include "core/limits.h"
#include "core/utf8.h"
#include "data/byte_source.h"
#include "data/decoders.h"

namespace fathom::study {
namespace {

constexpr std::array<std::pair<const char*, const char*>, 4> kFiles = {
    {{"lambada", "lambada_openai.jsonl"}, {"arc_easy", "arc_easy.jsonl"}, {"piqa", "piqa.jsonl"}, {"hellaswag", "hellaswag_val_full.txt"}}};

enum class Form { continuation, choice, question };

std::string read_all(const std::string& path) {
  if (is_folder(path)) throw UserError({path, "", "a folder", "a task file", "name a file in it"});
  data::ByteSource source(path);
  std::string text;
  for (std::array<char, 1 << 16> chunk; const size_t n = source.read(chunk.data(), chunk.size());) {
    text.append(chunk.data(), n);
    if (std::ssize(text) > limits::kTaskBytes)
      throw UserError({path, "", str("more than ", limits::kTaskBytes, " bytes"), str("at most ", limits::kTaskBytes), "give a part of the task"});
  }
  if (const size_t valid = utf8_valid_length(text); valid < text.size())
    throw UserError({path, str("byte ", valid), "bytes that are not UTF-8", "UTF-8 text", ""});
  return text;
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

Form form_of(const Fields& line) {
  if (line.has("query")) return Form::question;
  if (line.has("choices")) return Form::choice;
  if (line.has("continuation")) return Form::continuation;
  line.missing("choices", "\"choices\" with \"answer\" (or \"query\", \"choices\", \"gold\"), or \"continuation\", beside a \"context\"");
}

TaskItem read_line(const Fields& line, Form form) {
  TaskItem item;
  if (form == Form::continuation) {
    item.context = line.string("context");
    item.choices = {line.string("continuation")};
    if (item.choices[0].empty()) line.wrong("continuation", "an empty text", "what is to follow the context");
    return item;
  }
  const bool question = form == Form::question;
  item.context = line.string(question ? "query" : "context");
  if (question) item.context += item.context.ends_with('\n') ? "Answer:" : "\nAnswer:";
  item.choices = line.strings("choices");
  const int64_t count = std::ssize(item.choices);
  if (count < 2 || count > limits::kTaskChoices) line.wrong("choices", str(count, count == 1 ? " text" : " texts"), str("2 to ", limits::kTaskChoices));
  for (int64_t i = 0; i < count; ++i)
    if (item.choices[static_cast<size_t>(i)].empty()) line.wrong(str("choices[", i, "]"), "an empty text", "a choice to compare with the others");
  item.answer = line.integer(question ? "gold" : "answer", 0, count - 1);
  return item;
}

void read_json_lines(const std::vector<std::string_view>& lines, Task& task) {
  std::optional<Form> form;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = str(task.path, ": line ", i + 1);
    const Json json = parse_json(lines[i], where, {.max_bytes = limits::kTaskBytes});
    const Fields line(json, where);
    const Form found = form_of(line);
    if (form && found != *form) throw UserError({where, "", "an item of another form than those before", "one form in a file", "put them into files of their own"});
    form = found;
    task.items.push_back(read_line(line, found));
  }
  task.continuations = form == Form::continuation;
}

void read_six_lines(const std::vector<std::string_view>& lines, Task& task) {
  constexpr size_t kLines = 6;
  for (size_t i = 0; i < lines.size(); i += kLines) {
    if (lines.size() - i < kLines)
      throw UserError({task.path, str("line ", lines.size()), str("the end of the file after ", lines.size() - i, " of an item's lines"), "six: a context, the answer's index, four choices",
                       "or lines of JSON, which begin with {"});
    const std::string_view answer = lines[i + 1];
    if (answer.size() != 1 || answer[0] < '0' || answer[0] > '3')
      throw UserError({task.path, str("line ", i + 2), "\"" + printable(answer) + "\"", "the answer's index, 0 to 3", "an item has six lines: a context, the answer's index, four choices"});
    TaskItem item{.context = std::string(lines[i]), .choices = {}, .answer = answer[0] - '0'};
    for (size_t c = 2; c < kLines; ++c) {
      if (lines[i + c].empty()) throw UserError({task.path, str("line ", i + c + 1), "an empty line", "a choice", ""});
      item.choices.emplace_back(lines[i + c]);
    }
    task.items.push_back(std::move(item));
  }
}

}  // namespace

Task read_task(const std::string& path, std::string name) {
  Task task{.name = std::move(name), .path = path, .hash = {}, .items = {}};
  if (task.name.empty()) task.name = std::filesystem::path(data::unpacked_name(path)).stem().string();
  const std::string text = read_all(path);
  task.hash = hash_bytes(text);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) throw UserError({path, "", "no item", "at least one", ""});
  (text[first] == '{' ? read_json_lines : read_six_lines)(lines_of(text), task);
  return task;
}

std::vector<std::string> known_tasks() {
  std::vector<std::string> names;
  for (const auto& [name, file] : kFiles) names.emplace_back(name);
  return names;
}

Task read_known_task(const std::string& name, const std::string& folder) {
  const auto known = std::ranges::find_if(kFiles, [&](const auto& entry) { return name == entry.first; });
  FATHOM_ASSERT(known != kFiles.end(), "no task ", name);
  const std::string path = join_path(folder, known->second);
  if (exists(path)) return read_task(path, name);
  for (const std::string_view ending : data::kPackedEndings)
    if (const std::string file = str(path, ending); exists(file)) return read_task(file, name);
  throw UserError({folder, "", str("no ", known->second, " for the task ", name), "the file of the task, or its .zst or .bz2", "docs/formats.md says what task files are"});
}

}  // namespace fathom::study
