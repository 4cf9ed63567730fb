// What `fathom convert` makes or made, as text and as JSON.
#pragma once
#include <optional>
#include <string>

#include "convert/surgery.h"
#include "core/json.h"

namespace fathom::cli {

struct ConvertReport {
  std::string source, out;                 // out empty: nothing is written
  convert::SurgeryOptions options;
  convert::Surgery surgery;
  model::ModelConfig before;
  std::optional<routing::DialTable> dial;  // calibrated
  std::string text;                        // what it was fitted on
  bool fitted = false, to_fit = false;       // to_fit: text was given, and the options' target counts
  double bytes_before = 0, bytes_after = 0;  // of the tensors
};

// The block fraction when no token runs a routed block in full, of the blocks of `before`.
double least_block_fraction(const model::ModelConfig& surgery, const model::ModelConfig& before, int64_t context);

// What it costs and saves, known before any text is read; and what came of it.
std::string convert_plan_text(const ConvertReport& report);
std::string convert_result_text(const ConvertReport& report);
Json convert_json(const ConvertReport& report);

}  // namespace fathom::cli
