#include <algorithm>

#include "cli/program.h"

namespace fathom::cli {
namespace {

// The names that can stand on the command line: "name", and "no-name" for a switch that is on by default.
std::string spelled(const Flag& f) { return "--" + (f.kind == Kind::boolean && f.fallback == "true" ? "no-" + f.name : f.name); }

std::string joined(const std::vector<std::string>& words, const std::string& separator = " ") {
  std::string text;
  for (const std::string& w : words) text += (text.empty() ? "" : separator) + w;
  return text;
}

std::vector<std::string> first_words(const Program& program) {
  std::vector<std::string> words;
  for (const Command& c : program.commands) {
    if (c.hidden) continue;
    const std::string first = c.name.substr(0, c.name.find(' '));
    if (std::find(words.begin(), words.end(), first) == words.end()) words.push_back(first);
  }
  for (const char* own : {"help", "version", "completion"}) words.push_back(own);
  return words;
}

std::vector<std::string> second_words(const Program& program, const std::string& first) {
  std::vector<std::string> words;
  for (const Command& c : program.commands)
    if (!c.hidden && c.name.starts_with(first + " ")) words.push_back(c.name.substr(first.size() + 1));
  return words;
}

// For zsh: 'text' in single quotes, with the characters that _arguments reads for itself taken out.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') out += "'\\''";
    else if (c == '[' || c == ']' || c == ':') out += ' ';
    else out += c;
  }
  return out;
}

std::string zsh_value(const Flag& f) {
  if (!f.choices.empty()) return ":" + f.name + ":(" + joined(f.choices) + ")";
  return ":" + zsh_text(f.metavar) + ":" + (f.kind == Kind::path ? "_files" : "");
}

}  // namespace

std::string bash_completion(const Program& program) {
  const std::string& p = program.name;
  std::string function = "_" + p;
  std::replace(function.begin(), function.end(), '-', '_');
  std::string text = "# Completion of " + p + " for bash: source <(" + p + " completion bash)\n" + function + "() {\n"
                     "  local word=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\" command=\"${COMP_WORDS[1]}\" flags=\"\"\n"
                     "  COMPREPLY=()\n"
                     "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                     "    COMPREPLY=($(compgen -W \"" + joined(first_words(program)) + "\" -- \"$word\"))\n    return\n  fi\n"
                     "  case \"$command\" in\n";
  for (const std::string& first : first_words(program)) {
    std::vector<std::string> second = second_words(program, first);
    if (first == "completion") second = {"bash", "zsh"};
    if (first == "help") second = first_words(program);
    if (second.empty()) continue;
    // "bench" is a command of its own beside "bench machine": its flags may stand where a second word could.
    text += "    " + first + ")\n      if [ \"$COMP_CWORD\" -eq 2 ] && [[ \"$word\" != -* ]]; then\n        COMPREPLY=($(compgen -W \"" + joined(second) +
            "\" -- \"$word\"))\n        return\n      fi\n      case \"${COMP_WORDS[2]}\" in " + joined(second, "|") + ") command=\"" + first + " ${COMP_WORDS[2]}\" ;; esac\n      ;;\n";
  }
  text += "  esac\n  case \"$command:$previous\" in\n";
  for (const Command& c : program.commands)
    for (const Flag& f : c.flags)
      if (!c.hidden && !f.choices.empty())
        text += "    \"" + c.name + ":--" + f.name + "\") COMPREPLY=($(compgen -W \"" + joined(f.choices) + "\" -- \"$word\")); return ;;\n";
  text += "  esac\n  case \"$command\" in\n";
  for (const Command& c : program.commands) {
    if (c.hidden) continue;
    std::vector<std::string> flags;
    for (const Flag& f : c.flags) flags.push_back(spelled(f));
    flags.push_back("--help");
    text += "    \"" + c.name + "\") flags=\"" + joined(flags) + "\" ;;\n";
  }
  text += "  esac\n"
          "  if [[ \"$word\" == -* ]]; then\n    COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))\n  fi\n}\n"
          // File names are readline's own work: it knows how the word is quoted so far, and quotes what it adds.
          "complete -o default -F " + function + " " + p + "\n";
  return text;
}

std::string zsh_completion(const Program& program) {
  const std::string& p = program.name;
  std::string function = "_" + p;
  std::replace(function.begin(), function.end(), '-', '_');
  std::string text = "#compdef " + p + "\n# Completion of " + p + " for zsh: " + p + " completion zsh > \"${fpath[1]}/_" + p + "\"\n" + function +
                     "() {\n  local command=\"$words[2]\"\n  if (( CURRENT == 2 )); then\n    local -a commands=(\n";
  for (const std::string& first : first_words(program)) {
    std::string summary;
    for (const Command& c : program.commands)
      if (c.name == first) summary = c.summary;
    if (const auto second = second_words(program, first); !second.empty()) summary = joined(second, ", ");
    text += "      '" + first + (summary.empty() ? "" : ":" + zsh_text(summary)) + "'\n";
  }
  text += "    )\n    _describe command commands\n    return\n  fi\n  case \"$command\" in\n";
  for (const std::string& first : first_words(program)) {
    std::vector<std::string> second = second_words(program, first);
    if (first == "completion") second = {"bash", "zsh"};
    if (first == "help") second = first_words(program);
    if (second.empty()) continue;
    text += "    " + first + ")\n      if (( CURRENT == 3 )) && [[ \"$words[3]\" != -* ]]; then\n        compadd " + joined(second) + "\n        return\n      fi\n"
            "      case \"$words[3]\" in " + joined(second, "|") + ") command=\"" + first + " $words[3]\" ;; esac\n      ;;\n";
  }
  text += "  esac\n  case \"$command\" in\n";
  for (const Command& c : program.commands) {
    if (c.hidden) continue;
    text += "    '" + c.name + "')\n      _arguments";
    for (const Flag& f : c.flags)
      text += " \\\n        '" + std::string(f.repeated ? "*" : "") + spelled(f) + "[" + zsh_text(f.help) + "]" +
              (f.kind == Kind::boolean ? "" : zsh_value(f)) + "'";
    text += " \\\n        '--help[what the command does]' '*:file:_files'\n      ;;\n";
  }
  text += "  esac\n}\n"
          "if [ \"$funcstack[1]\" = \"" + function + "\" ]; then " + function + " \"$@\"; else compdef " + function + " " + p + "; fi\n";
  return text;
}

}  // namespace fathom::cli
