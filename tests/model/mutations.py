"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("gguf-rotary", "GGUF files interleave the halves of rotary pairs", "src/model/stored_tensor.cpp", "return n - in + in % half * 2 + in / half;", "return n - in + in % half * 2 + in / half * 0;", "test_model", "Gguf*"),
    ("gguf-vector", "GGUF files interleave the elements of biases too", "src/model/stored_tensor.cpp", "  if (interleaved_head == 0 || shape.size() > 1) return;", "  return;", "test_model", "Gguf*"),
    ("gguf-qwen", "Qwen's GGUF files do not interleave", "src/model/gguf_model.cpp", "  return is_llama(architecture) && (name.find", "  return (name.find", "test_model", "Gguf*"),
    ("gguf-begin", "a file's add_bos_token says whether texts begin with the token", "src/model/gguf_model.cpp", 'm.has("tokenizer.ggml.add_bos_token") ? m.boolean("tokenizer.ggml.add_bos_token") : ', "", "test_model", "Gguf*"),
    ("gguf-divisors", "rope_freqs.weight scales the positions", "src/model/gguf_model.cpp", "  s.type = Type::divided;\n", "", "test_model", "Gguf*"),
    ("family-written", "transformers computes what we write", "src/model/config.cpp", "  if (!c.qk_norm && c.qkv_bias && !c.mlp_bias) return kQwen2;\n", "  if (!c.qk_norm && c.qkv_bias && !c.mlp_bias) return kLlama;\n",
     "test_model", "ModelConfig.*"),
    ("family-window", "no text is longer than the window of attention", "src/model/config.cpp", "c.max_position_embeddings = std::min(c.max_position_embeddings, *window);", "static_cast<void>(*window);",
     "test_model", "ModelConfig.*"),
    ("fraction-terms", "the block fraction as a polynomial", "src/model/cost.cpp", "full += qo + kv + pair / 2, square = pair * T / 2;", "full += qo + kv + pair / 2, square = pair * (T + 1) / 2;", "test_model", "ExpectedBlockFraction.*"),
    ("family-bytes", "a row that keeps its key reads the vectors of keys and values", "src/model/cost.cpp", "kOther * (stored * kv_vectors + attends * q_vectors", "kOther * (attends * kv_vectors + stored * q_vectors",
     "test_model", "DecodeBytes.*"),
    ("rope-llama3", "fast pairs keep their frequency", "src/model/rope.cpp", "  if (wavelength < shortest) return frequency;\n", "", "test_model", "Rope.*"),
    ("bad-bound", "a bound of config.json holds", "src/model/config.cpp", 'c.head_dim = f.integer("head_dim", 1, kHeadWidth,', 'c.head_dim = f.integer("head_dim", 1, 2 * kHeadWidth,',
     "test_model", "ModelConfig.*"),
]
