// Dials that are found by moving thresholds: how many passes over the text that takes.
#include "routing/shift.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fathom::routing {
namespace {

// A model of one unit whose scores are logistic round 3.
struct Logistic {
  double wrong = 0;      // what `expected` is off by, in the amount
  bool expects = true;
  int passes = 0;

  static double fraction(double threshold) { return 1 / (1 + std::exp(threshold - 3)); }
  DialPoint find(ThresholdShift& shift, double dial) {
    passes = 0;
    return shift.find(dial);
  }
  ThresholdShift shift() {
    return ThresholdShift({3.5f}, [this](const std::vector<float>& thresholds) {
      ++passes;
      const double at = thresholds[0];
      ThresholdShift::Met met{{.dial = 0, .block_fraction = fraction(at), .thresholds = thresholds, .capacity = {fraction(at)}, .loss = 0}};
      if (expects) met.expected = [this, at](double by) { return fraction(at + by * (1 + wrong)); };
      return met;
    });
  }
};

TEST(ThresholdShift, FindsWhatScoresSay) {
  Logistic model;
  ThresholdShift shift = model.shift();
  EXPECT_NEAR(model.find(shift, 0.8).block_fraction, 0.8, 0.003);
  EXPECT_EQ(model.passes, 2);  // where the thresholds are, and there
  for (const double dial : {0.2, 0.5, 0.95}) {
    const DialPoint point = model.find(shift, dial);
    EXPECT_NEAR(point.block_fraction, dial, 0.003) << dial;
    EXPECT_NEAR(point.thresholds[0], 3 + std::log(1 / dial - 1), 0.05);
    EXPECT_EQ(model.passes, 1) << dial;
  }
}

TEST(ThresholdShift, ConvergesWhateverScoresSay) {
  for (const double wrong : {-0.9, -0.5, 0.5, 3.0, -2.0}) {
    Logistic model{.wrong = wrong};
    ThresholdShift shift = model.shift();
    for (const double dial : {0.8, 0.2, 0.5, 0.95}) EXPECT_NEAR(model.find(shift, dial).block_fraction, dial, 0.03) << wrong << " " << dial;
  }
  Logistic silent{.expects = false};
  ThresholdShift shift = silent.shift();
  for (const double dial : {0.8, 0.2, 0.5, 0.95}) EXPECT_NEAR(silent.find(shift, dial).block_fraction, dial, 0.003) << dial;
}

}  // namespace
}  // namespace fathom::routing
