"""What the tests here are to notice; tests/mutations.py says how an entry reads and runs them."""
MUTATIONS = [
    ("bzip2-empty", "an empty file is no packed text", "src/data/decoders.cpp", "if (in.left == 0) return true;", "if (in.left == 0) return false;", "test_data", "*BadDocuments*"),
    ("bzip2-streams", "packed streams follow each other", "src/data/byte_source.cpp", "if (ended && !inside_frame) break;", "if (!inside_frame) break;", "test_data", "Documents.Packed*"),
    ("chat-special", "a conversation's special tokens are such", "src/data/prepare.cpp", "{.add_special_tokens = false, .allow_special = true}", "{}", "test_data", "Prepare.Conversations*"),
    ("chat-ends", "nothing is put around a conversation", "src/data/prepare.cpp", "if (item.conversation) return tokenizer_", "if (item.conversation) tokenizer_", "test_data", "Prepare.Conversations*"),
]
