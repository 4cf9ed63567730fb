#include <algorithm>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/dial_text.h"
#include "cli/engine_flags.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/human.h"
#include "core/limits.h"
#include "infer/weights.h"
#include "model/cost.h"
#include "model/folder.h"
#include "model/rope_config.h"
#include "study/evaluate.h"
#include "study/speed.h"

namespace fathom::cli {
namespace {

using model::ModelConfig;
using routing::Part;

struct Costs {
  int64_t context;
  double dense, expected, worst;  // forward FLOPs per token, averaged over a document of `context` tokens
  model::ForwardCost forward;     // expected, of the whole document
  model::DecodeBytes dense_bytes, expected_bytes;
  std::vector<double> capacity;   // [cuts] at the dial
  // Shares of the tokens that are expected to run a block's attention or MLP in full, and to take a light path there.
  routing::RoutingConfig::Shares shares(const ModelConfig& c, int64_t block, Part half) const {
    const int u = c.routing.unit_of(block, half);
    if (u < 0) return {.full = 1, .light = 0};
    return c.routing.shares(static_cast<size_t>(u), capacity);
  }
};

Costs costs(const ModelConfig& c, const model::ModelFolder& folder, double dial, int64_t context, KvType kv) {
  Costs k{.context = context, .dense = 0, .expected = 0, .worst = 0, .forward = {}, .dense_bytes = {}, .expected_bytes = {}, .capacity = {}};
  const double per_token = 1.0 / static_cast<double>(context);
  k.capacity = folder.dial() ? folder.dial()->at(dial).capacity : c.routing.capacities();
  const std::vector<double> all(c.routing.cuts(), 1.0);
  k.dense = model::dense_cost(c, context, context).flops() * per_token;
  k.forward = model::topk_cost(c, context, context, k.capacity);
  k.expected = k.forward.flops() * per_token;
  k.worst = model::topk_cost(c, context, context, all).flops() * per_token;
  ModelConfig unrouted = c;  // the same shape without routers, as its FLOPs are counted
  unrouted.routing = {};
  k.dense_bytes = model::decode_bytes(unrouted, context, {}, infer::weight_bytes(folder), kv);
  k.expected_bytes = model::decode_bytes(c, context, k.capacity, infer::weight_bytes(folder), kv);
  return k;
}

// What a process takes beside the model, about: measured with vocabularies of 400 and of 49,152 tokens.
double program_bytes(const ModelConfig& c) { return 14e6 + 220 * static_cast<double>(c.vocab_size); }

Json to_json(const ModelConfig& c, const model::ModelFolder& folder, const Costs& k, double dial, KvType kv) {
  const model::Parameters p = model::parameters(c);
  Json j = {{"path", folder.path()}, {"config", c.to_json()}, {"context", k.context}, {"dial", dial}};
  j["parameters"] = {{"total", p.total()}, {"embedding", p.embedding}, {"blocks", p.blocks}, {"light", p.light}, {"routers", p.routers},
                     {"predictors", p.predictors}, {"norms", p.norms}, {"head", p.head}};
  j["flops_per_token"] = {{"dense", k.dense}, {"expected", k.expected}, {"worst", k.worst}};
  j["decode_bytes_per_token"] = {{"dense", k.dense_bytes.total()}, {"expected", k.expected_bytes.total()},
                                 {"weights", k.expected_bytes.weights()}, {"kv_read", k.expected_bytes.kv_read()}, {"kv_write", k.expected_bytes.kv_write()}};
  j["kv_type"] = name_of(kv, kKvTypeNames);
  j["kv_bytes_per_token"] = {{"dense", study::kv_bytes_per_token(c, {}, kv)}, {"expected", study::kv_bytes_per_token(c, k.capacity, kv)}};
  j["kv_bytes_per_token_and_block"] = model::kv_bytes_per_token_and_block(c, kv);
  j["memory"] = {{"weights", infer::resident_bytes(folder)}, {"program", program_bytes(c)}, {"kv", Json::object()}};
  for (const auto& [name, type] : kKvTypeNames)
    j["memory"]["kv"][name] = {{"dense", study::kv_page_bytes(c, k.context, {}, type)}, {"expected", study::kv_page_bytes(c, k.context, k.capacity, type)}};
  j["blocks"] = Json::array();
  const auto flops = [&](int64_t macs) { return 2 * static_cast<double>(macs) / static_cast<double>(k.context); };
  for (int64_t block = 0; block < c.num_hidden_layers; ++block) {
    const model::BlockCost& f = k.forward.blocks[static_cast<size_t>(block)];
    const model::BlockBytes& b = k.expected_bytes.blocks[static_cast<size_t>(block)];
    const auto attention = k.shares(c, block, Part::attention), mlp = k.shares(c, block, Part::mlp);
    j["blocks"].push_back({{"block", block}, {"share", attention.full}, {"light_share", attention.light}, {"mlp_share", mlp.full}, {"mlp_light_share", mlp.light},
                           {"flops_per_token", {{"attention_linear", flops(f.attention_linear)}, {"attention_scores", flops(f.attention_scores)},
                                                {"mlp", flops(f.mlp)}, {"router", flops(f.router)}, {"predictor", flops(f.predictor)}, {"light", flops(f.light)}}},
                           {"decode_bytes_per_token", {{"weights", b.weights}, {"router", b.router}, {"predictor", b.predictor}, {"light", b.light},
                                                       {"kv_read", b.kv_read}, {"kv_write", b.kv_write}}}});
  }
  j["dials"] = Json::array();
  if (folder.dial())
    for (const routing::DialPoint& point : folder.dial()->points)
      j["dials"].push_back({{"dial", point.dial}, {"block_fraction", point.block_fraction}, {"capacity", point.capacity},
                            {"loss", std::isfinite(point.loss) ? Json(point.loss) : Json()}});
  const auto curve = folder.dial() ? model::read_curve(folder.path()) : std::nullopt;
  j["curve"] = curve ? curve->to_json() : Json();
  if (curve) j["curve"]["current"] = curve->measured_at(*folder.dial());
  return j;
}

constexpr std::ptrdiff_t kFewUnits = 8;  // that fit on a line with what each of them does

std::string routing_line(const ModelConfig& c) {
  if (c.routing.dense()) return "none: a dense model";
  const auto paths = [](const routing::RoutedUnit& unit) {
    return unit.paths == routing::Paths{} ? "" : str(" (", unit.is_static() ? "static: " : "", unit.paths.text(), unit.paths.light ? str(", rank ", unit.light_rank) : "", ")");
  };
  const std::string common = paths(c.routing.units[0]);
  const bool alike = std::ssize(c.routing.units) > kFewUnits && std::ranges::all_of(c.routing.units, [&](const auto& unit) { return paths(unit) == common; });
  std::string blocks;
  for (const routing::RoutedUnit& unit : c.routing.units) {
    blocks += (blocks.empty() ? "" : ", ") + unit.label();
    if (!unit.is_static()) blocks += " at " + percent(unit.capacity);
    if (!alike) blocks += paths(unit);
  }
  return str("blocks ", blocks, alike && !common.empty() ? ", each" + common : "", "; gate ", name_of(c.routing.gate, routing::kGateNames), ", ",
             c.routing.random() ? "tokens picked at random (control)" : str("rule ", name_of(c.routing.rule, routing::kCausalRuleNames)),
             ", keys and values of skipped tokens ", c.routing.kv == routing::KvPolicy::drop ? "dropped" : "kept");
}

// What tells it from a plain Llama: "biases on q, k, v; norms of queries and keys; positions scaled: llama3, 8 times".
std::string properties_line(const ModelConfig& c) {
  std::string biases, adapted, out;
  for (const auto& [has, where] : {std::pair{c.qkv_bias, "q, k, v"}, {c.output_bias, "o"}, {c.mlp_bias, "gate, up, down"}})
    if (has) biases += str(biases.empty() ? "" : ", ", where);
  for (const std::string& projection : c.adapters.projections) adapted += str(adapted.empty() ? "" : ", ", projection);
  const std::string scaling = model::describe_rope(c.rope_scaling);
  for (const std::string& part : {biases.empty() ? biases : "biases on " + biases, std::string(c.qk_norm ? "norms of queries and keys" : ""),
                                  c.adapters.rank > 0 ? str("adapters of rank ", c.adapters.rank, " beside ", adapted) : std::string(),
                                  scaling.empty() ? scaling : "positions scaled: " + scaling})
    if (!part.empty()) out += (out.empty() ? "" : "; ") + part;
  return out;
}

std::string block_table(const ModelConfig& c, const Costs& k) {
  const auto flops = [&](int64_t macs) { return macs == 0 ? std::string("—") : human_count(2 * static_cast<double>(macs) / static_cast<double>(k.context)); };
  const auto bytes = [](double n) { return n == 0 ? std::string("—") : human_bytes(n); };
  const bool light = std::ranges::any_of(c.routing.units, [](const routing::RoutedUnit& unit) { return unit.paths.light; });
  const auto both = [](double a, double m) { return a == m ? percent(a) : percent(a) + " / " + percent(m); };  // of attention and MLP
  std::vector<std::vector<std::string>> rows;
  const auto row = [&](std::vector<std::string> tokens, std::vector<std::string> flops_cells, const std::string& light_flops, std::vector<std::string> bytes_cells,
                       const std::string& light_bytes) {
    rows.push_back(std::move(tokens));
    if (!light) rows.back().resize(2);  // without the share of light
    rows.back().insert(rows.back().end(), flops_cells.begin(), flops_cells.end());
    if (light) rows.back().push_back(light_flops);
    rows.back().insert(rows.back().end(), bytes_cells.begin(), bytes_cells.end());
    if (light) rows.back().push_back(light_bytes);
  };
  row({"  block", "tokens", "light"}, {"FLOPs: attention", "MLP", "router", "predictor"}, "light", {"bytes: weights", "router", "predictor", "KV read", "KV written"}, "light");
  for (int64_t block = 0; block < c.num_hidden_layers; ++block) {
    const model::BlockCost& f = k.forward.blocks[static_cast<size_t>(block)];
    const model::BlockBytes& b = k.expected_bytes.blocks[static_cast<size_t>(block)];
    const auto attention = k.shares(c, block, Part::attention), mlp = k.shares(c, block, Part::mlp);
    row({str("  ", block), both(attention.full, mlp.full), both(attention.light, mlp.light)},
        {flops(f.attention_linear + f.attention_scores), flops(f.mlp), flops(f.router), flops(f.predictor)}, flops(f.light),
        {bytes(b.weights), bytes(b.router), bytes(b.predictor), bytes(b.kv_read), bytes(b.kv_write)}, bytes(b.light));
  }
  row({"  head", "", ""}, {flops(k.forward.head), "", "", ""}, "", {bytes(k.expected_bytes.head), "", "", "", ""}, "");
  return text_table(rows);
}

// What the engine takes: weights, and the pages of a text that fills the context, for every type of keys and values.
std::string memory_text(const ModelConfig& c, const model::ModelFolder& folder, const Costs& k) {
  const double weights = static_cast<double>(infer::resident_bytes(folder));
  std::vector<std::vector<std::string>> rows = {{"  keys and values", "dense", "expected", "share", "with weights"}};
  for (const auto& [name, type] : kKvTypeNames) {
    const double dense = study::kv_page_bytes(c, k.context, {}, type), expected = study::kv_page_bytes(c, k.context, k.capacity, type);
    rows.push_back({str("  ", name), human_bytes(dense), human_bytes(expected), percent(expected / dense), human_bytes(weights + expected)});
  }
  return str("\nMemory of the weights, ", human_bytes(weights), ", and of a text of ", k.context, " tokens\n") + text_table(rows) + str("  the program and its tokenizer: about ", human_bytes(program_bytes(c)), " more\n");
}

int run(const Arguments& args) {
  apply_colour(args);
  const auto folder = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  const ModelConfig& c = folder->config();
  const double dial = dial_of(args, *folder).value_or(folder->dial() ? folder->dial()->default_dial : 1.0);
  const int64_t context = context_of(args, {folder.get()});
  const KvType kv = kv_type_of(args);
  const Costs k = costs(c, *folder, dial, context, kv);
  if (args.boolean("json")) return out_json(to_json(c, *folder, k, dial, kv)), kExitDone;

  const model::Parameters p = model::parameters(c);
  const auto count = [](int64_t n) { return grouped(n); };
  out(folder->path() + "\n\n");
  std::vector<std::vector<std::string>> facts = {{"  shape", str("C ", c.hidden_size, ", L ", c.num_hidden_layers, ", H ", c.num_attention_heads, ", G ", c.num_key_value_heads, ", D ",
                                                                 c.head_dim, ", F ", c.intermediate_size, ", V ", c.vocab_size, c.tie_word_embeddings ? ", tied head" : "")},
                                                 {"  stored as", stored_as(*folder)},
                                                 {"  routing", routing_line(c)}};
  if (const std::string line = properties_line(c); !line.empty()) facts.insert(facts.begin() + 1, {"  with", line});
  out(text_table(facts, 2));
  out("\nParameters\n");
  out(text_table({{"  total", count(p.total())}, {"  embedding", count(p.embedding)}, {"  blocks", count(p.blocks)}, {"  light paths", count(p.light)}, {"  routers", count(p.routers)},
                  {"  predictors", count(p.predictors)}, {"  norms", count(p.norms)}, {"  head", c.tie_word_embeddings ? "tied" : count(p.head)}}));
  const auto ratio = [](double x, double base) { return percent(x / base); };
  out(str("\nPer token in a context of ", context, ", dial ", fixed(dial, 3), "\n"));
  out(text_table({{"", "dense", "expected", "share", "worst", "share"},
                  {"  forward FLOPs", human_count(k.dense), human_count(k.expected), ratio(k.expected, k.dense), human_count(k.worst), ratio(k.worst, k.dense)},
                  {"  bytes moved at decode", human_bytes(k.dense_bytes.total()), human_bytes(k.expected_bytes.total()),
                   ratio(k.expected_bytes.total(), k.dense_bytes.total()), "", ""},
                  {"  of them weights", human_bytes(k.dense_bytes.weights()), human_bytes(k.expected_bytes.weights()),
                   ratio(k.expected_bytes.weights(), k.dense_bytes.weights()), "", ""},
                  {"  KV cache bytes", human_bytes(study::kv_bytes_per_token(c, {}, kv)), human_bytes(study::kv_bytes_per_token(c, k.capacity, kv)),
                   ratio(study::kv_bytes_per_token(c, k.capacity, kv), study::kv_bytes_per_token(c, {}, kv)), "", ""}}));
  out(str("  one block's keys and values: ", human_bytes(static_cast<double>(model::kv_bytes_per_token_and_block(c, kv))), " per token\n"));
  out(memory_text(c, *folder, k));
  if (args.boolean("blocks")) out("\nExpected per token, block by block: forward FLOPs, and bytes moved at decode\n" + block_table(c, k));
  if (folder->dial()) {
    out(str("\nDial (calibrated on ", folder->dial()->text.empty() ? "text" : printable(folder->dial()->text), ", ", grouped(folder->dial()->tokens), " tokens)\n"));
    const bool wide = std::ssize(c.routing.units) > kFewUnits && !args.boolean("blocks");
    std::vector<std::vector<std::string>> rows = {{"  dial", "block fraction", "loss"}};
    if (!wide) rows[0].push_back("share of tokens per routed block");
    for (const routing::DialPoint& point : folder->dial()->points) {
      std::string shares;
      for (const double share : point.capacity) shares += (shares.empty() ? "" : "  ") + percent(share);
      rows.push_back({"  " + fixed(point.dial, 3) + (point.dial == folder->dial()->default_dial ? " *" : ""), fixed(point.block_fraction, 3), fixed(point.loss, 4)});
      if (!wide) rows.back().push_back(shares);
    }
    out(text_table(rows) + (folder->dial()->trained_dial > 0 ? str("  * the default; the model was made for ", fixed(folder->dial()->trained(), 3), "\n") : "  * the point that the model was trained for\n"));
    if (wide) out("  --blocks shows the share of tokens of every block\n");
    if (const auto curve = model::read_curve(folder->path())) out(curve_summary(*curve, curve->measured_at(*folder->dial())));
  }
  return kExitDone;
}

}  // namespace

Command info_command() {
  Command c{.name = "info", .summary = "Show a model's parameters, FLOPs, bytes and dial curve"};
  c.positional("MODEL", "the model folder, the folder of a run, or a .gguf file");
  c.flag(integer_flag("context", "N", "tokens of context that FLOPs and bytes are counted for").range(1, limits::kContext).noted("that of the training run, else the model's, at most 1024"));
  c.flag(number_flag("dial", "X", "block fraction to ask for").range(1e-6, 1).noted("the model's"));
  c.flag(kv_type_flag());
  c.flag(boolean_flag("blocks", "show FLOPs and bytes block by block (--json always holds them)"));
  c.flag(json_flag()).flag(colour_flag());
  c.examples = {"fathom info model/", "fathom info model/ --blocks", "fathom info model/ --dial 0.6 --json"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
