#include "study/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/file.h"
#include "core/log.h"
#include "infer/score.h"
#include "infer/weights.h"
#include "routing/select.h"
#include "study/runs.h"
#include "study/statistics.h"

namespace fathom::study {
namespace {

double ratio(int64_t a, int64_t b) { return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : std::nan(""); }

void add_blocks(Evaluation& e, const routing::Decisions& decisions) {
  for (size_t r = 0; r < e.blocks.size(); ++r) {
    e.blocks[r].tokens += static_cast<int64_t>(decisions.run[r].size());
    e.blocks[r].ran += std::ranges::count(decisions.run[r], static_cast<uint8_t>(routing::Path::full));
    e.blocks[r].went_light += std::ranges::count(decisions.run[r], static_cast<uint8_t>(routing::Path::light));
  }
}

// On the teacher's states: what the rule would have chosen at each token beside what top-k chose.
void add_agreement(Evaluation& causal, const routing::Decisions& teacher, const std::vector<float>& thresholds, const routing::RoutingConfig& routing) {
  std::vector<bool> exited(teacher.run.empty() ? 0 : teacher.run[0].size());
  size_t cut = 0;
  for (size_t r = 0; r < causal.blocks.size(); cut += routing.units[r].cuts(), ++r) {
    BlockAgreement& b = causal.blocks[r];
    if (routing.units[r].is_static()) continue;
    for (size_t t = 0; t < teacher.run[r].size(); ++t) {
      const float score = teacher.score[r][t];
      const bool forced = static_cast<int64_t>(t) < routing.forced_positions;
      if (routing.units[r].paths.exit && !forced && !routing::runs(score, thresholds[cut])) exited[t] = true;
      const bool rule = forced || (!exited[t] && routing::runs(score, thresholds[cut + routing.units[r].cuts() - 1]));
      const bool topk = teacher.run[r][t] == static_cast<uint8_t>(routing::Path::full);
      b.compared += 1;
      b.agreed += rule == topk;
      b.both += rule && topk;
      b.by_topk += topk;
      b.by_rule += rule;
    }
  }
}

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(); }

Json interval_json(const Interval& i) { return {{"value", number(i.value)}, {"ci95", number(i.half)}, {"units", i.units}}; }

Evaluation score(const Subject& subject, const HeldOut& text, infer::Rule rule, std::optional<double> dial, const EvaluateProgress& progress,
                 Evaluation* causal) {
  const model::ModelConfig& config = subject.engine->config();
  Evaluation e;
  e.dial = dial_of(subject, dial);
  e.windows = static_cast<int64_t>(text.windows.size());
  e.units.resize(text.units);
  e.by_stretch = text.by_stretch;
  const infer::RoutingPolicy policy = policy_of(subject, rule, dial);
  e.rule = policy.rule;
  const infer::RoutingPolicy asked = policy_of(subject, infer::Rule::topk, dial);
  for (size_t r = 0; r < config.routing.units.size(); ++r)
    e.blocks.push_back({.unit = config.routing.units[r], .capacity = config.routing.shares(r, asked.capacity).full});
  const std::vector<float> thresholds = causal ? policy_of(subject, infer::Rule::causal, dial).thresholds : std::vector<float>{};
  const std::vector<int32_t> bytes = subject.tokenizer->bytes_per_token();

  std::vector<std::span<const int32_t>> windows;
  for (const Window& w : text.windows) {
    windows.push_back(w.tokens);
    e.context = std::max(e.context, static_cast<int64_t>(w.tokens.size()));
  }
  const auto begin = std::chrono::steady_clock::now();
  infer::score_documents(*subject.engine, windows, {.policy = policy}, [&](infer::DocumentScore&& s) {
    const Window& w = text.windows[s.document];
    UnitSum& sum = e.units[w.unit];
    for (size_t t = 0; t + 1 < w.tokens.size(); ++t) {
      const int32_t next = w.tokens[t + 1];
      const int64_t size = bytes[static_cast<size_t>(next)];
      sum.nll += s.nll[t], e.nll += s.nll[t];
      sum.bytes += size, e.bytes += size;
      e.correct += s.best[t] == next;
    }
    const int64_t tokens = static_cast<int64_t>(w.tokens.size());
    sum.tokens += tokens - 1, e.tokens += tokens - 1;
    add_blocks(e, s.decisions);
    if (causal) add_agreement(*causal, s.decisions, thresholds, config.routing);
    e.spent += model::forward_cost(config, tokens, s.decisions, tokens);
    e.dense += model::dense_cost(config, tokens, tokens);
    if (progress) progress(e.tokens, text.predicted, e.loss());
  });
  e.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  for (BlockAgreement& b : e.blocks) b.realised = ratio(b.ran, b.tokens), b.light = ratio(b.went_light, b.tokens);
  return e;
}

}  // namespace

