"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("bad-overlap", "overlapping tensors are refused", "src/formats/safetensors.cpp", "if (raw.begin != expected) {", "if (raw.begin > expected) {", "test_formats", "*"),
    ("bad-gguf-wrap", "a GGUF shape whose product wraps is refused", "src/formats/gguf.cpp", "for (int64_t d : t.shape) overflow = overflow || __builtin_mul_overflow(elements, d, &elements);",
     "for (int64_t d : t.shape) elements = static_cast<int64_t>(static_cast<uint64_t>(elements) * static_cast<uint64_t>(d));", "test_formats", "*BadGguf*"),
    ("bad-gguf-overlap", "two GGUF tensors on the same bytes are refused", "src/formats/gguf.cpp", "if (begin(t) < end)", "if (begin(t) < begin(before))", "test_formats", "*BadGguf*"),
    ("bad-gguf-string", "a length past its bound is refused", "src/formats/gguf_cursor.h", "if (length > static_cast<uint64_t>(cap)) fail", "if (length > static_cast<uint64_t>(cap) + 1) fail", "test_formats", "Limits.Gguf"),
    ("finite-minimum", "a block whose minimum is no number is not finite", "src/formats/ggml_decode.cpp", "    if constexpr (requires { b.dmin; }) finite &= half_is_finite(b.dmin);\n", "", "test_formats", "GgmlTypes.Finite*"),
    ("finite-rest", "the last numbers of a row are looked at", "src/formats/ggml_decode.cpp", "  look(rest);\n", "", "test_formats", "GgmlTypes.Finite*"),
    ("ggml-search", "the search for K types is at least llama.cpp's", "src/formats/ggml_quantize_k.cpp", "for (int i = -10; i <= 20; ++i) fit.attempt", "for (int i = -10; i <= -10; ++i) fit.attempt", "test_formats", "GgmlQuantize.*"),
    ("gguf-writer-offset", "a GGUF file of ours says where its tensors are", "src/formats/gguf_writer.cpp", "    offset += padded(t.bytes());\n", "    offset += t.bytes();\n",
     "test_formats", "GgufWriter.*"),
]
