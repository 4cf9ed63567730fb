#include "study/depth.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/utf8.h"
#include "infer/score.h"

namespace fathom::study {
namespace {

constexpr int64_t kPositionBins = 32;
constexpr size_t kExamples = 12, kTypes = 24;
constexpr size_t kPassageTokens = 260, kContextBytes = 60;

struct Difficulty {
  double below;
  const char* name;
};
constexpr Difficulty kDifficulties[] = {{0.1, "below 0.1 nats"}, {0.5, "0.1 to 0.5"}, {1.5, "0.5 to 1.5"}, {3.0, "1.5 to 3"}, {5.0, "3 to 5"}, {INFINITY, "above 5"}};
constexpr int64_t kRanks[] = {10, 100, 1000, 10000, INT64_MAX};
constexpr const char* kRankNames[] = {"10 most frequent", "rank 11 to 100", "101 to 1,000", "1,001 to 10,000", "rarer"};

DepthGroup group(std::string name, size_t units) {
  return {.name = std::move(name), .tokens = 0, .blocks = 0, .ran = std::vector<int64_t>(units), .light = std::vector<int64_t>(units)};
}

void add(DepthGroup& to, const DepthGroup& from) {
  to.tokens += from.tokens, to.blocks += from.blocks;
  for (size_t u = 0; u < to.ran.size(); ++u) to.ran[u] += from.ran[u], to.light[u] += from.light[u];
}

constexpr auto kFull = static_cast<uint8_t>(routing::Path::full), kLight = static_cast<uint8_t>(routing::Path::light);

// Mean and deviation of one block's decision scores, updated token by token (Welford 1962).
struct Spread {
  int64_t n = 0;
  double mean = 0, squares = 0;
  void add(double x) {
    ++n;
    const double d = x - mean;
    mean += d / static_cast<double>(n);
    squares += d * (x - mean);
  }
  double deviation() const { return n > 1 && squares > 0 ? std::sqrt(squares / static_cast<double>(n - 1)) : 1; }
};

struct Occurrence {
  size_t window = 0, token = 0;
  int64_t depth = 0;
  double margin = 0;
};

class Collector {
 public:
  Collector(const Subject& subject, const HeldOut& text, std::optional<double> dial) : subject_(subject), text_(text) {
    const model::ModelConfig& config = subject.engine->config();
    s_.routed = config.routing.units;
    const size_t routed = s_.routed.size();
    s_.model = subject.name, s_.text = text.name;
    s_.dial = dial_of(subject, dial);
    s_.blocks = config.num_hidden_layers;
    s_.least = config.least_depth(), s_.most = config.most_depth();
    s_.histogram.resize(static_cast<size_t>(s_.most - s_.least + 1));
    s_.all = group("all", routed);
    for (const Window& w : text.windows) s_.context = std::max(s_.context, static_cast<int64_t>(w.tokens.size()));
    settled_ = std::min<int64_t>(4096, text.predicted / 4);
    bin_ = (s_.context + kPositionBins - 1) / kPositionBins;
    for (int64_t p = 0; p < s_.context; p += bin_) s_.by_position.push_back(group(str(p), routed));
    for (size_t c = 0; c < kTokenClasses; ++c) s_.by_class.push_back(group(token_class_name(static_cast<TokenClass>(c)), routed));
    for (const Difficulty& d : kDifficulties) s_.by_difficulty.push_back(group(d.name, routed));
    types_.resize(static_cast<size_t>(config.vocab_size), group("", routed));
    spread_.resize(routed);
    for (size_t u = 0; u < routed; ++u) full_cut_.push_back(s_.routed[u].is_static() ? 0 : config.routing.full_cut(u));
    policy_ = policy_of(subject, infer::Rule::causal, dial);
    s_.rule = policy_.rule;
    bytes_ = subject.tokenizer->bytes_per_token();
  }

  const infer::RoutingPolicy& policy() const { return policy_; }

