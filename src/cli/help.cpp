#include <algorithm>

#include "cli/program.h"

namespace fathom::cli {
namespace {

// Breaks `text` into lines of at most `width` columns; the first continues a line, the others start with `indent`.
std::string wrap(const std::string& text, size_t width, size_t indent) {
  std::string out, word;
  size_t column = indent;
  const auto put = [&] {
    if (word.empty()) return;
    if (column > indent && column + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    word.clear();
  };
  for (const char c : text) {
    if (c == '\n') {
      put();
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (c == ' ') {
      put();
    } else {
      word += c;
    }
  }
  put();
  return out;
}

// What follows the sentence in brackets: the bounds, whether it repeats, the default.
std::string properties(const Flag& f) {
  std::vector<std::string> parts;
  const std::string low = low_text(f), high = high_text(f);
  const bool far = f.most ? *f.most >= 1'000'000'000 : f.high >= 1e9;  // only there to keep a mistake out
  if (f.low > 0 && f.low < kAboveZero) parts.push_back("above 0" + (high.empty() ? "" : ", at most " + high));
  else if (!low.empty() && !high.empty() && !far) parts.push_back(low + " to " + high);
  else if (!low.empty()) parts.push_back("at least " + low);
  if (f.kind == Kind::count) parts.push_back("10k, 1e6, 3M understood");
  if (f.repeated) parts.push_back("may be repeated");
  if (f.required) parts.push_back("required");
  if (!f.note.empty()) parts.push_back("default: " + f.note);
  else if (f.kind == Kind::boolean && f.fallback == "true") parts.push_back("default: on");
  else if (!f.fallback.empty() && f.kind != Kind::boolean) parts.push_back("default: " + f.fallback);
  std::string text;
  for (const std::string& p : parts) text += (text.empty() ? "" : "; ") + p;
  return text;
}

std::string spelled(const Flag& f) {
  if (f.kind == Kind::boolean) return (f.fallback == "true" ? "--[no-]" : "--") + f.name;
  std::string value = f.metavar;
  if (!f.choices.empty()) {
    value.clear();
    for (const std::string& c : f.choices) value += (value.empty() ? "" : "|") + c;
  }
  return "--" + f.name + " " + value;
}

std::string sentence(const Flag& f) {
  const std::string more = properties(f);
  std::string help = f.help;
  if (!help.empty() && help[0] >= 'a' && help[0] <= 'z') help[0] = static_cast<char>(help[0] - 'a' + 'A');
  return help + (more.empty() ? "" : " (" + more + ")");
}

std::string usage(const Program& program, const Command& c) {
  std::string line = program.name + " " + c.name;
  for (const Positional& p : c.positionals) {
    const std::string word = p.name + (p.repeated ? " …" : "");
    line += p.required ? " " + word : " [" + word + "]";
  }
  for (const Flag& f : c.flags)
    if (f.required) line += " " + spelled(f);
  return line + (c.raw || !c.flags.empty() ? " [FLAGS]" : "");
}

std::vector<std::string> groups(const Command& c) {
  std::vector<std::string> names;
  for (const Flag& f : c.flags)
    if (std::find(names.begin(), names.end(), f.group) == names.end()) names.push_back(f.group);
  return names;
}

std::string heading(const std::string& group) { return group.empty() ? "Flags" : group; }

std::string entries(const std::vector<std::pair<std::string, std::string>>& rows, size_t width) {
  size_t left = 0;
  for (const auto& [name, text] : rows) left = std::max(left, std::min<size_t>(name.size(), 26));
  std::string out;
  for (const auto& [name, text] : rows) {
    out += "  " + name;
    if (name.size() > left) out += "\n" + std::string(left + 4, ' ');
    else out += std::string(left + 2 - name.size(), ' ');
    out += wrap(text, width, left + 4) + "\n";
  }
  return out;
}

const std::string kExitCodes = "0 done, 1 failure, 2 wrong command line, 130 interrupted by Ctrl-C";

// In a Markdown table a bar ends the cell.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += "\\|";
    else out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

std::string program_help(const Program& program, size_t width, const std::string& family) {
  width = std::min<size_t>(width, 110);
  std::string text;
  if (family.empty()) text += program.name + " " + program.version + " · " + program.summary + "\n\n";
  text += "Usage: " + program.name + " " + (family.empty() ? "" : family + " ") + "COMMAND [WORDS] [FLAGS]\n\nCommands\n";
  std::vector<std::pair<std::string, std::string>> rows;
  for (const Command& c : program.commands)
    if (!c.hidden && (family.empty() || c.name.starts_with(family + " "))) rows.emplace_back(c.name, c.summary);
  if (family.empty()) {
    rows.emplace_back("help [COMMAND]", "this page, or a command's; --markdown prints all as Markdown");
    rows.emplace_back("version", "the version; also --json");
    rows.emplace_back("completion bash|zsh", "a completion script for the shell");
  }
  text += entries(rows, width);
  text += "\n" + wrap("Flags are long: --flag VALUE, --flag=VALUE, --switch, --no-switch; -- ends them. " + program.name +
                      " COMMAND --help shows a command's own.\nExit codes: " + kExitCodes + ".", width, 0) + "\n";
  return text;
}

std::string command_help(const Program& program, const Command& c, size_t width) {
  width = std::min<size_t>(width, 110);
  std::string text = "Usage: " + usage(program, c) + "\n\n" + wrap(c.summary + ".", width, 0) + "\n";
  if (!c.details.empty()) text += wrap(c.details, width, 0) + "\n";
  std::vector<std::pair<std::string, std::string>> rows;
  for (const Positional& p : c.positionals) rows.emplace_back(p.name, p.help);
  if (!rows.empty()) text += "\n" + entries(rows, width);
  for (const std::string& group : groups(c)) {
    rows.clear();
    for (const Flag& f : c.flags)
      if (f.group == group) rows.emplace_back(spelled(f), sentence(f));
    text += "\n" + heading(group) + "\n" + entries(rows, width);
  }
  if (!c.examples.empty()) {
    text += "\nExamples\n";
    for (const std::string& e : c.examples) text += "  " + e + "\n";
  }
  return text + "\nExit codes: " + kExitCodes + ".\n";
}

std::string markdown_help(const Program& program) {
  std::string text = "# " + program.name + "\n\n" + program.summary + ".\n\nFlags are long: `--flag VALUE`, `--flag=VALUE`, `--switch`, `--no-switch`; `--` ends them. "
                     "Exit codes: " + kExitCodes + ".\n\n| command | what |\n|---|---|\n";
  for (const Command& c : program.commands)
    if (!c.hidden) text += "| `" + c.name + "` | " + cell(c.summary) + " |\n";
  text += "| `help` | help for a command; `--markdown` prints this page |\n| `version` | the version |\n| `completion bash`, `completion zsh` | a completion script |\n";
  for (const Command& c : program.commands) {
    if (c.hidden) continue;
    text += "\n## " + program.name + " " + c.name + "\n\n    " + usage(program, c) + "\n\n" + c.summary + ".\n";
    if (!c.details.empty()) text += "\n" + c.details + "\n";
    if (!c.positionals.empty() || !c.flags.empty()) text += "\n| word | meaning | bounds, default |\n|---|---|---|\n";
    for (const Positional& p : c.positionals) text += "| `" + p.name + "` | " + cell(p.help) + " | " + (p.required ? "required" : "optional") + " |\n";
    for (const Flag& f : c.flags) text += "| `" + cell(spelled(f)) + "` | " + cell(f.help) + " | " + cell(properties(f)) + " |\n";
    if (!c.examples.empty()) text += "\n```\n";
    for (const std::string& e : c.examples) text += e + "\n";
    if (!c.examples.empty()) text += "```\n";
  }
  return text;
}

}  // namespace fathom::cli
