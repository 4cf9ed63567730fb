// A small corpus with a pattern to learn, and configurations that train on it within a second.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "error_of.h"
#include "train/trainer.h"

namespace fathom::train {

using Overrides = std::vector<std::pair<std::string, std::string>>;

// A dataset folder of about 60,000 tokens (vocabulary 320), made once per process.
const std::string& corpus();

// C 32, L 4, T 32, batch 4; two routed blocks at capacity 0.25 unless `overrides` says otherwise.
TrainConfig tiny(const Overrides& overrides = {});
Json tiny_json();

// Text that is not prepared yet: 60 short documents, of which no two are alike.
void write_text(const std::string& path);

using test::error_of;

// Lines of RUN/metrics.jsonl without what the clock says.
std::vector<Json> metrics_of(const std::string& run);
// Bytes of the state of RUN's last checkpoint: weights, moments, quantiles.
std::string last_state(const std::string& run);

}  // namespace fathom::train
