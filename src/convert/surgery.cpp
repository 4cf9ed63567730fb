#include "convert/surgery.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "model/cost.h"
#include "model/schema.h"

namespace fathom::convert {
namespace {

using formats::GgmlType;
using model::ModelConfig;
using model::StoredTensor;
using routing::Part;
using routing::Path;
using routing::RoutedUnit;

constexpr float kOpen = 2;             // bias of a router that nobody fitted: well above any threshold that training begins with
constexpr double kLeastLoss = 1e-5, kNeeded = 0.98;
constexpr double kLightOfRest = 2.0 / 3;  // where tokens may skip too: the share of those not in full that take the light path

void check_list(const std::vector<int>& blocks, const char* option, int64_t L) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i] < 0 || blocks[i] >= L) throw UserError({option, "", str(blocks[i]), str("blocks 0 to ", L - 1), ""});
    if (i > 0 && blocks[i] <= blocks[i - 1]) throw UserError({option, "", str(blocks[i], " after ", blocks[i - 1]), "ascending blocks, each once", ""});
  }
}

bool has(const std::vector<int>& blocks, int block) { return std::ranges::binary_search(blocks, block); }

void check_apart(const std::vector<int>& a, const std::vector<int>& b, const char* option, const char* other) {
  for (const int block : a)
    if (has(b, block)) throw UserError({option, "", str("block ", block, ", which ", other, " names too"), "one of the two", ""});
}

// MACs that a token saves at a unit by the cheapest path, at context T.
double saved_macs(const ModelConfig& config, size_t u, int64_t context) {
  ModelConfig one = config;
  one.routing.units = {config.routing.units[u]};
  const std::vector<double> full(one.routing.cuts(), 1.0), cheap(one.routing.cuts(), 0.0);
  return model::expected_block_fraction(one, context, full) - model::expected_block_fraction(one, context, cheap);
}

}  // namespace

std::vector<int> inner_blocks(const ModelConfig& dense) {
  std::vector<int> out(static_cast<size_t>(std::max<int64_t>(dense.num_hidden_layers - 2, 0)));
  std::iota(out.begin(), out.end(), 1);
  return out;
}