std::string model_folder_of(const std::string& path) {
  if (path.ends_with(".gguf")) return path;
  if (model::has_weights(path)) return path;
  const std::string inside = join_path(path, "model");
  if (is_folder(inside)) return inside;
  require_finished(path);
  return path;
}

Subject Subject::open(const std::string& path, const infer::EngineOptions& options, bool need_dial) {
  Subject s;
  s.folder = model::ModelFolder::open(model_folder_of(path), need_dial);
  s.tokenizer = std::make_shared<const text::Tokenizer>(s.folder->tokenizer());
  if (s.tokenizer->vocab_size() > s.folder->config().vocab_size)
    throw UserError({s.folder->path(), "tokenizer", str(s.tokenizer->vocab_size(), " tokens"),
                     str("at most the model's vocab_size ", s.folder->config().vocab_size), "the folder holds another model's tokenizer"});
  s.engine = std::make_shared<infer::Engine>(infer::Weights::load(*s.folder, options.threads), options);
  // RUN/model is called after the run.
  std::filesystem::path trimmed = std::filesystem::path(path).lexically_normal();
  if (trimmed.filename().empty()) trimmed = trimmed.parent_path();
  if (trimmed.filename() == "model" && trimmed.has_parent_path()) trimmed = trimmed.parent_path();
  s.name = trimmed.filename().string();
  return s;
}

void warn_of_other_ends(const Subject& first, const Subject& other) {
  if (other.ends() != first.ends())
    log_warning(other.name, " was trained with other begin or end tokens around documents than ", first.name, ", whose are used");
}

double BlockAgreement::agreement() const { return ratio(agreed, compared); }
double BlockAgreement::precision() const { return ratio(both, by_rule); }
double BlockAgreement::recall() const { return ratio(both, by_topk); }

double Evaluation::perplexity() const { return std::exp(loss()); }
double Evaluation::bits_per_byte() const { return bytes > 0 ? nll / std::log(2.0) / static_cast<double>(bytes) : std::nan(""); }
double Evaluation::block_fraction() const { return static_cast<double>(spent.blocks_total()) / static_cast<double>(dense.blocks_total()); }
std::vector<double> Evaluation::capacities() const {
  std::vector<double> out;
  for (const BlockAgreement& b : blocks) {
    const std::vector<routing::Path> paths = b.unit.paths.in_order();
    for (size_t i = 1; i < paths.size(); ++i)
      out.push_back(paths[i] == routing::Path::full ? b.realised : paths[i] == routing::Path::light ? std::min(1.0, b.realised + b.light) : 1.0);
  }
  return out;
}

double Evaluation::total_fraction() const { return static_cast<double>(spent.total()) / static_cast<double>(dense.total()); }

