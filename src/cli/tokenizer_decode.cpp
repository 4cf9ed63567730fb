#include <sstream>

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
  std::vector<std::string> words = args.rest();
  if (words.empty() || words == std::vector<std::string>{"-"}) {
    words.clear();
    std::istringstream input(read_input("-", limits::kPromptBytes));
    for (std::string word; input >> word;) words.push_back(word);
  }
  std::vector<int32_t> ids;
  for (const std::string& word : words) {
    const auto id = parse_integer(word, false);
    if (!id || *id < 0 || *id >= tokenizer.vocab_size())
      throw UserError({"fathom tokenizer decode", "IDS", "\"" + printable(word) + "\"", str("a token id from 0 to ", tokenizer.vocab_size() - 1), ""});
    ids.push_back(static_cast<int32_t>(*id));
  }
  const std::string text = tokenizer.decode(ids, !args.boolean("keep-special"));
  if (args.boolean("json")) out_json({{"text", text}, {"count", ids.size()}});
  else out(text + (args.boolean("newline") ? "\n" : ""));
  return kExitDone;
}

}  // namespace

Command tokenizer_decode_command() {
  Command c{.name = "tokenizer decode", .summary = "Turn token ids into text"};
  c.positional("TOKENIZER", "a tokenizer.json, a folder that holds one, or a .gguf file");
  c.positionals.push_back({"IDS", "token ids; without them, or for -, standard input", false, true});
  c.flag(boolean_flag("keep-special", "print special tokens too"));
  c.flag(boolean_flag("newline", "end the output with a new line").otherwise("true"));
  c.flag(json_flag());
  c.examples = {"fathom tokenizer decode model/ 15 27 1043"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