Surgery plan_surgery(const ModelConfig& dense, const SurgeryOptions& options, const std::string& where) {
  const int64_t L = dense.num_hidden_layers;
  if (!dense.routing.dense()) throw UserError({where, "", str("a model with ", dense.routing.units.size(), " routed units"), "a dense model", "convert its source, or tune it as it is"});
  if (dense.adapters.rank > 0) throw UserError({where, "adapters", str("rank ", dense.adapters.rank), "none", "convert its source; what fathom tune made of one is laid over it by fathom convert SOURCE OUT --from ARTIFACT --adapters merged"});
  for (const auto& [list, option] : {std::pair(&options.blocks, "blocks"), {&options.statics, "static"}, {&options.dropped, "drop-blocks"}, {&options.full_attention, "full-attention"}}) check_list(*list, option, L);
  check_apart(options.blocks, options.statics, "blocks", "static");
  check_apart(options.blocks, options.dropped, "blocks", "drop-blocks");
  check_apart(options.statics, options.dropped, "static", "drop-blocks");
  for (const int block : options.full_attention)
    if (!has(options.blocks, block)) throw UserError({"full-attention", "", str("block ", block), "blocks that are routed", "name it in --blocks too"});
  if (!options.full_attention.empty() && options.parts == std::vector<Part>{Part::attention}) throw UserError({"full-attention", "", "beside a granularity of attention alone", "MLPs that are decided about", "leave one of the two out"});
  if (static_cast<int64_t>(options.dropped.size()) == L) throw UserError({"drop-blocks", "", "every block", "at least one that stays", ""});
  if (options.blocks.empty() && options.statics.empty() && options.dropped.empty())
    throw UserError({"blocks", "", "no block", "at least one that is routed, static or dropped", ""});

  if (options.gate != routing::Gate::hard && options.rule == routing::CausalRule::score)
    throw UserError({"gate", "", str(name_of(options.gate, routing::kGateNames), " beside a linear router"), "hard", "that gate is a function of the router's score, which is not 0 where every token runs: with --router mlp the score that decides is another"});

  Surgery out;
  out.config = dense;
  routing::RoutingConfig& routing = out.config.routing;
  routing.gate = options.gate;
  routing.rule = options.rule;
  routing.kv = options.kv;
  routing.router_input = routing::RouterInput::normed;
  routing.router_bias = true;
  routing.forced_positions = options.forced_positions;
  for (int block = 0; block < L; ++block) {
    if (has(options.dropped, block)) continue;
    const int now = static_cast<int>(out.block_of.size());
    out.block_of.push_back(block);
    RoutedUnit unit{.block = now, .capacity = 1, .part = Part::block, .paths = options.paths, .light_rank = options.paths.light ? std::min(options.light_rank, dense.hidden_size) : 0};
    if (has(options.statics, block)) {
      unit.paths = {.exit = false, .skip = false, .light = true, .full = false};
      unit.capacity = 0;
      unit.light_rank = std::min(options.light_rank, dense.hidden_size);
      routing.units.push_back(unit);
    } else if (has(options.blocks, block)) {
      const std::vector<Part> mlp = {Part::mlp};
      for (const Part part : has(options.full_attention, block) ? mlp : options.parts) unit.part = part, routing.units.push_back(unit);
    }
  }
  out.config.num_hidden_layers = static_cast<int64_t>(out.block_of.size());
  if (routing.dense()) routing = {};  // blocks were dropped, and that is all
  const ModelConfig& c = out.config;
  c.validate(where);
  for (const RoutedUnit& unit : routing.units) {
    const std::string at = model::unit_prefix(unit);
    const int64_t C = c.hidden_size, P = c.predictor_width();
    const auto make = [&](const std::string& name, std::vector<int64_t> shape, std::vector<float> values) {
      out.made.emplace(at + name, model::stored_f32(at + name, std::move(shape), std::move(values)));
    };
    const auto zeros = [](int64_t n) { return std::vector<float>(static_cast<size_t>(n), 0.0f); };
    if (!unit.is_static()) {
      make("router.weight", {1, C}, zeros(C));
      make("router.bias", {1}, {routing.gate == routing::Gate::hard ? kOpen : 0.0f});  // 0 is a gate of 1
      if (routing.rule == routing::CausalRule::predictor) {
        std::vector<float> fc1 = zeros(P * C);
        Random random = Random(0).fork(at + "predictor.fc1.weight");
        for (float& w : fc1) w = static_cast<float>(random.normal() / std::sqrt(static_cast<double>(C)));  // of inputs of mean square 1
        make("predictor.fc1.weight", {P, C}, std::move(fc1));
        make("predictor.fc1.bias", {P}, zeros(P));
        make("predictor.fc2.weight", {1, P}, zeros(P));
        make("predictor.fc2.bias", {1}, {kOpen});
      }
    }
    if (unit.paths.light) {
      make("light.down.weight", {unit.light_rank, C}, zeros(unit.light_rank * C));
      make("light.up.weight", {C, unit.light_rank}, zeros(unit.light_rank * C));
    }
  }
  return out;
}

