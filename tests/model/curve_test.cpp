// The stored curve: it comes back as it was written, and a damaged one is refused by field.
#include "model/curve.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"

namespace fathom::model {
namespace {

DialCurve sample() {
  DialCurve c;
  c.model = "mod", c.text = "book.txt", c.tokens = 1000, c.context = 64, c.units = 12, c.by_stretch = true;
  c.weights = "F32", c.kv_type = "f32", c.machine = "2 threads", c.date = "2026-11-29", c.thresholds = "0123";
  for (const double dial : {1.0, 0.75, 0.5}) {
    CurvePoint p{.name = "mod", .dial = dial, .block_fraction = dial, .total_fraction = 0.5 + dial / 2};
    p.loss = {3 - dial, 0.1}, p.over_full = {1 - dial, 0.01}, p.kv_bytes = 100 * dial, p.kv_bytes_expected = 99 * dial, p.full = {dial, 1};
    p.tasks = {{.name = "piqa", .items = 20, .accuracy = 0.5, .error = 0.1, .over_full = {-0.05, 0.02}, .over_dense = {}}};
    p.speeds = {{.batch = 0, .tokens = 512, .depth = 0, .tokens_per_second = 1500.5, .slowest = 1400, .fastest = 1600, .over_full = 1.25, .full_allows = 1.5}};
    c.points.push_back(p);
  }
  c.rivals = {c.points[1]};
  c.rivals[0].curve_minus_this = {-0.02, NAN};
  return c;
}

TEST(Curve, ComesBackAsItWas) {
  const TemporaryFolder folder;
  EXPECT_FALSE(read_curve(folder.path()));
  for (const bool dense : {false, true}) {
    DialCurve c = sample();
    if (dense) c.dense = c.points[0], c.points[1].over_dense = {0.5, 0.25}, c.points[1].speeds[0].over_dense = 1.5;
    write_curve(folder.path(), c);
    const std::optional<DialCurve> back = read_curve(folder.path());
    ASSERT_TRUE(back);
    EXPECT_EQ(back->to_json().dump(), c.to_json().dump());
    EXPECT_EQ(back->dense.has_value(), dense);
    EXPECT_EQ(back->points[1].speeds[0].over_dense == 1.5, dense);
    EXPECT_TRUE(std::isnan(back->rivals[0].curve_minus_this.half));
  }
}

std::string refused(const std::function<void(Json&)>& damage) {
  Json j = sample().to_json();
  damage(j);
  try {
    DialCurve::from_json(j, "c");
  } catch (const UserError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Curve, ADamagedOneIsRefused) {
  const auto says = [](const std::string& words, const std::function<void(Json&)>& damage) {
    const std::string found = refused(damage);
    EXPECT_NE(found.find(words), std::string::npos) << found;
  };
  says("version: found the number 2", [](Json& j) { j["version"] = 2; });
  says("points[2].dial: found 0.75 after 0.75, expected falling dials", [](Json& j) { j["points"][2]["dial"] = 0.75; });
  says("points: found dial 0.75 first", [](Json& j) { j["points"].erase(0); });
  says("points", [](Json& j) { j["points"] = Json::array(); });
  says("points[1].loss", [](Json& j) { j["points"][1]["loss"] = nullptr; });
  says("points[0].loss.value", [](Json& j) { j["points"][0]["loss"]["value"] = "high"; });
  says("points[0].speed[0].tokens_per_second", [](Json& j) { j["points"][0]["speed"][0]["tokens_per_second"] = -1; });
  says("points[0].tasks[0].accuracy", [](Json& j) { j["points"][0]["tasks"][0]["accuracy"] = 1.5; });
  says("points[0].full[1]", [](Json& j) { j["points"][0]["full"][1] = 2; });
  says("rivals", [](Json& j) { j["rivals"] = 3; });
  says("surprise", [](Json& j) { j["surprise"] = 1; });
  says("intervals_over", [](Json& j) { j["intervals_over"] = "pages"; });
  EXPECT_EQ(refused([](Json& j) { j["points"][0]["kv_bytes_per_token"] = limits::kMeasured; }), "accepted");
  says("points[0].kv_bytes_per_token", [](Json& j) { j["points"][0]["kv_bytes_per_token"] = 2 * limits::kMeasured; });
  const TemporaryFolder folder;
  atomic_write(join_path(folder.path(), "fathom_curve.json"), "{\"version\": 1, \"mod");
  EXPECT_THROW(read_curve(folder.path()), UserError);
}

TEST(Curve, KnowsTheThresholdsThatItWasMeasuredAt) {
  routing::DialTable table;
  table.points = {{0.5, 0.5, {1.5F, 0.25F}, {0.1, 0.2}, 7.0}, {1.0, 1.0, {-4.0F, -4.0F}, {1, 1}, 6.8}};
  DialCurve c = sample();
  c.thresholds = thresholds_hash(table);
  EXPECT_TRUE(c.measured_at(table));
  table.set_default(0.5), table.text = "other words";
  EXPECT_TRUE(c.measured_at(table)) << "which dial is the default changes no figure";
  table.points[0].thresholds[1] = 0.2500001F;
  EXPECT_FALSE(c.measured_at(table));
}

}  // namespace
}  // namespace fathom::model
