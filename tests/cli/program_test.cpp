// Help, Markdown and completion of a small program, to the letter; tables, JSON, colours.
#include "cli/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/common.h"
#include "cli/depth_colours.h"
#include "cli/output.h"

namespace fathom::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

Program sample() {
  Command boil{.name = "boil", .summary = "Boil water"};
  boil.positional("POT", "what to boil it in");
  boil.flag(number_flag("degrees", "X", "how hot").range(0, 100).otherwise("100"));
  boil.flag(number_flag("share", "X", "how much of it").range(1e-6, 1).noted("all"));
  boil.flag(text_flag("fuel", "FUEL", "what burns").one_of({"gas", "wood"}).otherwise("gas"));
  boil.group("Noise");
  boil.flag(boolean_flag("whistle", "whistle at the end").otherwise("true"));
  boil.flag(path_flag("log", "FILE", "where to write").many());
  boil.examples = {"kitchen boil pot --degrees 80"};
  boil.run = [](const Arguments&) { return kExitDone; };
  Command in{.name = "tea make", .summary = "Make tea"};
  Command out{.name = "tea pour", .summary = "Pour tea"};
  Command hidden{.name = "secret", .summary = "Not shown"};
  hidden.hidden = true;
  return {"kitchen", "cooks", "1.2.3", {boil, in, out, hidden}};
}

TEST(Help, OfACommand) {
  EXPECT_EQ(command_help(sample(), sample().commands[0], 80),
            "Usage: kitchen boil POT [FLAGS]\n"
            "\n"
            "Boil water.\n"
            "\n"
            "  POT  what to boil it in\n"
            "\n"
            "Flags\n"
            "  --degrees X      How hot (0 to 100; default: 100)\n"
            "  --share X        How much of it (above 0, at most 1; default: all)\n"
            "  --fuel gas|wood  What burns (default: gas)\n"
            "\n"
            "Noise\n"
            "  --[no-]whistle  Whistle at the end (default: on)\n"
            "  --log FILE      Where to write (may be repeated)\n"
            "\n"
            "Examples\n"
            "  kitchen boil pot --degrees 80\n"
            "\n"
            "Exit codes: 0 done, 1 failure, 2 wrong command line, 130 interrupted by Ctrl-C.\n");
}

TEST(Help, OfTheProgramAndOfAFamily) {
  const std::string all = program_help(sample(), 80), tea = program_help(sample(), 80, "tea");
  EXPECT_THAT(all, HasSubstr("kitchen 1.2.3 · cooks\n"));
  EXPECT_THAT(all, HasSubstr("  boil                 Boil water\n"));
  EXPECT_THAT(all, Not(HasSubstr("secret")));
  EXPECT_THAT(tea, HasSubstr("  tea make  Make tea\n  tea pour  Pour tea\n"));
  EXPECT_THAT(tea, Not(HasSubstr("boil")));
}

TEST(Help, LinesAreBroken) {
  Program p = sample();
  p.commands[0].flags[0].help = "a sentence that is long enough to need a second line when the terminal is narrow, and even a third";
  const std::string text = command_help(p, p.commands[0], 60);
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, text.substr(begin, 10) == "Exit codes" ? 100u : 60u) << text.substr(begin, end - begin);
    begin = end + 1;
  }
  EXPECT_THAT(text, HasSubstr("\n                   second line"));
}

TEST(Help, Markdown) {
  const std::string text = markdown_help(sample());
  EXPECT_THAT(text, HasSubstr("| `boil` | Boil water |\n"));
  EXPECT_THAT(text, HasSubstr("## kitchen boil\n\n    kitchen boil POT [FLAGS]\n"));
  EXPECT_THAT(text, HasSubstr("| `--fuel gas\\|wood` | what burns | default: gas |\n"));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

TEST(Completion, Bash) {
  EXPECT_EQ(bash_completion(sample()),
            R"(# Completion of kitchen for bash: source <(kitchen completion bash)
_kitchen() {
  local word="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}" flags=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "boil tea help version completion" -- "$word"))
    return
  fi
  case "$command" in
    tea)
      if [ "$COMP_CWORD" -eq 2 ] && [[ "$word" != -* ]]; then
        COMPREPLY=($(compgen -W "make pour" -- "$word"))
        return
      fi
      case "${COMP_WORDS[2]}" in make|pour) command="tea ${COMP_WORDS[2]}" ;; esac
      ;;
    help)
      if [ "$COMP_CWORD" -eq 2 ] && [[ "$word" != -* ]]; then
        COMPREPLY=($(compgen -W "boil tea help version completion" -- "$word"))
        return
      fi
      case "${COMP_WORDS[2]}" in boil|tea|help|version|completion) command="help ${COMP_WORDS[2]}" ;; esac
      ;;
    completion)
      if [ "$COMP_CWORD" -eq 2 ] && [[ "$word" != -* ]]; then
        COMPREPLY=($(compgen -W "bash zsh" -- "$word"))
        return
      fi
      case "${COMP_WORDS[2]}" in bash|zsh) command="completion ${COMP_WORDS[2]}" ;; esac
      ;;
  esac
  case "$command:$previous" in
    "boil:--fuel") COMPREPLY=($(compgen -W "gas wood" -- "$word")); return ;;
  esac
  case "$command" in
    "boil") flags="--degrees --share --fuel --no-whistle --log --help" ;;
    "tea make") flags="--help" ;;
    "tea pour") flags="--help" ;;
  esac
  if [[ "$word" == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  fi
}
complete -o default -F _kitchen kitchen
)");
}

