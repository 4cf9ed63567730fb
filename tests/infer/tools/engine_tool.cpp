// The engine from outside, for tests/oracle: logits of given ids, or greedy continuations.
//   engine_tool logits MODEL IDS OUT      IDS: text file, ids with spaces; OUT: f32 [T, V]
//   engine_tool greedy MODEL N            standard input: a prompt's ids a line; standard output: the N ids after each
//   engine_tool nll MODEL CONTEXT         standard input: ids; standard output: summed nll and count over windows of CONTEXT ids,
//                                         each from its second id on
//   engine_tool isa                       standard output: the name of the kernels that it would use
#include <fstream>
#include <iostream>
#include <sstream>

#include "infer/generate.h"
#include "kernels/kernels.h"
#include "model/folder.h"

using namespace fathom;

namespace {

std::vector<int32_t> ids_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<int32_t> ids;
  for (int32_t id; in >> id;) ids.push_back(id);
  return ids;
}

int run(const std::vector<std::string>& words) {
  if (words.at(0) == "isa") {
    std::cout << kernels::chosen().name << '\n';
    return 0;
  }
  const auto folder = model::ModelFolder::open(words.at(1));
  infer::Engine engine(infer::Weights::load(*folder), {.threads = 2});
  const infer::RoutingPolicy policy = infer::RoutingPolicy::at_dial(folder->config(), folder->dial());
  if (words[0] == "logits") {
    std::stringstream text;
    text << std::ifstream(words.at(2)).rdbuf();
    const std::vector<int32_t> ids = ids_of(text.str());
    infer::Sequence sequence = engine.new_sequence();
    const infer::WorkItem item{.sequence = &sequence, .tokens = ids, .policy = &policy, .logits = infer::Logits::all};
    const infer::StepResult result = engine.forward({&item, 1});
    std::ofstream(words.at(3), std::ios::binary).write(reinterpret_cast<const char*>(result.logits.data()), static_cast<std::streamsize>(result.logits.size() * 4));
    return 0;
  }
  if (words[0] == "greedy") {
    infer::GenerateOptions options;
    options.sampling.temperature = 0;
    options.policy = policy;
    options.max_new_tokens = std::stoll(words.at(2));
    std::vector<std::vector<int32_t>> prompts;
    for (std::string line; std::getline(std::cin, line);) prompts.push_back(ids_of(line));
    const infer::GenerateResult result = infer::generate(engine, nullptr, prompts, options);
    for (const infer::Generated& text : result.texts) {
      for (const int32_t id : text.ids) std::cout << id << ' ';
      std::cout << '\n';
    }
    return 0;
  }
  if (words[0] == "nll") {
    std::stringstream text;
    text << std::cin.rdbuf();
    const std::vector<int32_t> ids = ids_of(text.str());
    const size_t context = std::stoull(words.at(2));
    double sum = 0;
    int64_t count = 0;
    for (size_t at = 0; at + 1 < ids.size(); at += context) {
      const size_t n = std::min(context, ids.size() - at);
      std::vector<int32_t> targets(ids.begin() + static_cast<int64_t>(at) + 1, ids.begin() + static_cast<int64_t>(at + n));
      targets.push_back(-1);
      infer::Sequence sequence = engine.new_sequence();
      const infer::WorkItem item{.sequence = &sequence, .tokens = std::span(ids).subspan(at, n), .policy = &policy, .logits = infer::Logits::none, .targets = targets};
      const infer::StepResult result = engine.forward({&item, 1});
      for (size_t t = 0; t + 1 < n; ++t) sum += result.nll[t], ++count;
    }
    std::cout.precision(12);
    std::cout << sum << ' ' << count << '\n';
    return 0;
  }
  std::cerr << "engine_tool: logits, greedy, nll or isa\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
