#include "cli/commands.h"
#include "cli/common.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/file.h"
#include "core/human.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/documents.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"

namespace fathom::cli {
namespace {

int run(const Arguments& args) {
  apply_quiet(args);
  catch_interrupts();
  std::string path = args.text("out");
  if (is_folder(path)) path = join_path(path, "tokenizer.json");
  require_place(path);
  refuse_existing(args, "out", path);

  data::DocumentStream stream(args.rest(), document_options(args));

  text::BpeTrainOptions options;
  options.vocab_size = args.integer("vocab-size");
  options.pattern = args.text("pattern") == "gpt2" ? text::WordPattern::gpt2 : text::WordPattern::llama3;
  if (args.given("special")) options.special_tokens = args.texts("special");
  options.min_frequency = args.integer("min-frequency");
  options.threads = threads_of(args);
  options.source = args.rest().size() == 1 ? args.rest()[0] : str(args.rest()[0], " and ", args.rest().size() - 1, " more");
  std::unique_ptr<Progress> bar;
  std::string stage_now;
  options.progress = [&](const std::string& stage, int64_t done, int64_t total) {
    stop_if_interrupted();
    if (args.boolean("quiet")) return;
    if (stage != stage_now) {
      if (bar) bar->finish();
      bar = std::make_unique<Progress>(stage == "count" ? "counting words" : "merging", stage == "count" ? "bytes" : "merges",
                                       stage == "count" ? 0 : total);
      stage_now = stage;
    }
    bar->update(done);
  };
  const auto begin = std::chrono::steady_clock::now();
  const text::BpeTrainResult result = text::train_bpe([&](std::string& text) { return stream.next(text); }, options);
  if (bar) bar->finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  atomic_write(path, result.tokenizer_json);

  if (args.boolean("json")) {
    out_json({{"out", path}, {"vocab_size", result.vocab_size}, {"documents", stream.counts().documents}, {"bytes", result.bytes},
              {"words", result.words}, {"distinct_words", result.distinct_words}, {"seconds", seconds},
              {"identity", text::Tokenizer::from_json(result.tokenizer_json, path).identity()}});
  } else {
    out(str(path, ": ", grouped(result.vocab_size), " tokens from ", human_bytes(static_cast<double>(result.bytes)), " in ",
            grouped(stream.counts().documents), " documents, ", grouped(result.distinct_words), " distinct words, ", human_duration(seconds), "\n"));
  }
  if (result.vocab_size < options.vocab_size)
    log_warning("the text has pairs for ", result.vocab_size, " tokens only, ", options.vocab_size, " were asked for");
  return kExitDone;
}

}  // namespace

Command tokenizer_train_command() {
  Command c{.name = "tokenizer train", .summary = "Train a byte-level BPE tokenizer on text"};
  c.details = "Writes a tokenizer.json that Hugging Face's tokenizers reads with equal ids. The result depends on the text and the flags only.";
  c.positionals.push_back({"FILES", "text files, .jsonl, their .zst or .bz2, or folders of them", true, true});
  c.flag(path_flag("out", "FILE", "the tokenizer.json to write, or a folder to write it into").needed());
  c.flag(integer_flag("vocab-size", "N", "tokens in all, special ones and the 256 bytes included").range(257, 1 << 20).otherwise("4096"));
  c.flag(text_flag("pattern", "NAME", "how text is cut into words").one_of({"llama3", "gpt2"}).otherwise("llama3"));
  c.flag(text_flag("special", "TEXT", "a special token; the first gets id 0").many().noted("<|endoftext|>"));
  c.flag(integer_flag("min-frequency", "N", "pairs seen less often are not merged").range(1, 1 << 30).otherwise("2"));
  c.flag(field_flag()).flag(repair_flag());
  c.flag(boolean_flag("overwrite", "replace an existing file"));
  c.flag(threads_flag()).flag(json_flag()).flag(quiet_flag());
  c.examples = {"fathom tokenizer train books/ --vocab-size 4096 --out tokenizer.json"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
