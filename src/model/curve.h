// What a model with routed blocks was measured to give and to cost at its dials, in its folder as fathom_curve.json (docs/formats.md): block
// fraction → loss, accuracy, tokens per second, bytes of keys and values. study/dial_curve.h measures it. Whoever makes another model of
// this one leaves the file behind.
#pragma once
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "routing/dial.h"

namespace fathom::model {

inline constexpr int kCurveVersion = 1;

struct Estimate {
  double value = NAN, half = NAN;  // 95 %: value ± half; NaN: not measured, or of too few for an interval
  bool known() const { return std::isfinite(value); }
  bool operator==(const Estimate&) const = default;
};

struct CurveTask {
  std::string name;
  int64_t items = 0;
  double accuracy = 0, error = NAN;  // share of right answers and its standard error
  Estimate over_full, over_dense;    // paired over items: this less dial 1, less the dense model; shares
};

struct CurveSpeed {
  int64_t batch = 0;                 // texts that are decoded together; 0: a prompt
  int64_t tokens = 0, depth = 0;     // of the prompt, or decoded per text behind so many
  double tokens_per_second = 0, slowest = 0, fastest = 0;  // median and range over rounds
  // Times as fast as dial 1 and as the dense model, median of the rounds' ratios; and what the FLOPs of a prompt or the bytes read by
  // decoding allow. NaN where there is no dense model.
  double over_full = NAN, full_allows = NAN, over_dense = NAN, dense_allows = NAN;
  std::string words() const;         // "prompt of 512", "decode", "decode 8 texts"
};

struct CurvePoint {
  std::string name;                  // the model's
  double dial = 1;                   // block fraction asked for
  double block_fraction = 1, total_fraction = 1;  // spent on this text, of the blocks, of all of the routed model with every token full
  Estimate loss;                     // nats per token
  Estimate over_full, over_dense;    // paired: this less dial 1, less the dense model
  Estimate curve_minus_this;         // of rivals: the routed model's, between its two nearest dials at this block fraction, less this
  double kv_bytes = 0, kv_bytes_expected = 0;  // per token: of the slots that the cache gave out; by the dial table's shares
  std::vector<double> full;          // [units] share of tokens that ran it in full
  std::vector<CurveTask> tasks;
  std::vector<CurveSpeed> speeds;
  double perplexity() const { return std::exp(loss.value); }
  double saved() const { return std::abs(1 - total_fraction) < 5e-4 ? 0 : 1 - total_fraction; }  // of all FLOPs; no "-0.0 %" where routers cost next to nothing
  CurveTask mean() const;            // over tasks: the mean of accuracies and of differences
};

struct DialCurve {
  std::string model, text;           // names, for people
  int64_t tokens = 0, context = 0;   // predicted; of a window
  int64_t units = 0;                 // that intervals are over
  bool by_stretch = false;           // these are stretches of text, not documents
  std::string weights, kv_type, machine, date;  // "Q4_1 (210), F32 (61)"; "f32"; "2 threads, avx512vnni kernels"; "2026-11-29"
  std::string thresholds;            // thresholds_hash of the dial table that decided
  std::vector<CurvePoint> points;    // falling by dial, the first is dial 1
  std::optional<CurvePoint> dense;
  std::vector<CurvePoint> rivals;

  bool measured_at(const routing::DialTable& table) const;  // whether the table's thresholds are those that decided
  Json to_json() const;
  static DialCurve from_json(const Json& json, const std::string& where);
};

// Of the dials and thresholds of a table's points.
std::string thresholds_hash(const routing::DialTable& table);

// The folder's curve, if it has one; a damaged one is a UserError.
std::optional<DialCurve> read_curve(const std::string& folder);
void write_curve(const std::string& folder, const DialCurve& curve);

}  // namespace fathom::model
