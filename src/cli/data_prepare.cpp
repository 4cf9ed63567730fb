#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/human.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/prepare.h"

namespace fathom::cli {
namespace {

data::SplitMode split_mode(const std::string& name) {
  if (name == "hash") return data::SplitMode::by_hash;
  if (name == "tail") return data::SplitMode::by_tail;
  return name == "none" ? data::SplitMode::none : data::SplitMode::automatic;
}

int run(const Arguments& args) {
  apply_quiet(args);
  catch_interrupts();
  const text::Tokenizer tokenizer = text::Tokenizer::load(args.text("tokenizer"));
  const std::string& folder = args.text("out");

  data::PrepareOptions options;
  options.documents = document_options(args);
  options.documents.conversations = model::conversations_beside(args.text("tokenizer"));
  options.documents.separator = args.text("separator");
  options.split = split_mode(args.text("split"));
  options.validation_share = args.number("validation-share");
  if (options.validation_share == 0 && (options.split == data::SplitMode::by_hash || options.split == data::SplitMode::by_tail))
    args.wrong("validation-share", "0 with --split " + args.text("split"), "a number above 0", "--split none takes all for training");
  options.add_bos = args.boolean("bos");
  options.add_eos = args.boolean("eos");
  options.shard_tokens = args.integer("shard-tokens");
  options.threads = threads_of(args);
  options.restart = args.boolean("restart");
  std::unique_ptr<Progress> bar;
  options.progress = [&](int64_t done, int64_t total, int64_t tokens) {
    if (interrupted()) throw Interrupted("interrupted; the same command goes on from here, --restart begins anew");
    if (args.boolean("quiet")) return;
    if (!bar) bar = std::make_unique<Progress>("preparing", "bytes", total, done);
    bar->update(done, human_count(static_cast<double>(tokens)) + " tokens");
  };
  const data::PrepareResult r = data::prepare(args.rest(), folder, tokenizer, options);
  if (bar) bar->finish();

  int64_t text_bytes = 0;
  for (const auto* split : {&r.manifest.train, &r.manifest.validation})
    for (const data::ShardInfo& shard : *split) text_bytes += shard.text_bytes;
  const int64_t tokens = r.train_tokens + r.validation_tokens;
  if (args.boolean("json")) {
    const auto split = [](int64_t documents, int64_t t, size_t shards) { return Json{{"documents", documents}, {"tokens", t}, {"shards", shards}}; };
    out_json({{"out", folder}, {"train", split(r.train_documents, r.train_tokens, r.manifest.train.size())},
              {"validation", split(r.validation_documents, r.validation_tokens, r.manifest.validation.size())}, {"text_bytes", text_bytes},
              {"resumed", r.resumed}, {"empty_documents", r.counts.empty}, {"repaired", r.counts.repaired}, {"binary_files", r.counts.binary_files},
              {"tokenizer", tokenizer.identity()}});
    return kExitDone;
  }
  out(text_table({{folder, "documents", "tokens", "shards"},
                  {"  train", grouped(r.train_documents), grouped(r.train_tokens), grouped(static_cast<int64_t>(r.manifest.train.size()))},
                  {"  validation", grouped(r.validation_documents), grouped(r.validation_tokens), grouped(static_cast<int64_t>(r.manifest.validation.size()))}}));
  out(str("  ", human_bytes(static_cast<double>(text_bytes)), " of text, ", fixed(tokens > 0 ? static_cast<double>(text_bytes) / static_cast<double>(tokens) : 0, 2),
          " bytes per token", r.resumed ? "; went on with an interrupted run" : "", "\n"));
  return kExitDone;
}

}  // namespace

Command data_prepare_command() {
  Command c{.name = "data prepare", .summary = "Turn text into token shards for training and evaluation"};
  c.details = "Streams text of any size into a dataset folder: shards that are mapped into memory, document boundaries, and a manifest with hashes "
              "and the tokenizer's identity. Conversations (\"messages\" of a .jsonl line) are read by the chat template beside the tokenizer. An interrupted run goes on when the same command is given again.";
  c.positionals.push_back({"FILES", "text files (a line <|endoftext|> ends a document), .jsonl, their .zst or .bz2, or folders of them", true, true});
  c.flag(path_flag("tokenizer", "FILE", "a tokenizer.json, or a folder that holds one").needed());
  c.flag(path_flag("out", "FOLDER", "the dataset folder to make; must not exist").needed());
  c.group("Documents");
  c.flag(field_flag()).flag(repair_flag());
  c.flag(text_flag("separator", "LINE", "the line between two documents of a text file").otherwise("<|endoftext|>"));
  c.flag(text_flag("split", "HOW", "validation: whole documents by their hash, or the tail of every document; auto takes the tails when documents are few").one_of({"auto", "hash", "tail", "none"}).otherwise("auto"));
  c.flag(number_flag("validation-share", "X", "share of the text for validation; 0 is --split none").range(0, 0.5).otherwise("0.02"));
  c.flag(boolean_flag("bos", "put the tokenizer's begin token before every document").otherwise("true"));
  c.flag(boolean_flag("eos", "put the tokenizer's end token after every document").otherwise("true"));
  c.group("Work");
  c.flag(count_flag("shard-tokens", "N", "a shard is closed after the document that reaches it").range(1, limits::kShardOption).otherwise("16777216"));
  c.flag(boolean_flag("restart", "forget an interrupted run"));
  c.flag(threads_flag()).flag(json_flag()).flag(quiet_flag());
  c.examples = {"fathom data prepare books-train.txt.zst --tokenizer tokenizer.json --out data/books"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
