"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("quantize-rotary", "q and k of a GGUF file of ours are interleaved", "src/model/stored_tensor.cpp", "return n - in + in % 2 * (head_dim / 2) + in / 2;", "return n;",
     "test_convert", "Quantize.AnEngineOverAGguf*"),
    ("quantize-vector", "so are the elements of their biases", "src/convert/quantize.cpp", "  if (source.shape.size() == 1 && head > 0) {", "  if (source.shape.size() == 1 && head > 1000) {",
     "test_convert", "Quantize.*"),
    ("quantize-router", "routers stay f32", "src/model/schema.cpp", "return spec.name.ends_with(\"_proj.weight\") ||", "return spec.name.ends_with(\"_proj.weight\") || spec.name.ends_with(\"router.weight\") ||",
     "test_convert", "PlanQuantize.*"),
    ("quantize-carried", "what has the type keeps its bytes", "src/convert/quantize.cpp", "    p.carried = p.from == p.to;\n", "    p.carried = false;\n", "test_convert", "Quantize.WhatHas*"),
    ("quantize-range", "a weight that the type cannot hold is refused", "src/convert/quantize.cpp", "    if (!std::isfinite(back[k]))\n", "    if (std::isnan(back[k]))\n",
     "test_convert", "Quantize.RefusesByName"),
    ("quantize-overwrite", "the old folder stands until the new one is whole", "src/convert/quantize.cpp", "  atomic_folder(beside, fill);\n  remove_all(place.string());\n",
     "  remove_all(place.string());\n  atomic_folder(beside, fill);\n", "test_convert", "Quantize.Overwrites*"),
    ("walk-order", "calibration decides earlier blocks by their thresholds", "src/infer/walk.cpp", "    policy.thresholds = thresholds;\n    policy.thresholds.resize(routing().cuts(), std::numeric_limits<float>::infinity());\n",
     "    policy.thresholds.assign(routing().cuts(), -std::numeric_limits<float>::infinity());\n", "test_convert", "Calibrate.*"),
    ("paths-quantised", "light paths are quantised", "src/model/schema.cpp", 'spec.name.ends_with("light.up.weight")', 'spec.name.ends_with("light.flat.weight")', "test_convert", "Quantize.LightPaths*"),
]