  void add(const infer::DocumentScore& score) {
    const Window& w = text_.windows[score.document];
    const routing::RoutingConfig& routing = subject_.engine->config().routing;
    std::vector<uint8_t> paths(s_.routed.size());
    const int64_t T = static_cast<int64_t>(w.tokens.size());
    bool after_word = false;
    for (size_t t = 0; t < w.tokens.size(); ++t) {
      const int32_t id = w.tokens[t];
      const std::string bytes = subject_.tokenizer->token_bytes(id);
      const bool special = subject_.tokenizer->is_special(id);
      DepthGroup& by_class = s_.by_class[static_cast<size_t>(token_class(bytes, special, after_word))];
      after_word = !special && ends_in_word(bytes);
      DepthGroup* groups[5] = {&s_.all, &s_.by_position[t / static_cast<size_t>(bin_)], &by_class, &types_[static_cast<size_t>(id)], nullptr};
      if (t < score.nll.size()) {
        size_t d = 0;
        while (score.nll[t] >= kDifficulties[d].below && d + 1 < s_.by_difficulty.size()) ++d;
        groups[4] = &s_.by_difficulty[d];
      }
      double margin = 0;
      for (size_t u = 0; u < paths.size(); ++u) {
        paths[u] = score.decisions.run[u][t];
        spread_[u].add(score.decisions.score[u][t]);
        if (policy_.rule == infer::Rule::causal && !s_.routed[u].is_static()) {  // the random control looks at no score
          const float threshold = policy_.thresholds[full_cut_[u]];
          margin += (score.decisions.score[u][t] - (std::isfinite(threshold) ? threshold : 0.0F)) / spread_[u].deviation();
        }
        for (DepthGroup* g : groups)
          if (g) g->ran[u] += paths[u] == kFull, g->light[u] += paths[u] == kLight;
      }
      const int64_t blocks = routing.full_blocks(paths), depth = s_.least + blocks;
      for (DepthGroup* g : groups)
        if (g) g->tokens += 1, g->blocks += blocks;
      s_.histogram[static_cast<size_t>(depth - s_.least)] += 1;
      if (!special && s_.all.tokens > settled_) remember({score.document, t, depth, margin}, id);
      if (t < score.nll.size()) {
        nll_ += score.nll[t];
        predicted_ += 1;
        predicted_bytes_ += bytes_[static_cast<size_t>(w.tokens[t + 1])];
      }
    }
    s_.tokens += T;
    spent_ += model::forward_cost(subject_.engine->config(), T, score.decisions, T);
    dense_ += model::dense_cost(subject_.engine->config(), T, T);
    keep_passage(score, w);
  }

  double loss() const { return predicted_ > 0 ? nll_ / static_cast<double>(predicted_) : 0; }

  DepthStudy finish() {
    s_.loss = loss();
    s_.bits_per_byte = predicted_bytes_ > 0 ? nll_ / std::log(2.0) / static_cast<double>(predicted_bytes_) : std::nan("");
    s_.block_fraction = static_cast<double>(spent_.blocks_total()) / static_cast<double>(dense_.blocks_total());
    s_.total_fraction = static_cast<double>(spent_.total()) / static_cast<double>(dense_.total());
    std::erase_if(s_.by_class, [](const DepthGroup& g) { return g.tokens == 0; });
    std::erase_if(s_.by_difficulty, [](const DepthGroup& g) { return g.tokens == 0; });
    frequencies();
    for (const auto* side : {&deepest_, &shallowest_})
      for (const auto& [id, o] : *side) (side == &deepest_ ? s_.deepest : s_.shallowest).push_back(example(o));
    const auto deeper = [](const TokenExample& a, const TokenExample& b) { return std::pair(a.depth, a.margin) > std::pair(b.depth, b.margin); };
    std::sort(s_.deepest.begin(), s_.deepest.end(), deeper);
    std::sort(s_.shallowest.begin(), s_.shallowest.end(), [&](const auto& a, const auto& b) { return deeper(b, a); });
    return std::move(s_);
  }

 private:
  // The best occurrence of each of the kExamples most extreme tokens, no token and no window twice.
  void remember(const Occurrence& o, int32_t id) {
    const auto key = [](const Occurrence& x) { return std::pair(x.depth, x.margin); };
    const auto keep = [&](std::vector<std::pair<int32_t, Occurrence>>& best, int sign) {
      const auto better = [&](const Occurrence& a, const Occurrence& b) { return sign > 0 ? key(a) > key(b) : key(a) < key(b); };
      const auto rival = [&](const std::pair<int32_t, Occurrence>& e) { return e.first == id || e.second.window == o.window; };
      if (std::any_of(best.begin(), best.end(), [&](const auto& e) { return rival(e) && !better(o, e.second); })) return;
      std::erase_if(best, rival);
      best.emplace_back(id, o);
      if (best.size() <= kExamples) return;
      best.erase(std::max_element(best.begin(), best.end(), [&](const auto& a, const auto& b) { return better(a.second, b.second); }));
    };
    keep(deepest_, 1);
    keep(shallowest_, -1);
  }

