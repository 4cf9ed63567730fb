#include "train/corpus.h"

#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "data/prepare.h"
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

text::Tokenizer make_tokenizer(const TrainConfig& config, const std::string& run, const std::function<bool()>& stop, int threads) {
  if (!config.data.tokenizer.empty()) return text::Tokenizer::load(config.data.tokenizer);
  const std::string path = join_path(run, "tokenizer.json");
  if (exists(path)) return text::Tokenizer::load(path);
  data::DocumentStream stream(config.data.text, document_options(config.data));
  Progress progress("tokenizer", "B", stream.total_bytes());
  text::BpeTrainOptions options;
  options.vocab_size = config.data.vocab_size;
  options.threads = threads;
  options.source = "data.text";
  const auto next = [&](std::string& text) {
    if (stop && stop()) throw Interrupted(str("stopped while the tokenizer was trained; go on with: fathom train --resume ", run));
    progress.update(stream.bytes_read());
    return stream.next(text);
  };
  const text::BpeTrainResult result = text::train_bpe(next, options);
  progress.finish();
  atomic_write(path, result.tokenizer_json);
  return text::Tokenizer::load(path);
}

void prepare(const TrainConfig& config, const std::string& run, const std::string& folder, const std::function<bool()>& stop) {
  for (const std::string& path : config.data.text)
    if (!exists(path))
      throw UserError({"configuration", "data.text", "no file or folder " + path, "text to train on",
                       "give your own: --data.text FILE_OR_FOLDER, or what fathom data prepare made: --data.dataset FOLDER"});
  data::require_files(data::find_sources(config.data.text), "data.text is read more than once", "write it to a file first, or prepare it with: fathom data prepare");
  require_before_text(config, join_path(run, "config.json"));
  const int threads = config.threads > 0 ? static_cast<int>(config.threads) : available_threads();
  const text::Tokenizer tokenizer = make_tokenizer(config, run, stop, threads);
  data::PrepareOptions options;
  options.documents = document_options(config.data);
  options.validation_share = config.data.validation_share;
  options.threads = threads;
  std::unique_ptr<Progress> progress;
  options.progress = [&](int64_t done, int64_t total, int64_t tokens) {
    if (stop && stop()) throw Interrupted(str("stopped while the text was prepared; go on with: fathom train --resume ", run));
    if (!progress) progress = std::make_unique<Progress>("prepare", "B", total, done);
    progress->update(done, human_count(static_cast<double>(tokens)) + " tokens");
  };
  const data::PrepareResult result = data::prepare(config.data.text, folder, tokenizer, options);
  if (progress) progress->finish();
  log_info("data: ", human_count(static_cast<double>(result.train_tokens)), " tokens to train on, ",
           human_count(static_cast<double>(result.validation_tokens)), " held out");
}

std::string folder_of(const TrainConfig& config, const std::string& run) {
  return config.data.dataset.empty() ? join_path(run, "data") : config.data.dataset;
}

Corpus open(const std::string& folder) {
  std::shared_ptr<const data::Dataset> train = data::Dataset::open(folder, "train");
  text::Tokenizer tokenizer = text::Tokenizer::load(train->tokenizer_path());
  train->require_tokenizer(tokenizer.identity(), "the tokenizer.json in the same folder");
  const std::string fingerprint = hash_bytes(train->manifest().to_json().dump());
  return {train, data::Dataset::open(folder, "validation"), std::move(tokenizer), fingerprint};
}

}  // namespace

Corpus open_corpus(const TrainConfig& config, const std::string& run, const std::function<bool()>& stop) {
  const std::string folder = folder_of(config, run);
  if (config.data.dataset.empty() && !exists(folder)) prepare(config, run, folder, stop);
  return open(folder);
}

Corpus open_prepared(const TrainConfig& config, const std::string& run) {
  const std::string folder = folder_of(config, run);
  if (!data::is_dataset(folder))
    throw UserError({folder, "", exists(folder) ? "no dataset" : "no such folder", "the dataset that the run was trained on",
                     config.data.dataset.empty() ? "the checkpoint belongs into RUN/checkpoints, beside the run's own data" : "put it back where it was"});
  return open(folder);
}

}  // namespace fathom::train
