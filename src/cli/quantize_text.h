// What `fathom quantize` did, as text and as JSON.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "convert/quantize.h"
#include "core/json.h"
#include "routing/dial.h"
#include "study/divergence.h"

namespace fathom::cli {

struct QuantizeReport {
  std::string model, out, type;
  std::vector<convert::TensorPlan> plan;
  bool tied = false;                                  // the head is the embedding
  std::optional<routing::DialTable> before, after;    // the dial; `after` only where it was calibrated again
  std::string text;                                   // what the quality was measured on
  std::optional<study::Divergence> quality;
};

std::string quantize_text(const QuantizeReport& report);
Json quantize_json(const QuantizeReport& report);

// A sentence for whoever starts from rounded weights; "" where nobody does.
std::string requantized_words(const std::vector<convert::TensorPlan>& plan);

}  // namespace fathom::cli
