"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("quality-bytes", "bits per byte count the bytes of targets", "src/study/evaluate.cpp", "const int32_t next = w.tokens[t + 1];", "const int32_t next = w.tokens[t];", "test_study", "*"),
    ("kl-direction", "the divergence is the result's from the original", "src/study/divergence.cpp", "sum += std::exp(p) * (p - q);", "sum += std::exp(q) * (q - p);", "test_study", "Divergence.*"),
    ("kl-last-token", "the last token of a window predicts nothing", "src/study/divergence.cpp", "predicted = std::min(here, size - 1 - at);", "predicted = std::min(here, size - 2 - at);",
     "test_study", "*Diverge.*"),
    ("paths-agreement", "agreement knows exits", "src/study/evaluate.cpp", "const bool rule = forced || (!exited[t] && ", "const bool rule = forced || (", "test_study", "Evaluate.AgreementKnows*"),
    ("sensitivity-least", "the tokens that are changed least do without", "src/study/sensitivity.cpp", "return x != y ? x < y : a < b;", "return x != y ? x > y : a < b;", "test_study", "Sensitivity.*"),
]