TEST(Completion, Zsh) {
  const std::string text = zsh_completion(sample());
  EXPECT_THAT(text, HasSubstr("#compdef kitchen\n"));
  EXPECT_THAT(text, HasSubstr("'--fuel[what burns]:fuel:(gas wood)'"));
  EXPECT_THAT(text, HasSubstr("'*--log[where to write]:FILE:_files'"));
  EXPECT_THAT(text, HasSubstr("'--no-whistle[whistle at the end]'"));
  EXPECT_THAT(text, HasSubstr("compadd make pour"));
}

struct Ran {
  int code;
  std::string out, err;
};

Ran run(std::vector<std::string> words, const Program& program = sample()) {
  words.insert(words.begin(), program.name);
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = run_program(program, static_cast<int>(argv.size()), argv.data());
  return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

TEST(Run, ExitCodesFollowTheKindOfFailure) {
  Program p = sample();
  EXPECT_EQ(run({"boil", "pot"}, p).code, 0);
  EXPECT_EQ(run({"boil"}, p).code, 2);
  EXPECT_EQ(run({"boil"}, p).err, "kitchen boil: POT: found nothing, expected what to boil it in; see kitchen boil --help\n");
  const auto with = [&](std::function<int(const Arguments&)> body) {
    p.commands[0].run = std::move(body);
    return run({"boil", "pot"}, p);
  };
  EXPECT_EQ(with([](const Arguments&) -> int { throw UserError("no water"); }).code, 1);
  EXPECT_EQ(with([](const Arguments&) -> int { throw UserError("no water"); }).err, "kitchen: no water\n");
  EXPECT_EQ(with([](const Arguments&) -> int { throw UsageError("no pot"); }).code, 2);
  EXPECT_EQ(with([](const Arguments&) -> int { throw Interrupted("stopped"); }).code, 130);
  EXPECT_EQ(with([](const Arguments&) -> int { throw std::bad_alloc(); }).err, "kitchen: out of memory\n");
  EXPECT_EQ(with([](const Arguments&) -> int { throw std::logic_error("internal error at x"); }).code, 1);
  EXPECT_EQ(with([](const Arguments&) { return 42; }).code, 42);
  const Ran half = with([](const Arguments&) -> int {
    out("half of it\n");
    throw UserError("then it failed");
  });
  EXPECT_EQ(half.code, 1);
  EXPECT_EQ(half.out, "half of it\n");
}

TEST(Run, HelpIsFoundAmongTheFlagsButNotBehindThem) {
  EXPECT_THAT(run({"boil", "--degrees", "5", "--help"}).out, HasSubstr("Usage: kitchen boil"));
  EXPECT_EQ(run({"boil", "--", "--help"}).code, 0);
  EXPECT_EQ(run({"boil", "--", "--help"}).out, "");
  EXPECT_EQ(run({"secret", "--help"}).code, 0);
}

TEST(Output, JsonKeepsListsOfPlainValuesOnALine) {
  testing::internal::CaptureStdout();
  out_json({{"ids", {1, 2, 3}}, {"nested", {{{"a", Json::array()}}, {{"b", {{"c", nullptr}}}}}}, {"text", "x\xff"}});
  out_flush();
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_EQ(text,
            "{\n  \"ids\": [1,2,3],\n  \"nested\": [\n    {\n      \"a\": []\n    },\n    {\n      \"b\": {\n        \"c\": null\n      }\n    }\n  ],\n"
            "  \"text\": \"x\xef\xbf\xbd\"\n}\n");
}

TEST(Output, TablesAreAlignedByCharacters) {
  EXPECT_EQ(text_table({{"", "first", "x"}, {"größe", "1", "22"}, {"n", "–"}}), "       first   x\ngröße      1  22\nn          –\n");
  EXPECT_EQ(text_table({{"a", "\x1b[1mbold\x1b[0m"}, {"b", "longer one"}}), "a        \x1b[1mbold\x1b[0m\nb  longer one\n");
}

TEST(DepthColours, TheDeepestIsDarkAndLinesEndUncoloured) {
  const DepthRange range{2, 8};
  EXPECT_EQ(in_depth_colour("a", 2, range), "a");
  EXPECT_EQ(in_depth_colour("a", 8, range), "\x1b[48;5;18;38;5;231ma\x1b[0m");
  EXPECT_EQ(in_depth_colour("a\nb", 8, range), "\x1b[48;5;18;38;5;231ma\x1b[0m\n\x1b[48;5;18;38;5;231mb\x1b[0m");
  EXPECT_EQ(in_depth_colour("\n", 8, range), "\n");
  EXPECT_EQ(in_depth_colour("a", 4, {4, 4}), "a");
}

TEST(DepthColours, NothingSteersTheTerminal) {
  EXPECT_EQ(terminal_safe("a\tb\n"), "a\tb\n");
  EXPECT_EQ(terminal_safe("\x1b[2J"), "␛[2J");
  EXPECT_EQ(terminal_safe("\r\x7f"), "␍␡");
  EXPECT_EQ(terminal_safe("\xc2\x9b" "2J"), "\xef\xbf\xbd" "2J");  // C1: the one-character form of ESC [
  EXPECT_EQ(terminal_safe("\xff"), "\xef\xbf\xbd");
}

}  // namespace
}  // namespace fathom::cli
