// What `fathom generate` says about a text besides the text: JSON, the figures of --stats, the depths.
#pragma once
#include <string>
#include <vector>

#include "cli/depth_colours.h"
#include "core/json.h"
#include "infer/generate.h"

namespace fathom::cli {

struct GenerationRecord {
  struct Token {
    int32_t id;
    int64_t depth;
    std::vector<uint8_t> run;  // [units] routing::Path
  };
  std::vector<Token> tokens;
  void add(const infer::TokenEvent& e) { tokens.push_back({e.id, e.depth, {e.run.begin(), e.run.end()}}); }
};

Json generation_json(const std::string& prompt, const infer::GenerateResult& result, const GenerationRecord& record,
                     const text::Tokenizer& tokenizer, DepthRange range);
std::string generation_stats(const infer::GenerateResult& result, const GenerationRecord& record);
// How many of the new tokens went how deep, one line per depth.
std::string depth_histogram(const GenerationRecord& record, DepthRange range, bool coloured);

}  // namespace fathom::cli
