"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("oracle-gradient", "all gradients equal the plain PyTorch model's", "src/nn/kernels_rows_impl.h", "const P q = t.rstd ? -s * t.rstd[i]",
     "const P q = t.rstd ? s * t.rstd[i]", "tests/oracle/test_nn.py", "logits_losses"),
    ("oracle-gate", "logits equal the plain PyTorch model's", "src/nn/pass.cpp", "1 + routing.gate_scale * at::tanh(r)",
     "1 + at::tanh(routing.gate_scale * r)", "tests/oracle/test_nn.py", "logits_losses"),
    ("oracle-steps", "ten training losses equal the plain PyTorch model's", "src/train/optimizer.cpp", "config_.beta1, config_.beta2,\n",
     "config_.beta2, config_.beta1,\n", "tests/oracle/test_nn.py", "ten_training"),
    ("oracle-dense", "dense models equal transformers", "src/nn/kernels_rows_impl.h", "put(to + f, g * silu_sigmoid(g) * static_cast<P>(get(up[f])));",
     "put(to + f, g * silu_sigmoid(P(1.01) * g) * static_cast<P>(get(up[f])));", "tests/oracle/test_nn.py", "dense_model_equals"),
    ("ggml-codes", "blocks unpack as the gguf package unpacks them", "src/formats/ggml_decode.cpp", "(high[j] >> 6) << 4", "(high[j] >> 6 & 1) << 4", "tests/oracle/test_gguf.py", "dequantised"),
    ("ggml-halves", "blocks are packed as the gguf package packs them", "src/formats/ggml_quantize.cpp", ">= 0.5f)", "> 0.5f)", "tests/oracle/test_gguf.py", "quantised"),
    ("family-oracle", "families equal transformers", "src/model/config.cpp", 'c.output_bias = type != "qwen2" && c.qkv_bias;', "c.output_bias = c.qkv_bias;", "tests/oracle/test_families.py", "logits"),
    ("quantize-divisors", "a GGUF file of ours says how Llama 3's positions are scaled", "src/model/rope.cpp", "  if (scaling.type == Type::divided) return scaling.divisors;\n  if (scaling.type != Type::llama3) return {};",
     "  if (scaling.type == Type::divided) return scaling.divisors;\n  return {};", "tests/oracle/test_families.py", "ours_is_what"),
]
