// score MODEL TEXT [DIAL]: how likely the model finds each token of a text, and how deep each goes.
#include <fathom/fathom.h>

#include <algorithm>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

namespace {

// A token as one line shows it: a part of a character becomes U+FFFD.
std::string shown(const fathom::Model& model, fathom::TokenId id) {
  std::string text = model.decode(std::vector{id}, true);
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < ' '; }, ' ');
  return '"' + text + '"';
}

void run(const std::string& path, const std::string& text, std::optional<double> dial) {
  const fathom::Model model = fathom::Model::open(path);
  const std::vector<fathom::TokenId> ids = model.encode(text, {.begin = true});
  const fathom::TextScore score = fathom::score(model, ids, {.dial = dial});

  std::cout << "  ln p  depth  token\n" << std::fixed << std::setprecision(3);
  for (size_t t = 0; t < ids.size(); ++t) {
    if (t == 0) std::cout << std::setw(6) << "";  // nothing stands before it
    else std::cout << std::setw(6) << score.log_prob[t - 1];
    std::cout << std::setw(7) << score.depth[t] << "  " << shown(model, ids[t]);
    if (t > 0 && score.best[t - 1] != ids[t]) std::cout << "  (likeliest " << shown(model, score.best[t - 1]) << ')';
    std::cout << '\n';
  }
  std::cout << "sum " << std::setprecision(6) << score.log_prob_sum() << " nats over " << score.log_prob.size() << " tokens; block fraction "
            << score.block_fraction << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::cerr << "usage: score MODEL TEXT [DIAL]\n";
    return 2;
  }
  try {
    run(argv[1], argv[2], argc > 3 ? std::optional(std::strtod(argv[3], nullptr)) : std::nullopt);
  } catch (const fathom::Error& error) {
    std::cerr << "score: " << error.what() << '\n';
    return 1;
  }
}
