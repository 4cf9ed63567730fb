// The result of `fathom eval` as a table for people and as JSON.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "study/evaluate.h"

namespace fathom::cli {

struct EvaluationReport {
  const study::HeldOut& text;
  std::vector<std::string> names;          // the model, then its twins
  std::vector<study::Evaluation> results;  // as many
  std::optional<study::Evaluation> teacher;
};

std::string evaluation_text(const EvaluationReport& report);
Json evaluation_json(const EvaluationReport& report);

}  // namespace fathom::cli
