#include "train/requirements.h"

#include <cstdlib>
#include <cstring>

#include "core/file.h"
#include "core/human.h"
#include "core/limits.h"
#include "model/cost.h"
#include "text/tokenizer.h"
#include "train/finish.h"
#include "train/loader.h"
#include "train/schedule.h"

namespace fathom::train {

void require_memory(const TrainConfig& config, const std::string& where) {
  const std::string text = exists("/proc/meminfo") ? read_file("/proc/meminfo", limits::kConfigBytes) : "";
  const size_t at = text.find("MemAvailable:");
  if (at == std::string::npos) return;
  const double free = 1024 * std::strtod(text.c_str() + at + std::strlen("MemAvailable:"), nullptr);
  const std::string expected = str("at most the ", human_bytes(free), " of memory that are free");
  const double parameters = static_cast<double>(model::parameters(config.model).total()), weights = 16 * parameters;
  if (weights > free)
    throw UserError({where, "model", str(human_count(parameters), " parameters, which take ", human_bytes(weights), " to train"), expected, "train a smaller model"});
  const double tokens = static_cast<double>(config.batch_size * config.sequence_length), C = static_cast<double>(config.model.hidden_size);
  const double full = static_cast<double>(config.model.num_hidden_layers) - static_cast<double>(config.model.routing.units.size());
  const double step = tokens * (3 * sizeof(int32_t) * static_cast<double>(config.accumulation + kReadAhead) + 2 * C * full);
  if (weights + step > free)
    throw UserError({where, "batch_size", str(config.batch_size, " rows of sequence_length ", config.sequence_length, ", which take more than ", human_bytes(step)),
                     expected + (weights > free / 10 ? str(", less ", human_bytes(weights), " of the model") : ""),
                     "lower batch_size (and raise accumulation) or sequence_length"});
}

void require_before_text(const TrainConfig& config, const std::string& where) {
  TrainConfig c = config;
  if (!c.data.tokenizer.empty()) {
    c.model = effective_model(c, text::Tokenizer::load(c.data.tokenizer), {}, where);  // whatever ends the dataset gives its documents
  } else {
    if (c.model.vocab_size == 0) c.model.vocab_size = c.data.vocab_size;
    c.model.validate(where + ": model");
  }
  total_steps(c);
  require_memory(c, where);
}

}  // namespace fathom::train
