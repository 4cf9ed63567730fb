#include "bounds.h"
#include "core/json.h"
#include "routing/dial.h"

namespace fathom::routing {
namespace {

using namespace limits;

// A table of `n` points, of which the first has `loss` and `block_fraction`.
Json table(int64_t n, double loss = 2, double block_fraction = 0.1) {
  DialTable t;
  t.default_dial = 0.5;
  t.text = "books";
  t.tokens = 100;
  for (int64_t i = 1; i <= n; ++i) {
    const double dial = static_cast<double>(i) / static_cast<double>(n);
    t.points.push_back({dial, dial, {static_cast<float>(-i)}, {dial}, 2});
  }
  Json json = t.to_json();
  json["points"][0]["loss"] = loss;
  json["points"][0]["block_fraction"] = block_fraction;
  return json;
}

void read(const Json& json) { DialTable::from_json(json, "fathom_dial.json", 1); }

TEST(Limits, Dial) {
  expect_bound("kDialPoints", [] { read(table(kDialPoints)); }, [] { read(table(kDialPoints + 1)); }, "an array of 1 to 1024 points");
  expect_bound("kLoss", [] { read(table(2, kLoss)); }, [] { read(table(2, kLoss * 2)); }, "points[0].loss");
  expect_bound("kBlockFraction", [] { read(table(2, 2, kBlockFraction)); }, [] { read(table(2, 2, kBlockFraction * 2)); }, "points[0].block_fraction: found the number 2000000");
}

}  // namespace
}  // namespace fathom::routing