  TokenExample example(const Occurrence& o) const {
    const Window& w = text_.windows[o.window];
    const auto decode = [&](size_t from, size_t to) {
      return subject_.tokenizer->decode(w.tokens.subspan(from, to - from));
    };
    TokenExample e;
    e.depth = o.depth, e.margin = o.margin;
    e.token = utf8_repair(subject_.tokenizer->token_bytes(w.tokens[o.token]));
    const size_t from = o.token > 24 ? o.token - 24 : 0, to = std::min(w.tokens.size(), o.token + 1 + 12);
    e.before = decode(from, o.token), e.after = decode(o.token + 1, to);
    if (e.before.size() > kContextBytes) e.before = utf8_repair(e.before.substr(e.before.size() - kContextBytes));
    while (e.before.starts_with("\xef\xbf\xbd")) e.before.erase(0, 3);  // a character that the cut broke
    if (e.after.size() > kContextBytes / 2) {
      e.after.resize(kContextBytes / 2);
      e.after.resize(e.after.size() - utf8_incomplete_tail(e.after));
    }
    return e;
  }

  void frequencies() {
    std::vector<size_t> order(types_.size());
    std::iota(order.begin(), order.end(), 0);
    std::erase_if(order, [&](size_t id) { return types_[id].tokens == 0; });
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return types_[a].tokens > types_[b].tokens; });
    size_t next = 0;
    for (size_t k = 0; k < std::size(kRanks); ++k) {
      DepthGroup g = group(kRankNames[k], s_.routed.size());
      for (; next < order.size() && static_cast<int64_t>(next) < kRanks[k]; ++next) study::add(g, types_[order[next]]);
      if (g.tokens > 0) s_.by_frequency.push_back(std::move(g));
    }
    // Types seen often enough that their mean says something.
    const int64_t enough = std::max<int64_t>(5, s_.tokens / 5000);
    std::vector<TokenType> types;
    for (const size_t id : order) {
      if (types_[id].tokens < enough || subject_.tokenizer->is_special(static_cast<int32_t>(id))) continue;
      types.push_back({utf8_repair(subject_.tokenizer->token_bytes(static_cast<int32_t>(id))), types_[id].tokens, types_[id].mean_depth(s_.least)});
    }
    std::stable_sort(types.begin(), types.end(), [](const TokenType& a, const TokenType& b) { return a.mean_depth > b.mean_depth; });
    const size_t n = std::min(kTypes, types.size() / 2);
    s_.deep_types.assign(types.begin(), types.begin() + static_cast<std::ptrdiff_t>(n));
    s_.shallow_types.assign(types.rbegin(), types.rbegin() + static_cast<std::ptrdiff_t>(n));
  }

  // The first of the longest windows.
  void keep_passage(const infer::DocumentScore& score, const Window& w) {
    const size_t size = std::min(w.tokens.size(), kPassageTokens);
    if (size <= s_.passage.size()) return;
    routing::Decisions cut = score.decisions;
    for (auto& run : cut.run) run.resize(size);
    s_.passage = views(*subject_.tokenizer, w.tokens.subspan(0, size), cut, subject_.engine->config());
  }

  const Subject& subject_;
  const HeldOut& text_;
  DepthStudy s_;
  infer::RoutingPolicy policy_;
  std::vector<int32_t> bytes_;
  std::vector<DepthGroup> types_;  // [V]
  std::vector<Spread> spread_;     // [units]
  std::vector<size_t> full_cut_;   // [units]; of a static one any number
  std::vector<std::pair<int32_t, Occurrence>> deepest_, shallowest_;
  model::ForwardCost spent_, dense_;
  int64_t settled_ = 0;  // tokens after which the deviations of the scores say something
  int64_t bin_ = 1, predicted_ = 0, predicted_bytes_ = 0;
  double nll_ = 0;
};

Json groups_json(const std::vector<DepthGroup>& groups, int64_t least) {
  Json j = Json::array();
  for (const DepthGroup& g : groups) {
    Json share = Json::array(), light = Json::array();
    for (size_t u = 0; u < g.ran.size(); ++u) share.push_back(g.share(u)), light.push_back(g.light_share(u));
    j.push_back({{"name", g.name}, {"tokens", g.tokens}, {"mean_depth", g.mean_depth(least)}, {"share", share}, {"light", light}});
  }
  return j;
}

