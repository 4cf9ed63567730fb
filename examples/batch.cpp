// batch MODEL PROMPT…: goes on with every prompt at two dials, all in one batch, and says what each cost.
#include <fathom/fathom.h>

#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

namespace {

struct Work {
  std::string prompt;
  double dial;
  fathom::Stream stream;
};

void run(const std::string& path, const std::vector<std::string>& prompts) {
  fathom::Engine engine(fathom::Model::open(path), {.kv_bytes = int64_t{256} << 20});

  std::vector<Work> all;
  for (const std::string& prompt : prompts)
    for (const double dial : {engine.model().info().default_dial, 1.0})
      all.push_back({prompt, dial, engine.submit({.prompt = prompt, .max_tokens = 24, .dial = dial, .timeout = 600})});

  // This thread makes the steps; each reads one token of every text, or a piece of a prompt.
  size_t events = 0;
  while (engine.step())
    for (Work& work : all)
      while (work.stream.try_next()) ++events;

  for (Work& work : all) {
    const fathom::Text text = work.stream.wait().front();
    std::cout << std::quoted(work.prompt) << " at dial " << work.dial << ": " << text.tokens.size() << " tokens, mean depth " << text.mean_depth()
              << ", block fraction " << text.block_fraction << ", " << text.kv_bytes << " of " << text.kv_bytes_dense << " bytes of KV cache, ended by "
              << fathom::name(text.finish) << '\n'
              << text.text << "\n\n";
  }

  const fathom::EngineStats stats = engine.stats();
  std::cout << stats.finished << " texts in " << stats.steps << " steps: " << stats.prompt_rows << " tokens of prompts, " << stats.cached_tokens
            << " more were cached, " << stats.decode_rows << " new ones; tokens per block:";
  for (const int64_t rows : stats.block_rows) std::cout << ' ' << rows;
  std::cout << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: batch MODEL PROMPT...\n";
    return 2;
  }
  try {
    run(argv[1], {argv + 2, argv + argc});
  } catch (const fathom::Error& error) {
    std::cerr << "batch: " << error.what() << '\n';
    return 1;
  }
}