Json Evaluation::to_json() const {
  Json j = {{"rule", name_of(rule, infer::kRuleNames)}, {"dial", dial}, {"tokens", tokens}, {"bytes", bytes}, {"windows", windows}, {"context", context},
            {"nll", nll}, {"loss", number(loss())}, {"loss_interval", interval_json(loss_interval(*this))}, {"perplexity", number(perplexity())},
            {"bits_per_byte", number(bits_per_byte())}, {"bits_per_byte_interval", interval_json(bits_interval(*this))},
            {"intervals_over", by_stretch ? "stretches" : "documents"}, {"accuracy", number(ratio(correct, tokens))}, {"block_fraction", number(block_fraction())}, {"total_fraction", number(total_fraction())},
            {"flops_per_token", number(spent.flops() / static_cast<double>(tokens + windows))}, {"seconds", seconds}};
  j["blocks"] = Json::array();
  for (const BlockAgreement& b : blocks)
    j["blocks"].push_back({{"block", b.unit.block}, {"part", name_of(b.unit.part, routing::kPartNames)}, {"capacity", b.capacity}, {"realised", number(b.realised)},
                           {"light", number(b.light)}, {"agreement", number(b.agreement())},
                           {"precision", number(b.precision())}, {"recall", number(b.recall())}});
  return j;
}

Interval loss_interval(const Evaluation& e) {
  return ratio_interval(e.units, [](const UnitSum& d) { return d.nll; }, [](const UnitSum& d) { return static_cast<double>(d.tokens); });
}

Interval bits_interval(const Evaluation& e) {
  return ratio_interval(e.units, [](const UnitSum& d) { return d.nll / std::log(2.0); }, [](const UnitSum& d) { return static_cast<double>(d.bytes); });
}

Interval loss_difference(const Evaluation& a, const Evaluation& b) { return paired_difference(a.units, b.units, false); }
Interval bits_difference(const Evaluation& a, const Evaluation& b) { return paired_difference(a.units, b.units, true); }

const char* rule_words(infer::Rule rule) {
  switch (rule) {
    case infer::Rule::topk: return "top-k";
    case infer::Rule::random: return "random control";
    default: return "causal rule";
  }
}

std::string units_text(const Evaluation& e, int64_t units) {
  return str(units, e.by_stretch ? " stretch" : " document", units == 1 ? "" : e.by_stretch ? "es" : "s", e.by_stretch ? " of text" : "");
}

double dial_of(const Subject& subject, std::optional<double> dial) {
  if (dial) return *dial;
  return subject.folder->dial() ? subject.folder->dial()->default_dial : 1.0;
}

infer::RoutingPolicy policy_of(const Subject& subject, infer::Rule rule, std::optional<double> dial) {
  const model::ModelConfig& config = subject.engine->config();
  if (rule == infer::Rule::causal) return infer::RoutingPolicy::at_dial(config, subject.folder->dial(), dial);
  FATHOM_ASSERT(rule == infer::Rule::topk || rule == infer::Rule::random, "no policy without decisions");
  infer::RoutingPolicy policy = rule == infer::Rule::topk ? infer::RoutingPolicy::teacher(config) : infer::RoutingPolicy::control(config);
  // The configured capacities are those of the dial that the model was trained for; another brings its own.
  const std::optional<routing::DialTable>& table = subject.folder->dial();
  if (table && (dial || table->default_dial != table->trained())) policy.capacity = table->at(dial_of(subject, dial)).capacity;
  return policy;
}

Evaluation evaluate(const Subject& subject, const HeldOut& text, infer::Rule rule, std::optional<double> dial, const EvaluateProgress& progress) {
  return score(subject, text, rule, dial, progress, nullptr);
}

bool has_teacher(const Subject& subject) {
  const routing::RoutingConfig& routing = subject.engine->config().routing;
  return routing.decides() && !routing.random();
}

Evaluation compare_with_teacher(const Subject& subject, const HeldOut& text, Evaluation& causal, std::optional<double> dial, const EvaluateProgress& progress) {
  FATHOM_ASSERT(causal.rule == infer::Rule::causal && has_teacher(subject), "agreement is that of the causal rule with a teacher");
  return score(subject, text, infer::Rule::topk, dial, progress, &causal);
}

}  // namespace fathom::study
