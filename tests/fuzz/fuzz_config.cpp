// libFuzzer target: config.json, fathom_dial.json, fathom_curve.json and generation_config.json. Any bytes end in a value or a UserError;
// a value comes back equal through its own JSON, and what is computed from sizes alone does not overflow.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "model/cost.h"
#include "model/curve.h"
#include "model/folder.h"

namespace {

using namespace fathom;

template <class Call>
void or_user_error(Call call) {
  try {
    call();
  } catch (const UserError&) {
  }
}

void try_config(const Json& json) {
  model::ModelConfig config = model::ModelConfig::from_json(json, "fuzz");
  if (config.routing.dense()) config.routing = {};  // settings of no block are not written
  FATHOM_ASSERT(model::ModelConfig::from_json(config.to_json(), "again") == config, config.to_json().dump());
  int64_t elements = 0;
  for (const model::TensorSpec& spec : model::schema(config)) elements += spec.elements();
  FATHOM_ASSERT(elements > 0 && model::parameters(config).total() == elements, config.to_json().dump());
  or_user_error([&] { model::topk_cost(config, config.max_position_embeddings, 1); });
  FATHOM_ASSERT(model::decode_bytes(config, config.max_position_embeddings, {}).total() > 0);
  or_user_error([&] { model::GenerationConfig::from_json(json, "fuzz", config).to_json(config); });
}

void try_dial(const Json& json, size_t cuts) {
  const routing::DialTable table = routing::DialTable::from_json(json, "fuzz", cuts);
  const Json written = table.to_json();
  FATHOM_ASSERT(routing::DialTable::from_json(written, "again", cuts).to_json() == written, written.dump());
  for (double dial : {1e-9, 0.3, table.default_dial, 1.0}) FATHOM_ASSERT(table.at(dial).thresholds.size() == cuts);
}

void try_curve(const Json& json) {
  const Json written = model::DialCurve::from_json(json, "fuzz").to_json();
  FATHOM_ASSERT(model::DialCurve::from_json(written, "again").to_json() == written, written.dump());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  or_user_error([&] {
    const Json json = parse_json(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    or_user_error([&] { try_config(json); });
    or_user_error([&] { try_curve(json); });
    for (size_t cuts : {0, 1, 2}) or_user_error([&] { try_dial(json, cuts); });
  });
  return 0;
}
