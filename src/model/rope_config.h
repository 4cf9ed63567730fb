// Rotary positions in a config.json: "rope_parameters" of transformers 5, "rope_theta" and "rope_scaling" of the releases before.
#pragma once
#include <cstdint>
#include <string>

#include "core/json.h"
#include "model/rope.h"

namespace fathom::model {

struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling;
};

// `fields` is the whole config.json. Both forms may stand together if they say the same. UserError names a type that cannot be
// computed ("dynamic", "longrope" with two lists, …), and what a type lacks.
RopeConfig read_rope(const Fields& fields, int64_t head_dim, int64_t max_position_embeddings);

// The object "rope_parameters", which is also what "rope_scaling" holds of a scaled model.
Json rope_parameters(double theta, const RopeScaling& scaling, int64_t max_position_embeddings);

// What no single number shows; UserError at `where`.
void validate_rope(const RopeScaling& scaling, double theta, int64_t head_dim, const std::string& where);

// "linear, 4 times", for people; "" when nothing is scaled.
std::string describe_rope(const RopeScaling& scaling);

}  // namespace fathom::model
