// Times our tokenizer and our BPE training; bench/text/run.py drives it beside the `tokenizers` package.
//   bench_text encode TOKENIZER TEXT DOCUMENT_BYTES   one pass over the documents for each line on stdin; prints
//                                                     `seconds cpu_seconds tokens`
//   bench_text train TEXT VOCAB THREADS               prints `seconds cpu_seconds vocabulary`
#include <time.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"

namespace {

using Clock = std::chrono::steady_clock;

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Cuts behind the first line end after every `bytes`.
std::vector<std::string> documents(const std::string& text, size_t bytes) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', std::min(text.size(), at + bytes));
    end = end == std::string::npos ? text.size() : end + 1;
    out.push_back(text.substr(at, end - at));
    at = end;
  }
  return out;
}

int encode(const std::string& tokenizer_path, const std::string& text_path, size_t bytes) {
  const auto tokenizer = fathom::text::Tokenizer::load(tokenizer_path);
  const auto docs = documents(fathom::read_file(text_path, int64_t{1} << 30), bytes);
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto start = Clock::now();
    const double cpu = cpu_seconds();
    size_t tokens = 0;
    for (const auto& d : docs) tokens += tokenizer.encode(d, {.allow_special = true}).size();
    std::printf("%.6f %.6f %zu\n", since(start), cpu_seconds() - cpu, tokens);
    std::fflush(stdout);
  }
  return 0;
}

int train(const std::string& text_path, int64_t vocab, int threads) {
  const auto docs = documents(fathom::read_file(text_path, int64_t{1} << 30), 1 << 16);
  const auto start = Clock::now();
  const double cpu = cpu_seconds();
  size_t i = 0;
  fathom::text::BpeTrainOptions options;
  options.vocab_size = vocab;
  options.threads = threads;
  const auto result = fathom::text::train_bpe(
      [&](std::string& d) {
        if (i == docs.size()) return false;
        d = docs[i++];
        return true;
      },
      options);
  std::printf("%.6f %.6f %lld\n", since(start), cpu_seconds() - cpu, static_cast<long long>(result.vocab_size));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "encode" && argc == 5) return encode(argv[2], argv[3], std::stoul(argv[4]));
    if (what == "train" && argc == 5) return train(argv[2], std::stoll(argv[3]), std::stoi(argv[4]));
    std::cerr << "usage: bench_text encode TOKENIZER TEXT DOCUMENT_BYTES | train TEXT VOCAB THREADS\n";
    return 2;
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
