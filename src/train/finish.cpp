#include "train/finish.h"

#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "model/cost.h"
#include "model/folder.h"
#include "train/evaluate.h"

namespace fathom::train {

model::ModelConfig effective_model(const TrainConfig& config, const text::Tokenizer& tokenizer, const data::Manifest& dataset, const std::string& where) {
  model::ModelConfig m = config.model;
  if (m.vocab_size == 0) m.vocab_size = tokenizer.vocab_size();
  if (m.vocab_size < tokenizer.vocab_size())
    throw UserError({where, "model.vocab_size", str(m.vocab_size), str("at least the tokenizer's ", tokenizer.vocab_size()), "leave it out"});
  if (dataset.bos_id) m.bos_token_id = *dataset.bos_id;
  if (dataset.eos_id) m.eos_token_ids = {*dataset.eos_id};
  m.validate(where + ": model");
  return m;
}

Json finish_model(nn::Transformer& network, const Corpus& corpus, const TrainConfig& config, nn::Compute compute, const std::string& path,
                  const std::function<void()>& check) {
  const model::ModelConfig& model = network.config();
  const bool routed = !model.routing.dense();
  Evaluator evaluator(network, corpus.validation, corpus.tokenizer, config, compute);
  model::ModelToWrite out;
  Json figures = Json::object();
  if (routed) {
    Progress progress("calibrate", "dials", 0);
    out.dial = evaluator.calibrate([&](size_t done, size_t of) {
      progress.update(static_cast<int64_t>(done), str("of ", of));
      if (check) check();
    });
    progress.finish();
    figures["dial"] = out.dial->to_json();
  }
  if (check) check();
  const Evaluation evaluation = evaluator.evaluate(config.interval.final_eval_tokens, out.dial);
  figures.update(evaluation.to_json());

  const int64_t T = config.sequence_length;
  const model::Parameters parameters = model::parameters(model);
  const model::ForwardCost dense = model::dense_cost(model, T, T), cost = routed ? model::topk_cost(model, T, T) : dense;
  figures.update({{"parameters", parameters.total()},
                  {"parameters_without_embedding", parameters.total() - parameters.embedding},
                  {"forward_flops_per_token", cost.flops() / static_cast<double>(T)},
                  {"dense_forward_flops_per_token", dense.flops() / static_cast<double>(T)}});

  out.config = model;
  out.tensor = [&](const model::TensorSpec& spec) { return network.read(spec.name); };
  out.tokenizer_json = corpus.tokenizer.json();
  out.generation.eos_token_ids = model.eos_token_ids;
  out.metadata = {{"format", "pt"}, {"producer", "fathom"}};
  remove_all(path);
  model::write_model_folder(path, out);
  return figures;
}

}  // namespace fathom::train
