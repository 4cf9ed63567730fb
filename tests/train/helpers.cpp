#include "train/helpers.h"

#include <sstream>

#include "core/file.h"
#include "core/log.h"
#include "core/random.h"
#include "data/prepare.h"
#include "text/bpe_train.h"
#include "train/checkpoint.h"
#include "train/overrides.h"

namespace fathom::train {
namespace {

// Sentences of a small grammar: some words follow from earlier ones, some are free.
std::vector<std::string> documents() {
  const char* names[] = {"Ada", "Ben", "Cleo", "Dov", "Eva", "Finn"};
  const char* verbs[] = {"sees", "likes", "paints", "carries"};
  const char* things[] = {"the red boat", "a small house", "the old tree", "a loud bird", "the last train"};
  Random random(7);
  std::vector<std::string> out;
  for (int d = 0; d < 400; ++d) {
    std::string text;
    const int sentences = 3 + static_cast<int>(random.below(25));
    const std::string hero = names[random.below(6)];
    for (int s = 0; s < sentences; ++s) {
      const std::string thing = things[random.below(5)];
      text += hero + " " + verbs[random.below(4)] + " " + thing + ", and " + thing + " is " + std::to_string(random.below(100)) + " years old.\n";
    }
    out.push_back(text);
  }
  return out;
}

}  // namespace

const std::string& corpus() {
  static const TemporaryFolder folder;
  static const std::string path = [] {
    set_log_level(LogLevel::quiet);
    std::string all;
    for (const std::string& d : documents()) all += d + "<|endoftext|>\n";
    const std::string text = join_path(folder.path(), "text.txt");
    atomic_write(text, all);
    size_t next = 0;
    const std::vector<std::string> docs = documents();
    text::BpeTrainOptions bpe;
    bpe.vocab_size = 320;
    const text::BpeTrainResult trained =
        text::train_bpe([&](std::string& out) { return next < docs.size() ? (out = docs[next++], true) : false; }, bpe);
    const std::string data = join_path(folder.path(), "data");
    data::PrepareOptions options;
    options.validation_share = 0.1;
    data::prepare({text}, data, text::Tokenizer::from_json(trained.tokenizer_json, "tokenizer"), options);
    return data;
  }();
  return path;
}

void write_text(const std::string& path) {
  std::string all;
  for (int d = 0; d < 60; ++d) {
    for (int i = 0; i < 12; ++i) all += "line " + std::to_string(d * i % 17) + " of document " + std::to_string(d) + " is here\n";
    all += "<|endoftext|>\n";
  }
  atomic_write(path, all);
}

Json tiny_json() {
  Json j = parse_json(R"({
    "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1,
              "tie_word_embeddings": true, "fathom": {"routed_blocks": "every_second", "capacity": 0.25}},
    "sequence_length": 32, "batch_size": 4, "budget": {"steps": 12},
    "optimizer": {"lr": 5e-3},
    "interval": {"log_steps": 1, "eval_steps": 6, "eval_tokens": 512, "final_eval_tokens": 512, "checkpoint_steps": 3, "checkpoint_seconds": 0},
    "calibration": {"tokens": 512, "dials": [0.7]},
    "precision": "f32", "f32_route": "onednn", "seed": 1, "threads": 1
  })", "tiny");
  j["data"]["dataset"] = corpus();
  return j;
}

TrainConfig tiny(const Overrides& overrides) {
  Json j = tiny_json();
  for (const auto& [field, value] : overrides) apply_override(j, field, value, known_paths());
  return TrainConfig::from_json(j, "tiny");
}

std::vector<Json> metrics_of(const std::string& run) {
  std::istringstream in(read_file(join_path(run, "metrics.jsonl"), 1 << 30));
  std::vector<Json> out;
  for (std::string line; std::getline(in, line);) {
    Json j = Json::parse(line);
    for (const char* clock : {"seconds", "tokens_per_second", "flops_per_second", "share_of_matmul"}) j.erase(clock);
    out.push_back(j);
  }
  return out;
}

std::string last_state(const std::string& run) {
  return read_file(join_path(find_checkpoints(run).back().path, "state.safetensors"), 1 << 30);
}

}  // namespace fathom::train
