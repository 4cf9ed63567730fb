// A dense model that has learned a little, what convert makes of it, and runs of tuning that take a second.
#pragma once
#include <string>

#include "convert/surgery.h"
#include "train/helpers.h"
#include "tune/tuner.h"

namespace fathom::tune {

struct Models {
  std::string dense;   // trained on train::corpus() for a while: C 32, L 4
  std::string routed;  // its blocks 1 and 2 with fitted routers and light paths
  std::string statics; // block 1 light for every token
};
const Models& models();  // made once per process
// The dense one converted anew into `to`; with `fit` routers and light paths are fitted and the dial is calibrated.
void convert_dense(const std::string& to, const convert::SurgeryOptions& options, bool fit = true);

// Routers then adapters, 6 + 6 steps of 4 rows of 32 tokens, one thread, f32.
TuneConfig tiny(const std::string& model, const std::vector<What>& stages = {What::routers, What::adapters});

// A run's artifact over the dense model, written to `out`.
void lay_artifact(const std::string& run, const std::string& out);
// Of every token of some held-out rows with every path in full, by the engine.
std::vector<float> full_losses(const std::string& model);

std::string bytes_of(const std::string& path);
// Lines of a stage's metrics without what the clock says.
std::vector<Json> stage_metrics(const std::string& stage);

}  // namespace fathom::tune
