#include "infer/speculation.h"

#include "infer/weights.h"
#include "model/cost.h"

namespace fathom::infer {
namespace {

constexpr int64_t kPricedContext = 512;  // tokens before the one that is priced

double bytes_at(const model::ModelFolder& folder, std::optional<double> dial) {
  const model::ModelConfig& config = folder.config();
  const std::vector<double> capacity = folder.dial() ? folder.dial()->at(dial.value_or(folder.dial()->default_dial)).capacity : config.routing.capacities();
  return model::decode_bytes(config, kPricedContext, capacity, weight_bytes(folder)).total();
}

}  // namespace

double draft_cost(const model::ModelFolder& folder, double draft_dial, std::optional<double> dial) { return bytes_at(folder, draft_dial) / bytes_at(folder, dial); }

}  // namespace fathom::infer
