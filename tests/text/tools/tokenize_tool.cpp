// tokenize_tool TOKENIZER: a server on stdin and stdout for the Python oracle. A request is one byte that says what,
// a 32-bit count and as many bytes (texts) or 32-bit ids; the answer is a 32-bit count and as many ids or bytes.
//   e encode   E encode, special tokens added   a encode, special texts allowed   A both
//   d decode, special tokens skipped   D decode, all   s S the same by StreamDecoder, a byte FF after each step's text
// tokenize_tool train OUT VOCAB gpt2|llama3 THREADS FILE…: trains on the files, one document each.
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"

namespace {

bool read_exactly(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

void answer(const void* data, size_t count, size_t size) {
  const auto n = static_cast<uint32_t>(count);
  std::fwrite(&n, 4, 1, stdout);
  if (count > 0) std::fwrite(data, size, count, stdout);  // an empty result has no address
  std::fflush(stdout);
}

int serve(const std::string& path) {
  const auto tokenizer = fathom::text::Tokenizer::load(path);
  char op = 0;
  uint32_t count = 0;
  while (read_exactly(&op, 1) && read_exactly(&count, 4)) {
    if (op == 'e' || op == 'E' || op == 'a' || op == 'A') {
      std::string text(count, '\0');
      if (!read_exactly(text.data(), count)) return 1;
      const auto ids = tokenizer.encode(text, {.add_special_tokens = op == 'E' || op == 'A', .allow_special = op == 'a' || op == 'A'});
      answer(ids.data(), ids.size(), 4);
      continue;
    }
    std::vector<int32_t> ids(count);
    if (!read_exactly(ids.data(), count * size_t{4})) return 1;
    std::string text;
    if (op == 'd' || op == 'D') {
      text = tokenizer.decode(ids, op == 'd');
    } else {
      fathom::text::StreamDecoder stream(tokenizer, op == 's');
      for (const int32_t id : ids) text += stream.push(id) + '\xff';
      text += stream.finish();
    }
    answer(text.data(), text.size(), 1);
  }
  return 0;
}

int train(int argc, char** argv) {
  fathom::text::BpeTrainOptions options;
  options.vocab_size = std::stoll(argv[3]);
  options.pattern = std::string(argv[4]) == "gpt2" ? fathom::text::WordPattern::gpt2 : fathom::text::WordPattern::llama3;
  options.threads = std::stoi(argv[5]);
  int file = 6;
  const auto result = fathom::text::train_bpe(
      [&](std::string& document) {
        if (file == argc) return false;
        document = fathom::read_file(argv[file++], int64_t{1} << 30);
        return true;
      },
      options);
  fathom::atomic_write(argv[2], result.tokenizer_json);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 6 && std::string(argv[1]) == "train") return train(argc, argv);
    return argc == 2 ? serve(argv[1]) : 2;
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
