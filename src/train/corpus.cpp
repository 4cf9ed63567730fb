#include "train/corpus.h"

#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "data/prepare.h"
#include "model/chat_format.h"
#include "text/bpe_train.h"
#include "train/requirements.h"

namespace fathom::train {
namespace {

data::DocumentOptions document_options(const DataConfig& config) {
  data::DocumentOptions options;
  options.field = config.field;
  options.invalid_utf8 = config.repair_utf8 ? data::InvalidUtf8::repair : data::InvalidUtf8::error;
  return options;
}

int threads_of(const CorpusOptions& options) { return options.threads > 0 ? static_cast<int>(options.threads) : available_threads(); }

void stop_if_asked(const CorpusOptions& options, const char* what) {
  if (options.stop && options.stop()) throw Interrupted(str("stopped while ", what, "; go on with: ", options.resume, " ", options.run));
}

text::Tokenizer make_tokenizer(const DataConfig& config, const CorpusOptions& given) {
  if (!config.tokenizer.empty()) return text::Tokenizer::load(config.tokenizer);
  const std::string path = join_path(given.run, "tokenizer.json");
  if (exists(path)) return text::Tokenizer::load(path);
  data::DocumentStream stream(config.text, document_options(config));
  Progress progress("tokenizer", "B", stream.total_bytes());
  text::BpeTrainOptions options;
  options.vocab_size = config.vocab_size;
  options.threads = threads_of(given);
  options.source = "data.text";
  const auto next = [&](std::string& text) {
    stop_if_asked(given, "the tokenizer was trained");
    progress.update(stream.bytes_read());
    return stream.next(text);
  };
  const text::BpeTrainResult result = text::train_bpe(next, options);
  progress.finish();
  atomic_write(path, result.tokenizer_json);
  return text::Tokenizer::load(path);
}

void prepare(const DataConfig& config, const CorpusOptions& given, const std::string& folder) {
  for (const std::string& path : config.text)
    if (!exists(path))
      throw UserError({"configuration", "data.text", "no file or folder " + path, "text to train on",
                       given.hint});
  data::require_files(data::find_sources(config.text), "data.text is read more than once", "write it to a file first, or prepare it with: fathom data prepare");
  if (given.before_text) given.before_text();
  const text::Tokenizer tokenizer = make_tokenizer(config, given);
  data::PrepareOptions options;
  options.documents = document_options(config);
  options.documents.conversations = given.conversations;
  if (!given.conversations && !config.tokenizer.empty()) options.documents.conversations = model::conversations_beside(config.tokenizer);
  options.validation_share = config.validation_share;
  options.add_bos = given.add_bos, options.add_eos = given.add_eos;
  options.threads = threads_of(given);
  std::unique_ptr<Progress> progress;
  options.progress = [&](int64_t done, int64_t total, int64_t tokens) {
    stop_if_asked(given, "the text was prepared");
    if (!progress) progress = std::make_unique<Progress>("prepare", "B", total, done);
    progress->update(done, human_count(static_cast<double>(tokens)) + " tokens");
  };
  const data::PrepareResult result = data::prepare(config.text, folder, tokenizer, options);
  if (progress) progress->finish();
  log_info("data: ", human_count(static_cast<double>(result.train_tokens)), " tokens to train on, ",
           human_count(static_cast<double>(result.validation_tokens)), " held out");
}

std::string folder_of(const DataConfig& config, const std::string& run, const std::string& folder = "data") { return config.dataset.empty() ? join_path(run, folder) : config.dataset; }

Corpus open(const std::string& folder) {
  std::shared_ptr<const data::Dataset> train = data::Dataset::open(folder, "train");
  text::Tokenizer tokenizer = text::Tokenizer::load(train->tokenizer_path());
  train->require_tokenizer(tokenizer.identity(), "the tokenizer.json in the same folder");
  const std::string fingerprint = hash_bytes(train->manifest().to_json().dump());
  return {train, data::Dataset::open(folder, "validation"), std::move(tokenizer), fingerprint};
}

}  // namespace

Corpus open_corpus(const DataConfig& data, const CorpusOptions& options) {
  const std::string folder = folder_of(data, options.run, options.folder);
  if (data.dataset.empty() && !exists(folder)) prepare(data, options, folder);
  return open(folder);
}

Corpus open_corpus(const TrainConfig& config, const std::string& run, const std::function<bool()>& stop) {
  return open_corpus(config.data, {.run = run, .threads = config.threads, .before_text = [&] { require_before_text(config, join_path(run, "config.json")); }, .stop = stop});
}

Corpus open_prepared(const TrainConfig& config, const std::string& run) {
  const std::string folder = folder_of(config.data, run);
  if (!data::is_dataset(folder))
    throw UserError({folder, "", exists(folder) ? "no dataset" : "no such folder", "the dataset that the run was trained on",
                     config.data.dataset.empty() ? "the checkpoint belongs into RUN/checkpoints, beside the run's own data" : "put it back where it was"});
  return open(folder);
}

}  // namespace fathom::train
