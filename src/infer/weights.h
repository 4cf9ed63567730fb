// A model's weights as the engine wants them: matrices packed in panels, as the numbers or quantised blocks that the file
// holds; vectors and routers plain f32. Immutable once made and shared by every engine that runs the model.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/pack.h"
#include "model/config.h"
#include "model/cost.h"
#include "model/folder.h"

namespace fathom::infer {

// Of a routed unit (RoutingConfig::units): its router, unless it is static, and its light path, if it has one.
struct UnitWeights {
  std::vector<float> router;           // [C]
  float bias = 0;
  kernels::PackedMatrix predictor_fc1; // [P, C], rule predictor only
  std::vector<float> fc1_bias;         // [P]
  std::vector<float> fc2;              // [P]
  float fc2_bias = 0;
  kernels::PackedMatrix light_down;    // [r, C]
  kernels::PackedMatrix light_up;      // [C, r]
};

// Beside a projection: B (A x) more.
struct AdapterWeights {
  kernels::PackedMatrix down;          // A [r, in]
  kernels::PackedMatrix up;            // B [out, r]
};

// What a block has; the parts of a static unit have nothing.
struct BlockWeights {
  std::vector<float> attention_norm;   // [C]
  kernels::PackedMatrix q;             // [H·D, C]
  kernels::PackedMatrix k, v;          // [G·D, C]
  kernels::PackedMatrix o;             // [C, H·D]
  std::vector<float> mlp_norm;         // [C]
  kernels::PackedMatrix gate, up;      // [F, C]
  kernels::PackedMatrix down;          // [C, F]
  // Each as long as its matrix has outputs, empty where the model has none.
  std::vector<float> q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias, down_bias;
  // Empty where the model has none.
  std::optional<AdapterWeights> q_adapter, k_adapter, v_adapter, o_adapter, gate_adapter, up_adapter, down_adapter;
  std::vector<float> q_norm, k_norm;   // [D], empty where the model has none
  int64_t vector_elements() const;     // of norms and biases
};

// Bytes of a weight as the engine will hold the folder's, for the cost model; reads no weight.
model::WeightBytes weight_bytes(const model::ModelFolder& folder);
// Of those in memory: what Weights::bytes() will be.
int64_t resident_bytes(const model::ModelFolder& folder);

class Weights {
 public:
  // A tensor by its name in model/schema.h. Matrices keep their type, losing nothing; vectors become f32.
  using Source = std::function<const model::StoredTensor&(const std::string&)>;
  // `threads` 0: all cores that this process may use. Refuses NaN and infinity by tensor and index. Little of the folder's files is in
  // memory at a time. An embedding that is not the head too stays in its file: a token needs one row of it.
  static std::shared_ptr<const Weights> load(const model::ModelFolder& folder, int threads = 0);
  // `let_go`, from any thread: what was read so far need not stay in memory.
  static std::shared_ptr<const Weights> from(const model::ModelConfig& config, const Source& source, int threads = 1,
                                             bool refuse_not_finite = false, const std::function<void()>& let_go = {});
  static std::shared_ptr<const Weights> from(const model::ModelConfig& config,
                                             const std::map<std::string, std::vector<float>>& tensors);

  const model::ModelConfig& config() const { return config_; }
  const std::vector<BlockWeights>& blocks() const { return blocks_; }  // [L]
  const std::vector<UnitWeights>& units() const { return units_; }     // [U]
  const std::vector<float>& final_norm() const { return final_norm_; } // [C]
  const kernels::PackedMatrix& head() const { return head_; }          // [V, C]; the embedding when tied
  void embed(int32_t token, float* to) const;                          // [C]
  int64_t bytes() const;  // in memory: without an embedding of its own

 private:
  model::ModelConfig config_;
  model::StoredTensor embedding_;  // [V, C]; not there when tied: rows then come out of the head
  std::vector<BlockWeights> blocks_;
  std::vector<UnitWeights> units_;
  std::vector<float> final_norm_;
  kernels::PackedMatrix head_;
  kernels::Buffer storage_;       // of every packed matrix: the head's, then in the order in which a forward reads them
};

}  // namespace fathom::infer