void fit_surgery(Surgery& surgery, std::shared_ptr<const infer::Weights> dense, std::span<const std::span<const int32_t>> windows, const SurgeryOptions& options,
                 const FitOptions& fit) {
  routing::RoutingConfig& routing = surgery.config.routing;
  const bool twice = options.refit && routing.decides();
  const auto pass = [&](int64_t number) {
    FitOptions out = fit;
    if (fit.progress) out.progress = [&fit, number, twice](int64_t done, int64_t of) { fit.progress(number * of + done, twice ? 2 * of : of); };
    return out;
  };
  surgery.fitted = fit_units(dense, routing.units, windows, pass(0));
  // One scale for the scores of all units: the logarithm of nats per share of the blocks' FLOPs.
  std::vector<double> offset(routing.units.size(), 0.0);
  for (size_t u = 0; u < routing.units.size(); ++u) {
    const FittedUnit& fitted = surgery.fitted[u];
    if (routing.units[u].is_static()) continue;
    const double loss = std::isnan(fitted.loss_increase) ? fitted.miss : std::max(fitted.loss_increase, kLeastLoss);
    offset[u] = std::log(loss / std::max(fitted.miss, 1e-30)) - std::log(std::max(saved_macs(surgery.config, u, options.context), 1e-12));
  }
  std::vector<std::vector<float>> sorted;
  for (const FittedUnit& fitted : surgery.fitted) {
    sorted.push_back(fitted.scores);
    std::ranges::sort(sorted.back());
  }
  const auto share_above = [&](size_t u, double threshold) {
    const auto from = std::ranges::lower_bound(sorted[u], static_cast<float>(threshold - offset[u]));
    return static_cast<double>(sorted[u].end() - from) / static_cast<double>(sorted[u].size());
  };
  const auto set_capacities = [&](double threshold) {
    for (size_t u = 0; u < routing.units.size(); ++u) {
      RoutedUnit& unit = routing.units[u];
      if (unit.is_static()) continue;
      unit.capacity = std::clamp(share_above(u, threshold), kLeastCapacity, 1.0);
      if (unit.paths.light && unit.paths.skip) unit.light_capacity = (1 - unit.capacity) * kLightOfRest;
    }
    return model::expected_block_fraction(surgery.config, options.context, routing.capacities());
  };
  const auto threshold_of = [&](double target) {
    double low = -200, high = 200;  // far beyond any logarithm of a ratio
    for (int step = 0; step < 60; ++step) {
      const double middle = 0.5 * (low + high);
      (set_capacities(middle) > target ? low : high) = middle;
    }
    return high;
  };
  // Windows take turns over the range, neighbours far apart in it: by the golden section.
  std::vector<float> thresholds;
  const double threshold = threshold_of(options.target);
  for (size_t i = 0; twice && i < windows.size(); ++i) {
    const double at = std::fmod(0.6180339887498949 * static_cast<double>(i + 1), 1.0);
    thresholds.push_back(static_cast<float>(threshold_of(options.lowest + at * (options.highest - options.lowest)) - threshold));
  }
  set_capacities(threshold);
  if (options.leave_needed) {
    for (size_t u = routing.units.size(); u-- > 0;) {
      if (routing.units[u].is_static() || routing.units[u].capacity <= kNeeded) continue;
      const std::string at = model::unit_prefix(routing.units[u]);
      std::erase_if(surgery.made, [&](const auto& made) { return made.first.starts_with(at); });
      routing.units.erase(routing.units.begin() + static_cast<ptrdiff_t>(u));
      surgery.fitted.erase(surgery.fitted.begin() + static_cast<ptrdiff_t>(u));
      offset.erase(offset.begin() + static_cast<ptrdiff_t>(u));
      sorted.erase(sorted.begin() + static_cast<ptrdiff_t>(u));
    }
    if (routing.dense()) throw UserError({"target", "", str(options.target), "a block fraction at which some tokens leave some block out", "name the blocks with --blocks"});
  }
  std::vector<ScoreFit::Score> routers;
  std::vector<float> skips_below;
  for (size_t u = 0; u < routing.units.size(); ++u) {
    const RoutedUnit& unit = routing.units[u];
    const auto skipping = static_cast<size_t>((1 - unit.capacity) * (1 - kLightOfRest) * static_cast<double>(sorted[u].size()));
    skips_below.push_back(unit.paths.skip && unit.paths.light && unit.paths.full ? static_cast<float>(sorted[u][skipping] + offset[u] - threshold) : -std::numeric_limits<float>::infinity());
    ScoreFit::Score& router = surgery.fitted[u].router;
    router.bias = static_cast<float>(router.bias + offset[u] - threshold);  // so that the threshold is 0
    routers.push_back(router);
  }
  if (twice) refit_light_paths(dense, routing.units, routers, skips_below, windows, thresholds, pass(1), surgery.fitted);
  for (size_t u = 0; u < routing.units.size(); ++u) {
    const RoutedUnit& unit = routing.units[u];
    const FittedUnit& fitted = surgery.fitted[u];
    const std::string at = model::unit_prefix(unit);
    const auto set = [&](const std::string& name, std::vector<float> values) {
      StoredTensor& tensor = surgery.made.at(at + name);
      tensor = model::stored_f32(at + name, tensor.shape, std::move(values));
    };
    if (unit.paths.light) set("light.down.weight", fitted.light.down), set("light.up.weight", fitted.light.up);
    if (unit.is_static()) continue;
    if (routing.gate == routing::Gate::hard) set("router.weight", fitted.router.weight), set("router.bias", {fitted.router.bias});
    if (routing.rule != routing::CausalRule::predictor) continue;
    // silu(z) - silu(-z) = z: the MLP begins as the linear router.
    const int64_t C = surgery.config.hidden_size, P = surgery.config.predictor_width();
    if (P < 2) throw UserError({"router", "", "mlp", "linear", str("an MLP of ", P, " inner number cannot begin as a linear router")});
    std::vector<float> fc1 = surgery.made.at(at + "predictor.fc1.weight").to_f32(), fc2(static_cast<size_t>(P), 0.0f);
    for (size_t c = 0; c < static_cast<size_t>(C); ++c) fc1[c] = fitted.router.weight[c], fc1[static_cast<size_t>(C) + c] = -fitted.router.weight[c];
    fc2[0] = 1, fc2[1] = -1;
    set("predictor.fc1.weight", std::move(fc1));
    set("predictor.fc2.weight", std::move(fc2));
    set("predictor.fc2.bias", {fitted.router.bias});
  }
}

