// Models for benchmarks: a shape, weights drawn from a seed, thresholds that let the wanted share of random tokens run.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <sstream>

#include "core/error.h"
#include "core/random.h"
#include "infer/weights.h"
#include "kernels/pack.h"
#include "model/random_model.h"
#include "model/schema.h"
#include "model/stored_tensor.h"
#include "study/bench.h"

namespace fathom::study {
namespace {

using formats::GgmlType;
using model::StoredTensor;

struct Named {
  const char* name;
  int64_t C, L, H, G, F, V;
  bool tied;
};
constexpr Named kNamed[] = {{"llama-110m", 768, 12, 12, 12, 2048, 32000, true},
                            {"llama-1b", 2048, 22, 32, 4, 5632, 32000, false},
                            {"smollm2-135m", 576, 30, 9, 3, 1536, 49152, true}};

std::vector<routing::RoutedBlock> routed_blocks(const std::string& text, int64_t blocks, const std::string& where) {
  const size_t colon = text.find(':');
  const std::string pattern = text.substr(0, colon);
  double capacity = 0;
  std::istringstream in(colon == std::string::npos ? "" : text.substr(colon + 1));
  if (!(in >> capacity) || !in.eof() || !(capacity > 0 && capacity <= 1) || (pattern != "every-second" && pattern != "all-but-ends"))
    throw UserError({where, "--routed", "\"" + printable(text) + "\"", "every-second:CAPACITY or all-but-ends:CAPACITY, a capacity above 0 and at most 1", ""});
  std::vector<routing::RoutedBlock> out;
  for (int64_t block = 1; block < blocks - (pattern == "all-but-ends"); block += pattern == "every-second" ? 2 : 1)
    out.push_back({static_cast<int>(block), capacity});
  return out;
}

}  // namespace

model::ModelConfig bench_shape(const std::string& shape, const std::string& routed, int64_t positions, const std::string& where) {
  model::ModelConfig c;
  const auto named = std::ranges::find_if(kNamed, [&](const Named& n) { return shape == n.name; });
  if (named != std::end(kNamed)) {
    c.hidden_size = named->C, c.num_hidden_layers = named->L, c.num_attention_heads = named->H, c.num_key_value_heads = named->G;
    c.intermediate_size = named->F, c.vocab_size = named->V, c.tie_word_embeddings = named->tied;
  } else {
    std::vector<int64_t> n;
    std::istringstream in(shape);
    for (std::string part; std::getline(in, part, ',');) {
      std::istringstream number(part);
      int64_t value = 0;
      if (!(number >> value) || !number.eof()) break;
      n.push_back(value);
    }
    if (n.size() != 6 || std::ranges::count(shape, ',') != 5 || n[2] < 1 || n[0] % n[2] != 0)
      throw UserError({where, "--shape", "\"" + printable(shape) + "\"", "C,L,H,G,F,V with C a multiple of H, or llama-110m, llama-1b, smollm2-135m", ""});
    c.hidden_size = n[0], c.num_hidden_layers = n[1], c.num_attention_heads = n[2], c.num_key_value_heads = n[3], c.intermediate_size = n[4], c.vocab_size = n[5];
    c.tie_word_embeddings = true;
  }
  c.head_dim = c.hidden_size / c.num_attention_heads;
  c.max_position_embeddings = positions;
  if (!routed.empty()) c.routing.blocks = routed_blocks(routed, c.num_hidden_layers, where);
  c.validate(where);
  return c;
}

std::shared_ptr<const infer::Weights> bench_weights(const model::ModelConfig& config, GgmlType type, uint64_t seed) {
  // Billions of numbers are not drawn: matrices of one row length are stretches of one bank, each from a row of its own.
  constexpr int64_t kDrawnRows = 512, kSpareRows = 509;
  std::map<int64_t, int64_t> most_rows;
  const std::vector<model::TensorSpec> specs = model::schema(config);
  const auto is_matrix = [](const model::TensorSpec& spec) { return spec.shape.size() == 2 && spec.shape[0] > 1 && spec.name.find("predictor") == std::string::npos; };
  for (const model::TensorSpec& spec : specs)
    if (is_matrix(spec)) most_rows[spec.shape[1]] = std::max(most_rows[spec.shape[1]], spec.shape[0]);
  std::map<int64_t, std::shared_ptr<std::vector<std::byte>>> banks;
  Random random(seed);
  for (const auto& [columns, rows] : most_rows) {
    if (columns % formats::ggml_block_elements(type) != 0)
      throw UserError({"--type", "", str(formats::ggml_type_name(type), " for rows of ", columns), str("rows that are whole blocks of ", formats::ggml_block_elements(type)), ""});
    std::vector<float> drawn(static_cast<size_t>(kDrawnRows * columns));
    const double deviation = 1.0 / std::sqrt(static_cast<double>(columns));
    for (float& v : drawn) v = static_cast<float>(deviation * random.normal());
    const int64_t row_bytes = formats::ggml_bytes(type, columns);
    std::vector<std::byte> some(static_cast<size_t>(kDrawnRows * row_bytes));
    formats::quantize(type, drawn, some.data());
    const auto bank = std::make_shared<std::vector<std::byte>>(static_cast<size_t>((rows + kSpareRows) * row_bytes));
    for (int64_t row = 0; row < rows + kSpareRows; ++row) {  // drawn rows again and again, in another order each time
      const int64_t from = static_cast<int64_t>(mix64(seed ^ static_cast<uint64_t>(row)) % kDrawnRows);
      std::copy_n(some.begin() + from * row_bytes, row_bytes, bank->begin() + row * row_bytes);
    }
    banks.emplace(columns, bank);
  }
  std::map<std::string, StoredTensor> stored;
  uint64_t number = 0;
  for (const model::TensorSpec& spec : specs) {
    ++number;
    if (is_matrix(spec)) {
      const int64_t columns = spec.shape[1], row_bytes = formats::ggml_bytes(type, columns);
      const int64_t first = static_cast<int64_t>(mix64(number) % kSpareRows);
      const auto& bank = banks.at(columns);
      stored.emplace(spec.name, StoredTensor{.where = "random", .name = spec.name, .type = type, .shape = spec.shape,
                                             .bytes = std::span<const std::byte>(*bank).subspan(static_cast<size_t>(first * row_bytes), static_cast<size_t>(spec.shape[0] * row_bytes)),
                                             .interleaved_head = 0, .owner = bank});
      continue;
    }
    std::vector<float> values(static_cast<size_t>(spec.elements()), 1.0f);
    if (spec.name.find("norm") == std::string::npos)
      for (float& v : values) v = static_cast<float>(random.normal() / std::sqrt(static_cast<double>(spec.shape.back())));
    stored.emplace(spec.name, model::stored_f32(spec.name, spec.shape, std::move(values)));
  }
  return infer::Weights::from(config, [&](const std::string& name) -> const StoredTensor& { return stored.at(name); }, available_threads());
}

infer::RoutingPolicy bench_policy(infer::Engine& engine, int64_t tokens, uint64_t seed) {
  const model::ModelConfig& config = engine.config();
  if (config.routing.dense()) return infer::RoutingPolicy::full(config);
  Random random(seed);
  std::vector<double> capacity;
  for (const auto& block : config.routing.blocks) capacity.push_back(block.capacity);
  const std::vector<int32_t> text = model::random_tokens(config, std::min(tokens, config.max_position_embeddings), random);
  // Blocks behind the one at hand do not matter to its scores: nobody runs them.
  return infer::RoutingPolicy::causal(routing::calibrate(capacity, [&](size_t r, const std::vector<float>& before) {
    std::vector<float> thresholds(capacity.size(), std::numeric_limits<float>::infinity());
    std::copy_n(before.begin(), std::min(before.size(), r), thresholds.begin());
    const infer::RoutingPolicy policy = infer::RoutingPolicy::causal(thresholds);
    infer::Sequence sequence = engine.new_sequence();
    const infer::WorkItem item{.sequence = &sequence, .tokens = text, .policy = &policy, .logits = infer::Logits::none};
    return engine.forward({&item, 1}).decisions.score[r];
  }));
}

}  // namespace fathom::study
