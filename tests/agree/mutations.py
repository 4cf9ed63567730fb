"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("law-top-k-per-item", "the teacher's view is per sequence", "src/infer/decide.cpp",
     "routing::top_k(selecting, routing::selected_count(policy.capacity[cut], tokens), routing.forced_positions)",
     "routing::top_k(selecting, routing::selected_count(policy.capacity[cut], tokens + 1), routing.forced_positions)", "test_agree", "*"),
    ("agree-positions", "nn and infer agree on logits", "src/infer/block.cpp", "finish_heads(step, key, G, w.k_bias, w.k_norm, row.position);",
     "finish_heads(step, key, G, w.k_bias, w.k_norm, step.slots[i]);", "test_agree", "*"),
    ("agree-predictor", "nn and infer agree on decisions", "src/infer/decide.cpp", "step.kernels.dot(unit.fc2.data(), row, P) + unit.fc2_bias;",
     "step.kernels.dot(unit.fc2.data(), row, P);", "test_agree", "*"),
    ("agree-gate", "nn and infer agree on gates", "src/infer/decide.cpp", "(1.0f - 2.0f / (1.0f + e))", "(1.0f - 2.0f / (1.001f + e))", "test_agree", "*"),
    ("law-skipped-keys", "kv drop: a skipped token leaves no key", "src/infer/block.cpp", "const bool all_write = M == N || config.routing.kv == routing::KvPolicy::keep;",
     "const bool all_write = true;", "test_agree", "*"),
    ("trained-tokenizer", "the engine takes what training wrote", "src/train/finish.cpp", "out.tokenizer_json = corpus.tokenizer.json();", 'out.tokenizer_json = "{}";', "test_agree", "*Trained*"),
    ("trained-thresholds", "the engine measures what the trainer measured", "src/train/evaluate.cpp", "dial ? dial->thresholds(dial->default_dial) : thresholds(tokens)", "thresholds(tokens / 2)",
     "test_agree", "*Trained*"),
    ("calibrate-grid", "every dial gets the capacities that meet it", "src/convert/calibrate.cpp", "else if (std::abs(old.dial - grid.trained()) > kSameDial) capacity", "else if (old.dial > 2) capacity",
     "test_agree", "*CalibratesAlike*"),
]
