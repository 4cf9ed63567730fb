#include "cli/commands.h"
#include "cli/common.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/limits.h"
#include "text/tokenizer.h"

namespace fathom::cli {
namespace {

int run(const Arguments& args) {
  const text::Tokenizer tokenizer = tokenizer_at(args.positional("TOKENIZER"));
  if (args.given("file") && args.given_positional("TEXT"))
    args.wrong("file", "a TEXT as well", "one of the two");
  const std::string text = args.given_positional("TEXT") ? args.positional("TEXT")
                                                         : read_input(args.given("file") ? args.text("file") : "-", limits::kPromptBytes);
  text::EncodeOptions options;
  options.add_special_tokens = args.boolean("add-special");
  options.allow_special = args.boolean("parse-special");
  const std::vector<int32_t> ids = tokenizer.encode(text, options);

  if (args.boolean("json")) {
    Json tokens = Json::array();
    for (const int32_t id : ids) tokens.push_back(tokenizer.token_text(id));
    out_json({{"ids", ids}, {"tokens", tokens}, {"count", ids.size()}, {"bytes", text.size()}});
  } else if (args.boolean("count")) {
    out(str(ids.size(), "\n"));
  } else if (args.boolean("pieces")) {
    for (const int32_t id : ids) out(str(id, "\t", printable(tokenizer.token_bytes(id), 4096), "\n"));
  } else {
    std::string line;
    for (const int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
    out(line + "\n");
  }
  return kExitDone;
}

}  // namespace

Command tokenizer_encode_command() {
  Command c{.name = "tokenizer encode", .summary = "Turn text into token ids"};
  c.positional("TOKENIZER", "a tokenizer.json, a folder that holds one, or a .gguf file");
  c.positionals.push_back({"TEXT", "the text; without it and without --file, standard input", false, false});
  c.flag(path_flag("file", "FILE", "read the text from a file, - for standard input"));
  c.flag(boolean_flag("add-special", "add what the tokenizer puts around a text (<s> …)"));
  c.flag(boolean_flag("parse-special", "read special tokens in the text as such, not as plain text"));
  c.flag(boolean_flag("pieces", "one token a line: id, tab, its bytes"));
  c.flag(boolean_flag("count", "print only how many tokens there are"));
  c.flag(json_flag());
  c.examples = {"fathom tokenizer encode model/ 'Once upon a time'", "fathom tokenizer encode tokenizer.json --file book.txt --count"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
