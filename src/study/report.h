// The page that a demonstration ends with: a Mixture-of-Depths model beside its dense twins (or any other models), every
// figure of quality under the rule that the model runs by, and what the tokens did.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/cost.h"
#include "study/depth.h"
#include "study/evaluate.h"
#include "study/runs.h"
#include "study/speed.h"

namespace fathom::study {

struct ReportModel {
  RunRecord run;
  std::string role;                   // role_of
  int64_t blocks = 0, width = 0;      // L, C
  int64_t parameters = 0;
  Evaluation quality;                 // under the causal rule, or as the random control that it is
  std::optional<Evaluation> teacher;  // routed models: the teacher's view
  DecodeSpeed speed;
  double kv_bytes = 0, kv_bytes_dense = 0;  // per token; dense: if every token ran every block
  double decode_bytes = 0;            // weights, as the engine holds them, and keys moved per decoded token, expected
};

struct Sample {
  std::vector<TokenView> tokens;
  size_t given = 0;                   // how many of them are the prompt
};

struct Report {
  std::vector<ReportModel> models;    // the routed one first
  DepthStudy depths;                  // of the first
  std::vector<Sample> samples;        // of the first
  std::string text;                   // what was evaluated on
  bool held_out = false;              // it is the validation split of the dataset that every model was trained on
  std::string machine;                // "2 cores, AVX-512"
  std::string date;
  std::string command;                // how it was made
};

// The comparison as a table: the head, then one row per figure; cells of models in order.
std::vector<std::vector<std::string>> comparison(const Report& report);
// One sentence on how the first model's loss compares with that of the best of the others, with the paired interval.
std::string verdict(const Report& report);
// Sentences on what makes the models hard to compare, training FLOPs or precisions that differ or that nobody knows, and on
// what the trainer warned of.
std::vector<std::string> cautions(const Report& report);
// What a model is, and how it differs from the first: "Mixture of Depths", "dense, same shape, fewer tokens".
std::string role_of(const model::ModelConfig& first, const RunRecord& first_run, const model::ModelConfig& config, const RunRecord& run);
Json report_json(const Report& report);
std::string report_page(const Report& report);

}  // namespace fathom::study
