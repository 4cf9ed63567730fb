// The dataset of a run: a prepared folder, or text that is prepared into RUN/data, with a tokenizer that is given or
// trained on that text.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "data/shards.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "train/config.h"

namespace fathom::train {

struct Corpus {
  std::shared_ptr<const data::Dataset> train, validation;
  text::Tokenizer tokenizer;
  std::string fingerprint;  // of the manifest: which tokens in which order
};

struct CorpusOptions {
  std::string run;
  std::string folder = "data";                    // in it, that text is prepared into
  std::string resume = "fathom train --resume";   // what goes on with it once it was stopped
  std::string hint = "give your own: --data.text FILE_OR_FOLDER, or what fathom data prepare made: --data.dataset FOLDER";  // where text is not there
  bool add_bos = true, add_eos = true;            // what is put around the documents of text
  std::optional<text::ConversationFormat> conversations = {};
  int64_t threads = 0;                            // 0: all cores that this process may use
  std::function<void()> before_text = {};         // checks that need no text, before hours may go into preparing it
  std::function<bool()> stop = {};                // asked now and then; true throws Interrupted, and the next call goes on
};
Corpus open_corpus(const DataConfig& data, const CorpusOptions& options);
Corpus open_corpus(const TrainConfig& config, const std::string& run, const std::function<bool()>& stop = {});

// The dataset that open_corpus opened when the run began. Nothing is prepared or written: a run without it is refused.
Corpus open_prepared(const TrainConfig& config, const std::string& run);

}  // namespace fathom::train
