"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("calibration-rank", "the threshold is the k-th greatest score", "src/routing/dial.cpp", "(std::min(k, numbers) - 1);", "(std::min(k + 1, numbers) - 1);", "test_routing", "*"),
    ("calibration-order", "a block is calibrated under the thresholds before it", "src/routing/dial.cpp", "scores(u, thresholds);", "scores(u, {});", "test_routing", "*"),
    ("paths-depth", "half a block is no depth", "src/routing/config.cpp", "else if (!full) out -=", "else if (!full) out += 0 *", "test_routing", "RoutingConfig.UnitsOfABlock"),
    ("shift-scores", "a dial's thresholds are looked for where scores say", "src/routing/shift.cpp", "if (pass < kByScores && expected_) {", "if (false) {", "test_routing", "ThresholdShift.*"),
]
