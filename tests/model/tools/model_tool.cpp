// model_tool random FOLDER SEED DTYPE dense|routed|paths   writes a random model of a shape that transformers accepts
// model_tool dump FOLDER OUT                          every tensor's f32 bytes into OUT, in the order that is printed as JSON, with the
//                                                     frequencies of the positions
#include <cstdio>
#include <iostream>

#include "core/file.h"
#include "model/random_model.h"

int main(int count, char** words) {
  using namespace fathom;
  const std::vector<std::string> args(words + 1, words + count);
  try {
    if (args.size() == 5 && args[0] == "random") {
      const uint64_t seed = std::stoull(args[2]);
      Random random(seed);
      model::RandomLimits limits;
      limits.dense = args[4] == "dense";
      limits.hf_shape = true;
      limits.paths = args[4] == "paths";
      const model::ModelConfig config = model::random_config(random, limits);
      model::ModelToWrite out = model::model_to_write(config, model::random_weights(config, seed), seed);
      out.dtype = args[3];
      model::write_model_folder(args[1], out);
      return 0;
    }
    if (args.size() == 3 && args[0] == "dump") {
      const auto folder = model::ModelFolder::open(args[1]);
      Json tensors = Json::array();
      std::string bytes;
      for (const model::TensorSpec& spec : model::schema(folder->config())) {
        const std::vector<float> values = folder->read_f32(spec.name);
        bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
        tensors.push_back({{"name", spec.name}, {"shape", spec.shape}, {"dtype", folder->dtype(spec.name)}});
      }
      atomic_write(args[2], bytes);
      const model::ModelConfig& c = folder->config();
      std::cout << Json{{"config", c.to_json()}, {"tensors", tensors}, {"eos", folder->generation().eos_token_ids},
                        {"frequencies", model::rope_frequencies(c.head_dim, c.rope_theta, c.rope_scaling)}}.dump() << "\n";
      return 0;
    }
    std::cerr << "usage: model_tool random FOLDER SEED DTYPE dense|routed|paths | dump FOLDER OUT\n";
    return 2;
  } catch (const UserError& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