namespace {

const StoredTensor& stored_in(const model::ModelFolder& source, const Surgery& surgery, const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return source.stored(name);
  const size_t dot = name.find('.', kLayers.size());
  const auto block = static_cast<size_t>(std::stoll(name.substr(kLayers.size(), dot - kLayers.size())));
  return source.stored(model::layer_prefix(surgery.block_of.at(block)) + name.substr(dot + 1));
}

}  // namespace

std::shared_ptr<const infer::Weights> kept_blocks(const model::ModelFolder& source, const Surgery& surgery, int threads) {
  ModelConfig config = surgery.config;
  config.routing = {};
  StoredTensor tensor;
  return infer::Weights::from(config, [&](const std::string& name) -> const StoredTensor& {
    tensor = stored_in(source, surgery, name);
    tensor.owner = source.files();
    return tensor;
  }, threads > 0 ? threads : available_threads(), true, [&] { source.release(); });
}

Contents contents_of(const model::ModelFolder& source, const Surgery& surgery) {
  Contents out = contents_of(source);
  out.config = surgery.config;
  out.dial = {};
  if (surgery.config.routing.decides()) {  // until it is calibrated: every token in full
    routing::DialPoint all;
    all.thresholds.assign(surgery.config.routing.cuts(), -std::numeric_limits<float>::infinity());
    all.capacity.assign(surgery.config.routing.cuts(), 1.0);
    all.block_fraction = model::expected_block_fraction(surgery.config, 1, all.capacity);
    all.loss = std::numeric_limits<double>::quiet_NaN();
    out.dial = routing::DialTable{.default_dial = 1, .points = {all}, .text = "not calibrated", .tokens = 0};
  }
  out.stored = [&source, &surgery](const std::string& name) -> const StoredTensor& {
    const auto made = surgery.made.find(name);
    return made != surgery.made.end() ? made->second : stored_in(source, surgery, name);
  };
  return out;
}

double tensor_bytes(const model::ModelFolder& source) {
  double bytes = 0;
  for (const model::TensorSpec& spec : model::schema(source.config())) bytes += static_cast<double>(formats::ggml_bytes(source.stored(spec.name).type, spec.elements()));
  return bytes;
}

GgmlType surgery_type(const model::ModelFolder& source) {
  std::map<GgmlType, int64_t> elements;
  for (const model::TensorSpec& spec : model::schema(source.config()))
    if (spec.name.ends_with("_proj.weight")) elements[source.stored(spec.name).type] += spec.elements();
  FATHOM_ASSERT(!elements.empty(), "a model without projections");
  return std::ranges::max_element(elements, {}, [](const auto& e) { return e.second; })->first;
}

std::vector<TensorPlan> plan_tensors(const Contents& contents, GgmlType type) {
  std::vector<TensorPlan> plan;
  for (model::TensorSpec& spec : model::schema(contents.config)) {
    TensorPlan p;
    p.from = p.to = contents.stored(spec.name).type;
    if (spec.name.find(".light.") != std::string::npos) p.to = light_type(type, spec.shape.back());
    p.carried = p.from == p.to;
    p.spec = std::move(spec);
    plan.push_back(std::move(p));
  }
  return plan;
}

}  // namespace fathom::convert
