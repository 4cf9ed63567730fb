// Models for benchmarks: a shape, weights drawn from a seed, thresholds that let the wanted share of random tokens run.
#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "core/error.h"
#include "core/random.h"
#include "infer/walk.h"
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

// PATTERN:CAPACITY and then KEY=VALUE, of the keys of config.json's "fathom" object.
routing::RoutingConfig routed_form(const std::string& text, int64_t blocks, const std::string& where) {
  const auto refuse = [&](const std::string& found, const std::string& expected, const std::string& hint) {
    throw UserError({where, "--routed", found, expected, hint});
  };
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ':');) parts.push_back(part);
  const std::string pattern = parts.empty() ? "" : parts[0];
  if (pattern != "every-second" && pattern != "all-but-ends")
    refuse("\"" + printable(text) + "\"", "every-second:CAPACITY or all-but-ends:CAPACITY, a capacity above 0 and at most 1", "");
  Json json = {{"routed_blocks", Json::array()}};
  for (int64_t block = 1; block < blocks - (pattern == "all-but-ends"); block += pattern == "every-second" ? 2 : 1) json["routed_blocks"].push_back(block);
  for (size_t i = 1; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    const std::string key = equals == std::string::npos ? "capacity" : parts[i].substr(0, equals);
    const std::string value = equals == std::string::npos ? parts[i] : parts[i].substr(equals + 1);
    std::istringstream number(value);
    double x = 0;
    if (!(number >> x) || !number.eof()) json[key] = value;
    else if (x == std::floor(x) && std::abs(x) < 1e15) json[key] = static_cast<int64_t>(x);
    else json[key] = x;
  }
  try {
    return routing::RoutingConfig::from_json(Fields(json, where), blocks);
  } catch (const UserError& e) {
    refuse(str("\"", printable(text), "\", whose ", e.parts().field, " is ", e.parts().found), e.parts().expected, "the form is every-second:CAPACITY or all-but-ends:CAPACITY, then :KEY=VALUE");
  }
  return {};
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
  if (!routed.empty()) c.routing = routed_form(routed, c.num_hidden_layers, where);
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

infer::RoutingPolicy bench_policy(std::shared_ptr<const infer::Weights> weights, int64_t tokens, uint64_t seed) {
  const model::ModelConfig& config = weights->config();
  if (!config.routing.decides()) return infer::RoutingPolicy::full(config);
  Random random(seed);
  const std::vector<int32_t> text = model::random_tokens(config, std::min(tokens, config.max_position_embeddings), random);
  const std::span<const int32_t> whole = text;
  infer::BlockWalk walk(weights, {&whole, 1});
  return infer::RoutingPolicy::causal(
      routing::calibrate(config.routing, config.routing.capacities(), [&](size_t u, const std::vector<float>& before) { return walk.scores(u, before); }));
}

}  // namespace fathom::study
