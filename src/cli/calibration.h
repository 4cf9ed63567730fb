// What commands that calibrate a dial share: text to calibrate on and other text to measure on, and the calibration behind its bar.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/flags.h"
#include "convert/calibrate.h"
#include "model/folder.h"
#include "study/held_out.h"

namespace fathom::cli {

void calibration_flags(Command& c);  // --calibrate-on, --calibration-tokens; beside --data, --limit and those of documents

// Windows point into the documents.
struct Texts {
  std::optional<study::HeldOut> data, other;                // to measure on; to calibrate on, where --calibrate-on names it
  std::vector<std::span<const int32_t>> calibration = {};
  std::string calibration_name = {};
  int64_t context = 0;
  convert::CalibrationText to_calibrate() const { return {calibration, calibration_name, context}; }
};

// --data, at most --limit tokens. With `calibrate` text for that too: --calibrate-on, or every second window of --data, and then the others
// are measured on.
Texts load_texts(const Arguments& args, const model::ModelFolder& model, bool calibrate, int64_t context);

routing::DialTable calibrate(const Arguments& args, std::shared_ptr<const infer::Weights> weights, const routing::DialTable& grid, const convert::CalibrationText& text, bool shift = false);

}  // namespace fathom::cli
