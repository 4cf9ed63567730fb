// make_sample_model OUT TOKENIZER mod|long|dense|thin|blocky|paths|large|wide [SEED]: a small model with weights drawn from a seed and the given tokenizer.json.
//   mod    4 blocks, blocks 1 and 3 routed at capacity 0.25 and 0.5, a dial of three points
//   long   as mod, with a context of 2^20 tokens: a text that does not end while a test looks
//   dense  the same shape without routing;  thin  2 blocks without routing
//   blocky  dense, every row a multiple of 32
//   wide   dense, 2 blocks, 123 MB each of embedding and head
//   large  dense, 45 MB of weights and 98 MB of keys and values in its context of 2,048 tokens
#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/file.h"
#include "core/limits.h"
#include "core/random.h"
#include "model/folder.h"
#include "model/random_model.h"
#include "text/tokenizer.h"

int main(int argc, char** argv) {
  using namespace fathom;
  if (argc < 4) return std::fprintf(stderr, "make_sample_model OUT TOKENIZER mod|long|dense|thin|blocky|paths|large|wide [SEED]\n"), 2;
  try {
    const std::string kind = argv[3];
    const uint64_t seed = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1;
    const std::string json = read_file(argv[2], limits::kJsonBytes);
    const text::Tokenizer tokenizer = text::Tokenizer::from_json(json, argv[2]);
    model::ModelConfig c;
    c.vocab_size = tokenizer.vocab_size();
    c.hidden_size = 48, c.intermediate_size = 96, c.num_hidden_layers = kind == "thin" ? 2 : 4;
    c.num_attention_heads = 4, c.num_key_value_heads = 2, c.head_dim = 12;
    c.max_position_embeddings = kind == "long" ? 1 << 20 : 128;
    if (const auto eos = tokenizer.eos_id()) c.eos_token_ids = {*eos};
    if (kind == "blocky") c.hidden_size = 64, c.head_dim = 16;
    if (kind == "large") {
      c.hidden_size = 256, c.intermediate_size = 512, c.num_hidden_layers = 12, c.max_position_embeddings = 2048;
      c.num_attention_heads = c.num_key_value_heads = 8, c.head_dim = 64;
    }
    if (kind == "wide") c.hidden_size = 512, c.intermediate_size = 512, c.num_hidden_layers = 2, c.vocab_size = 60'000;
    const bool routed = kind == "mod" || kind == "long";
    if (routed) c.routing.units = {{1, 0.25}, {3, 0.5}};
    if (kind == "paths")  // a block of two units, an MLP that is light for all, an exit
      c.routing.units = {{.block = 1, .capacity = 0.25, .part = routing::Part::attention, .paths = {.light = true}, .light_rank = 3, .light_capacity = 0.5},
                         {.block = 1, .capacity = 0.5, .part = routing::Part::mlp},
                         {.block = 2, .capacity = 0, .part = routing::Part::mlp, .paths = {.skip = false, .light = true, .full = false}, .light_rank = 4},
                         {.block = 3, .capacity = 0.5, .paths = {.exit = true, .skip = false}}};
    model::Weights weights = model::random_weights(c, seed);
    for (float& w : weights.at("lm_head.weight")) w *= 0.25F;  // a loss not far from ln V, and texts that vary
    model::ModelToWrite out = model::model_to_write(c, std::move(weights), seed);
    out.tokenizer_json = json;
    if (routed) {
      routing::DialTable dial;
      dial.default_dial = 0.7;
      dial.points = {{0.6, 0.61, {1.5F, 1.0F}, {0.1, 0.2}, 7.0}, {0.7, 0.69, {0.7F, 0.0F}, {0.25, 0.5}, 6.9}, {1.0, 1.0, {-4.0F, -4.0F}, {1, 1}, 6.8}};
      dial.text = "nothing: made for tests";
      dial.tokens = 1000;
      out.dial = dial;
    } else if (kind == "paths") {
      routing::DialTable dial;
      dial.default_dial = 0.6;
      dial.points = {{0.5, 0.52, {-0.2F, 1.0F, 0.5F, 1.0F}, {0.6, 0.2, 0.3, 0.3}, 7.0}, {0.6, 0.59, {-0.6F, 0.6F, 0.0F, 0.1F}, {0.75, 0.25, 0.5, 0.5}, 6.9},
                     {1.0, 0.9, {-4.0F, -4.0F, -4.0F, -4.0F}, {1, 1, 1, 1}, 6.8}};
      dial.text = "nothing: made for tests";
      dial.tokens = 1000;
      out.dial = dial;
    } else {
      out.dial.reset();
    }
    model::write_model_folder(argv[1], out);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "make_sample_model: %s\n", e.what());
    return 1;
  }
  return 0;
}
