// generate MODEL PROMPT [DIAL]: goes on with a text, and shows how deep each of its tokens went.
#include <fathom/fathom.h>

#include <cstdlib>
#include <iostream>
#include <vector>

namespace {

void run(const std::string& path, const std::string& prompt, std::optional<double> dial) {
  const fathom::Model model = fathom::Model::open(path);
  fathom::Engine engine(model);

  std::vector<fathom::Token> tokens;
  for (const fathom::Event& event : engine.submit({.prompt = prompt, .max_tokens = 32, .dial = dial})) {
    std::cout << event.text << std::flush;  // as it comes
    if (event.token) tokens.push_back(*event.token);
  }

  std::cout << "\n\n";
  for (const fathom::Token& token : tokens) {
    std::cout << "depth " << token.depth << " of " << model.info().num_hidden_layers << "  ";
    for (const uint8_t ran : token.run) std::cout << (ran == 1 ? '#' : '.');  // the blocks that it might have skipped
    std::cout << "  id " << token.id << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::cerr << "usage: generate MODEL PROMPT [DIAL]\n";
    return 2;
  }
  try {
    run(argv[1], argv[2], argc > 3 ? std::optional(std::strtod(argv[3], nullptr)) : std::nullopt);
  } catch (const fathom::Error& error) {
    std::cerr << "generate: " << error.what() << '\n';
    return 1;
  }
}
