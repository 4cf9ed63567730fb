// From tuned tensors to what a run leaves behind: the artifact, and the model folder with its dial calibrated by the engine.
#pragma once
#include <functional>
#include <limits>
#include <string>

#include "core/json.h"
#include "tune/stage.h"

namespace fathom::tune {

struct Finished {
  std::string model, artifact;  // folders; no artifact where the whole model was tuned, or its other weights are not the teacher's
  Json dial;                    // the table's points; null where nothing decides
  double dense_loss = std::numeric_limits<double>::quiet_NaN();  // the teacher's, nats per token of the text that the dial was calibrated on; NaN without either
  double bytes = 0, dense_bytes = 0;  // of the tensors, the model's and the teacher's (0 without one)
};

// The type of changed matrices in the result. UserError where config.type is none.
formats::GgmlType changed_type(const TuneConfig& config, const model::ModelFolder& student);

// Whether the student's weights are the teacher's to the bit, all but those that it has beside them and those that `tuned` replaces: then what was tuned can be laid over the
// teacher.
bool rests_on(const model::ModelFolder& teacher, const model::ModelFolder& student, const convert::Tuned& tuned);

// `tuned`: of all stages, in order. `shares`: of the cuts at the default dial. `recipe`: into
// the artifact. Replaces what an earlier try left.
Finished finish(const Shared& shared, const std::vector<convert::Tuned>& tuned, const std::vector<double>& shares, const Json& recipe);

}  // namespace fathom::tune
