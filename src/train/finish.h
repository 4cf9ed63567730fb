// From trained weights to a model folder: calibration of the dial, final figures, files.
#pragma once
#include <functional>
#include <string>

#include "core/json.h"
#include "nn/transformer.h"
#include "train/config.h"
#include "train/corpus.h"

namespace fathom::train {

// The model that a configuration means once its data is known: the tokenizer's vocabulary, and the ids that begin and end
// the dataset's documents, which may lack what the tokenizer has (data prepare --no-bos): who runs the model goes by them.
model::ModelConfig effective_model(const TrainConfig& config, const text::Tokenizer& tokenizer, const data::Manifest& dataset, const std::string& where);

// Calibrates (routed models), evaluates on config.interval.final_eval_tokens, replaces `path` by the model folder and
// returns the figures: {"parameters", "loss", "loss_topk", "bits_per_byte", "dial", …}. `config.model` is the effective one.
// `check` is called between the parts of this and may throw Interrupted; nothing is written then.
Json finish_model(nn::Transformer& network, const Corpus& corpus, const TrainConfig& config, nn::Compute compute, const std::string& path,
                  const std::function<void()>& check = {});

}  // namespace fathom::train
