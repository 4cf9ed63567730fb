"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("bpe-order", "merges go by rank", "src/text/bpe.cpp", "const auto lowest = std::min_element(ranks.begin(), ranks.end());", "const auto lowest = std::max_element(ranks.begin(), ranks.end());",
     "test_text", "*"),
    ("piece-merges", "merges made of scores: the better piece first", "src/text/piece_merges.cpp", "return a.score > b.score;", "return a.score < b.score;", "test_text", "Gguf*"),
    ("chat-trim", "a line end behind a block goes", "src/text/jinja_lexer.cpp", 'else if (trim && looking_at("\\n")) ++to;', "", "test_text", "ChatTemplate*"),
    ("gguf-export-added", "added tokens keep their kind", "src/text/gguf_export.cpp", "special ? GgufTokenType::control : GgufTokenType::user_defined", "GgufTokenType::control",
     "test_text", "GgufExport.*"),
]