Json examples_json(const std::vector<TokenExample>& examples) {
  Json j = Json::array();
  for (const TokenExample& e : examples) j.push_back({{"token", e.token}, {"before", e.before}, {"after", e.after}, {"depth", e.depth}, {"margin", e.margin}});
  return j;
}

Json types_json(const std::vector<TokenType>& types) {
  Json j = Json::array();
  for (const TokenType& t : types) j.push_back({{"token", t.token}, {"count", t.count}, {"mean_depth", t.mean_depth}});
  return j;
}

}  // namespace

double DepthGroup::mean_depth(int64_t least) const {
  if (tokens == 0) return std::nan("");
  return static_cast<double>(least) + static_cast<double>(blocks) / static_cast<double>(tokens);
}

double DepthGroup::share(size_t u) const { return tokens > 0 ? static_cast<double>(ran[u]) / static_cast<double>(tokens) : std::nan(""); }

double DepthGroup::light_share(size_t u) const { return tokens > 0 ? static_cast<double>(light[u]) / static_cast<double>(tokens) : std::nan(""); }

Json DepthStudy::to_json() const {
  Json j = {{"model", model}, {"text", text}, {"rule", name_of(rule, infer::kRuleNames)}, {"dial", dial}, {"tokens", tokens}, {"context", context}, {"loss", loss},
            {"bits_per_byte", std::isfinite(bits_per_byte) ? Json(bits_per_byte) : Json()}, {"block_fraction", block_fraction},
            {"total_fraction", total_fraction}, {"blocks", blocks}, {"routed_blocks", Json::array()}, {"routed_parts", Json::array()}, {"least_depth", least}, {"most_depth", most},
            {"mean_depth", all.mean_depth(least)}, {"tokens_by_depth", histogram}};
  for (const routing::RoutedUnit& unit : routed) j["routed_blocks"].push_back(unit.block), j["routed_parts"].push_back(name_of(unit.part, routing::kPartNames));
  const Json whole = groups_json({all}, least)[0];
  j["share"] = whole["share"], j["light"] = whole["light"];
  j["by_position"] = groups_json(by_position, least);
  j["by_class"] = groups_json(by_class, least);
  j["by_frequency"] = groups_json(by_frequency, least);
  j["by_difficulty"] = groups_json(by_difficulty, least);
  j["deepest"] = examples_json(deepest), j["shallowest"] = examples_json(shallowest);
  j["deepest_types"] = types_json(deep_types), j["shallowest_types"] = types_json(shallow_types);
  j["passage"] = Json::array();
  for (const TokenView& t : passage) j["passage"].push_back({{"id", t.id}, {"text", t.text}, {"depth", t.depth}, {"run", t.run}});
  return j;
}

std::vector<TokenView> views(const text::Tokenizer& tokenizer, std::span<const int32_t> ids, const routing::Decisions& decisions, const model::ModelConfig& config) {
  std::vector<TokenView> result;
  std::string held;
  for (size_t t = 0; t < ids.size(); ++t) {
    TokenView v;
    v.id = ids[t], v.depth = config.least_depth();
    held += tokenizer.is_special(ids[t]) ? tokenizer.token_text(ids[t]) : tokenizer.token_bytes(ids[t]);
    const size_t whole = held.size() - utf8_incomplete_tail(held);
    v.text = utf8_repair(held.substr(0, whole));
    held.erase(0, whole);
    for (const auto& run : decisions.run) {
      if (t >= run.size()) break;
      v.run.push_back(run[t]);
    }
    if (v.run.size() == config.routing.units.size()) v.depth += config.routing.full_blocks(v.run);
    result.push_back(std::move(v));
  }
  return result;
}

DepthStudy study_depth(const Subject& subject, const HeldOut& text, std::optional<double> dial, const EvaluateProgress& progress) {
  Collector collector(subject, text, dial);
  std::vector<std::span<const int32_t>> windows;
  for (const Window& w : text.windows) windows.push_back(w.tokens);
  int64_t done = 0;
  infer::score_documents(*subject.engine, windows, {.policy = collector.policy()}, [&](infer::DocumentScore&& score) {
    collector.add(score);
    done += static_cast<int64_t>(score.nll.size());
    if (progress) progress(done, text.predicted, collector.loss());
  });
  return collector.finish();
}

}  // namespace fathom::study
