#include "study/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "kernels/roofline.h"
#include "model/cost.h"
#include "model/random_model.h"
#include "study/statistics.h"

namespace fathom::study {
namespace {

using Clock = std::chrono::steady_clock;

// One round of one model at one work.
struct Timed {
  double tokens_per_second = 0;
  double bytes = 0, flops = 0;  // of all its tokens: read, done
  double tokens = 0;
  double rows = 0, run = 0;  // at units
  double attention_seconds = 0, attention_bytes = 0, steps = 1;
  double kv_bytes = 0;       // of pages
  double gb_limit = 0, attention_limit = 0;  // what the machine read as many bytes at, before and behind it
};

void count_routed(const infer::Engine& engine, const infer::EngineCounters& before, const infer::EngineCounters& after, Timed& out) {
  for (size_t u = 0; u < engine.config().routing.units.size(); ++u) {
    out.rows += static_cast<double>(after.rows - before.rows);
    out.run += static_cast<double>(after.unit_rows[u] - before.unit_rows[u]);
  }
}

// `before` is called between reading the texts and decoding them.
Timed decode(const BenchModel& model, const std::vector<std::vector<int32_t>>& texts, int64_t depth, int64_t chunk, const std::function<void()>& before) {
  infer::Engine& engine = *model.engine;
  std::vector<infer::Sequence> sequences;
  infer::StepResult result;
  std::vector<infer::WorkItem> items;
  std::vector<routing::Decisions> decisions(texts.size());
  double flops = 0;
  const auto flops_of = [&](int64_t tokens, const routing::Decisions& decided, int64_t head_rows) {
    return tokens == 0 ? 0 : model::forward_cost(engine.config(), tokens, decided, head_rows).flops();
  };
  for (const auto& text : texts) {
    sequences.push_back(engine.new_sequence());
    for (int64_t at = 0; at < depth; at += chunk) {
      const infer::WorkItem before{.sequence = &sequences.back(), .tokens = std::span(text).subspan(static_cast<size_t>(at), static_cast<size_t>(std::min(chunk, depth - at))),
                                   .policy = &model.policy, .logits = infer::Logits::none};
      engine.forward({&before, 1}, result);
      result.append_decisions(0, decisions[sequences.size() - 1]);
    }
    flops -= flops_of(depth, decisions[sequences.size() - 1], 0);
  }
  const infer::EngineCounters start = engine.counters();
  const size_t end = texts[0].size();
  before();
  const auto begin = Clock::now();
  for (size_t t = static_cast<size_t>(depth); t < end; ++t) {
    items.clear();
    for (size_t i = 0; i < texts.size(); ++i)
      items.push_back({.sequence = &sequences[i], .tokens = std::span(texts[i]).subspan(t, 1), .policy = &model.policy});
    engine.forward(items, result);
    for (size_t i = 0; i < texts.size(); ++i) result.append_decisions(i, decisions[i]);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const double steps = static_cast<double>(end) - static_cast<double>(depth), tokens = steps * static_cast<double>(texts.size());
  const double attention_bytes = static_cast<double>(engine.counters().attention_bytes - start.attention_bytes);
  const double bytes = static_cast<double>(engine.counters().weight_bytes - start.weight_bytes) + attention_bytes;
  for (const routing::Decisions& decided : decisions) flops += flops_of(static_cast<int64_t>(end), decided, static_cast<int64_t>(steps));
  Timed out{.tokens_per_second = tokens / seconds, .bytes = bytes, .flops = flops, .tokens = tokens};
  out.attention_seconds = engine.counters().attention_seconds - start.attention_seconds, out.attention_bytes = attention_bytes, out.steps = steps;
  for (const infer::Sequence& sequence : sequences) out.kv_bytes += static_cast<double>(sequence.kv_bytes());
  count_routed(engine, start, engine.counters(), out);
  return out;
}

Timed prompt(const BenchModel& model, const std::vector<int32_t>& text, int64_t chunk) {
  infer::Engine& engine = *model.engine;
  infer::Sequence sequence = engine.new_sequence();
  infer::StepResult result;
  routing::Decisions decisions;
  const infer::EngineCounters start = engine.counters();
  const auto begin = Clock::now();
  for (size_t at = 0; at < text.size(); at += static_cast<size_t>(chunk)) {
    const size_t count = std::min(static_cast<size_t>(chunk), text.size() - at);
    const infer::WorkItem item{.sequence = &sequence, .tokens = std::span(text).subspan(at, count), .policy = &model.policy,
                               .logits = at + count == text.size() ? infer::Logits::last : infer::Logits::none};
    engine.forward({&item, 1}, result);
    result.append_decisions(0, decisions);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const double n = static_cast<double>(text.size());
  Timed out{.tokens_per_second = n / seconds, .flops = model::forward_cost(engine.config(), static_cast<int64_t>(text.size()), decisions, 1).flops(), .tokens = n};
  out.bytes = static_cast<double>(engine.counters().weight_bytes - start.weight_bytes + engine.counters().attention_bytes - start.attention_bytes);
  count_routed(engine, start, engine.counters(), out);
  return out;
}

// The arithmetic of most of a model's products.
kernels::Arithmetic arithmetic_of(const infer::Engine& engine) {
  kernels::Packing packing = engine.weights().head().packing();
  for (const infer::BlockWeights& block : engine.weights().blocks())
    if (block.gate.outputs() > 0) packing = block.gate.packing();
  switch (kernels::operand_of(packing)) {
    case kernels::Operand::f32: return kernels::Arithmetic::f32;
    case kernels::Operand::bf16: return kernels::multiply_add_peak(kernels::Arithmetic::bf16, 1) > 0 ? kernels::Arithmetic::bf16 : kernels::Arithmetic::f32;
    case kernels::Operand::codes: return kernels::Arithmetic::int8;
  }
  FATHOM_ASSERT(false, "an operand without arithmetic");
}

double gb_of(const Timed& t) { return t.tokens_per_second * t.bytes / t.tokens / 1e9; }

BenchLine line_of(const std::string& work, const BenchModel& model, const std::vector<Timed>& rounds, const std::vector<Timed>& first, bool decodes, bool limits) {
  std::vector<double> rates, ratios, limits_seen, shares;
  double tokens = 0, bytes = 0, flops = 0, first_bytes = 0, first_flops = 0, rows = 0, run = 0;
  for (size_t i = 0; i < rounds.size(); ++i) {
    rates.push_back(rounds[i].tokens_per_second), ratios.push_back(rounds[i].tokens_per_second / first[i].tokens_per_second);
    tokens += rounds[i].tokens, bytes += rounds[i].bytes, flops += rounds[i].flops, first_bytes += first[i].bytes, first_flops += first[i].flops;
    limits_seen.push_back(rounds[i].gb_limit), shares.push_back(rounds[i].gb_limit > 0 ? gb_of(rounds[i]) / rounds[i].gb_limit : 0);
    rows += rounds[i].rows, run += rounds[i].run;
  }
  const double n = static_cast<double>(rounds.size());
  BenchLine line{.work = work, .model = model.name, .tokens_per_second = median(rates), .slowest = *std::ranges::min_element(rates),
                 .fastest = *std::ranges::max_element(rates), .decodes = decodes};
  line.gb = line.tokens_per_second * bytes / tokens / 1e9;
  line.gop = line.tokens_per_second * flops / tokens / 1e9;
  if (limits) {
    line.gb_limit = median(limits_seen), line.gb_share = median(shares);
    line.gop_limit = kernels::multiply_add_peak(arithmetic_of(*model.engine), model.engine->threads());
  }
  if (decodes) {
    std::vector<double> attention, of_limit, attention_limits;
    for (const Timed& t : rounds) {
      attention.push_back(t.attention_bytes / t.attention_seconds / 1e9), attention_limits.push_back(t.attention_limit), of_limit.push_back(t.attention_limit > 0 ? attention.back() / t.attention_limit : 0);
      line.kv_bytes += t.kv_bytes / n;
    }
    line.attention = median(attention);
    if (limits) line.attention_limit = median(attention_limits), line.attention_share = median(of_limit);
  }
  line.run_share = rows > 0 ? run / rows : 1;
  const routing::RoutingConfig& routing = model.engine->config().routing;
  double expected = 0;
  for (size_t u = 0; u < routing.units.size(); ++u) expected += routing.shares(u, model.capacity).full;
  line.expected_run_share = routing.units.empty() ? 1 : expected / static_cast<double>(routing.units.size());
  line.speedup = median(ratios);
  line.rates = rates;
  line.flops_saved = 1 - flops / first_flops;  // of the same tokens, as what follows
  const auto least_seconds = [&](double b, double f) { return std::max(b / line.gb_limit, f / line.gop_limit); };
  line.allowed = !decodes                                    ? first_flops / flops
                 : line.gb_limit > 0 && line.gop_limit > 0 ? least_seconds(first_bytes, first_flops) / least_seconds(bytes, flops)
                                                             : first_bytes / bytes;
  return line;
}

}  // namespace

std::string prompt_name(const BenchWork& work) { return str("prompt ", work.prompt); }

std::string decode_name(const BenchWork& work, int64_t batch) {
  return str("generate ", work.generate, batch > 1 ? str(", batch ", batch) : "", work.depth > 0 ? str(", depth ", work.depth) : "");
}

std::vector<BenchLine> bench_engines(const std::vector<BenchModel>& models, const BenchWork& work, const std::function<void(int)>& between) {
  struct Task {
    std::string name;
    int64_t batch;  // 0: a prompt
  };
  std::vector<Task> tasks;
  if (work.prompt > 0) tasks.push_back({prompt_name(work), 0});
  for (int64_t batch : work.batches)
    if (work.generate > 0) tasks.push_back({decode_name(work, batch), batch});
  std::vector<std::vector<std::vector<Timed>>> times(tasks.size(), std::vector<std::vector<Timed>>(models.size()));
  std::vector<std::vector<Timed>> warm(tasks.size(), std::vector<Timed>(models.size()));  // the round before, which says how many bytes a step reads
  kernels::BandwidthMeter meter(models[0].engine->threads());
  const auto allowed_now = [&](const Timed& t) {
    constexpr int64_t kVolume = int64_t{1} << 30;
    const auto of = [&](double bytes) { return work.limits ? meter.measure(static_cast<int64_t>(bytes / t.steps), kVolume) : 0; };
    return std::pair(of(t.bytes), of(t.attention_bytes));
  };
  Random random(7);
  size_t next = 0;  // of work.texts
  const auto text = [&](int64_t tokens) {
    if (work.texts.empty()) return model::random_tokens(models[0].engine->config(), tokens, random);
    std::vector<int32_t> ids;
    while (std::ssize(ids) < tokens) {
      const std::span<const int32_t> stretch = work.texts[next++ % work.texts.size()];
      ids.insert(ids.end(), stretch.begin(), stretch.begin() + std::min(std::ssize(stretch), tokens - std::ssize(ids)));
    }
    return ids;
  };
  for (int round = -1; round < work.rounds; ++round) {  // round −1 warms up
    for (size_t t = 0; t < tasks.size(); ++t) {
      std::vector<std::vector<int32_t>> texts;
      for (int64_t i = 0; i < std::max<int64_t>(1, tasks[t].batch); ++i)
        texts.push_back(text(tasks[t].batch ? work.depth + work.generate : work.prompt));
      for (size_t m = 0; m < models.size(); ++m) {
        const auto turn = [&](const std::function<void()>& before) {
          if (tasks[t].batch) return decode(models[m], texts, work.depth, work.chunk, before);
          before();
          return prompt(models[m], texts[0], work.chunk);
        };
        Timed& last = warm[t][m];
        if (round < 0) {
          last = turn([] {});
        } else {
          std::pair<double, double> first;
          last = turn([&] { first = allowed_now(last); });
          const auto [gb, attention] = allowed_now(last);
          last.gb_limit = (first.first + gb) / 2, last.attention_limit = (first.second + attention) / 2;
          times[t][m].push_back(last);
        }
        if (work.turn) work.turn();
      }
    }
    if (between) between(round);
  }
  std::vector<BenchLine> lines;
  for (size_t t = 0; t < tasks.size(); ++t)
    for (size_t m = 0; m < models.size(); ++m) lines.push_back(line_of(tasks[t].name, models[m], times[t][m], times[t][0], tasks[t].batch > 0, work.limits));
  return lines;
}

double speedup(const BenchLine& a, const BenchLine& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < a.rates.size(); ++i) ratios.push_back(a.rates[i] / b.rates[i]);
  return median(ratios);
}

double allowed_speedup(const BenchLine& a, const BenchLine& b) {
  const auto per_token = [&](const BenchLine& l) { return (l.decodes ? l.gb : l.gop) / l.tokens_per_second; };
  return per_token(b) / per_token(a);
}

double share_of_limit(const BenchLine& l) { return l.decodes ? l.gb_share : l.gop_share(); }

MachineLine bench_machine(int threads) {
  using kernels::Arithmetic;
  MachineLine m{.threads = threads};
  m.memory = kernels::read_bandwidth(int64_t{1} << 29, threads);
  m.third_level = kernels::read_bandwidth(int64_t{threads} << 23, threads);
  m.second_level = kernels::read_bandwidth(int64_t{threads} << 19, threads);
  m.f32 = kernels::multiply_add_peak(Arithmetic::f32, threads);
  m.bf16 = kernels::multiply_add_peak(Arithmetic::bf16, threads);
  m.int8 = kernels::multiply_add_peak(Arithmetic::int8, threads);
  return m;
}

Json to_json(const BenchLine& l) {
  Json j = {{"work", l.work}, {"model", l.model}, {"tokens_per_second", l.tokens_per_second}, {"slowest", l.slowest}, {"fastest", l.fastest},
          {"gb_per_second", l.gb}, {"gop_per_second", l.gop}, {"limit_gb_per_second", l.gb_limit}, {"limit_gop_per_second", l.gop_limit},
          {"share_of_limit", l.gb_limit > 0 ? Json(share_of_limit(l)) : Json()}, {"gb_share", l.gb_share}, {"gop_share", l.gop_share()}, {"run_share", l.run_share}, {"expected_run_share", l.expected_run_share},
          {"flops_saved", l.flops_saved}, {"seconds_saved", l.seconds_saved()}, {"speedup", l.speedup}, {"allowed_speedup", l.allowed}};
  if (l.decodes) j["attention_gb_per_second"] = l.attention, j["attention_limit_gb_per_second"] = l.attention_limit, j["attention_share"] = l.attention_share, j["kv_bytes"] = l.kv_bytes;
  return j;
}

Json to_json(const MachineLine& m) {
  return {{"threads", m.threads}, {"memory_gb_per_second", m.memory}, {"third_level_gb_per_second", m.third_level}, {"second_level_gb_per_second", m.second_level},
          {"f32_gop_per_second", m.f32}, {"bf16_gop_per_second", m.bf16}, {"int8_gop_per_second", m.int8}};
}

}  // namespace fathom::study
