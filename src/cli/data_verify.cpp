#include "cli/commands.h"
#include "cli/common.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/human.h"
#include "data/shards.h"
#include "text/tokenizer.h"

namespace fathom::cli {
namespace {

int run(const Arguments& args) {
  const std::string& folder = args.positional("FOLDER");
  int64_t shards = 0, bytes = 0, tokens = 0;
  for (const char* split : {"train", "validation"}) {
    const auto dataset = data::Dataset::open(folder, split);
    dataset->require_tokenizer(text::Tokenizer::load(dataset->tokenizer_path()).identity(), "the tokenizer.json in the same folder");
    dataset->verify();
    for (const data::ShardInfo& shard : split == std::string("train") ? dataset->manifest().train : dataset->manifest().validation) {
      ++shards;
      bytes += shard.file_bytes;
    }
    tokens += dataset->tokens();
  }
  if (args.boolean("json")) out_json({{"dataset", folder}, {"shards", shards}, {"bytes", bytes}, {"tokens", tokens}});
  else out(str(folder, ": ", grouped(shards), shards == 1 ? " shard, " : " shards, ", human_bytes(static_cast<double>(bytes)), ", ", grouped(tokens), " tokens, all as the manifest says\n"));
  return kExitDone;
}

}  // namespace

Command data_verify_command() {
  Command c{.name = "data verify", .summary = "Read a dataset whole and compare it with its manifest"};
  c.details = "Training maps shards into memory and checks sizes and every token's range, not their hashes: this does, after a copy or before a long run. "
              "The first file that differs is named, with exit code 1.";
  c.positional("FOLDER", "a folder made by data prepare");
  c.flag(json_flag());
  c.examples = {"fathom data verify data/books"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
