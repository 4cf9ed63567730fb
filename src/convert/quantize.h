// A model with its matrices in another type: what becomes of every tensor, and the file or folder with the result.
//
//   OUT ends in .gguf   one GGUF file for llama.cpp and others; dense models only
//   q8_0, q4_0, …       a model folder with model.gguf in place of model.safetensors
//   f32, f16, bf16      a model folder with model.safetensors, as the Hugging Face tools read it
//
// Norms, biases, routers and predictors are f32 in every result. Tensors pass one at a time, a few rows in memory.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "convert/write.h"

namespace fathom::convert {

// Types that can be asked for, by the names of the command line ("q8_0").
const std::vector<std::pair<const char*, formats::GgmlType>>& quantize_types();

// What becomes of every tensor of the schema, in its order.
//   - what is not a matrix (model::is_reducible): F32
//   - the head, which is the embedding where they are tied, for a 4-bit type: Q8_0, unless the file has it in the type asked for.
//     It is the matrix whose errors show in every logit, and it costs half a bit per weight of a small model, less of a large one.
//     llama.cpp takes Q6_K, which the engine would unpack to f32; Q8_0 is computed as it is, and fits any width that Q4_0 does.
//   - rows that are no multiple of the type's block: Q8_0 for a block of 256 where a multiple of 32, else F16
std::vector<TensorPlan> plan_quantize(const model::ModelFolder& model, formats::GgmlType type);

struct QuantizeOptions : WriteOptions {
  formats::GgmlType type = formats::GgmlType::Q8_0;  // of quantize_types()
  bool overwrite = false;                            // a file, or a folder that holds a model, is replaced when all is written
};

// Faults that need no work to be seen: OUT is MODEL, exists, cannot hold this model; GGUF cannot say its tokenizer. UserError.
void check_quantize(const model::ModelFolder& model, const std::string& out, const QuantizeOptions& options);

// Writes OUT by `plan` (plan_quantize of the same type). UserError: check_quantize, a weight that is NaN, infinite or too large for its type, a
// full disk. Whatever is thrown, OUT is as it was before.
void quantize(const model::ModelFolder& model, const std::string& out, const std::vector<TensorPlan>& plan, const QuantizeOptions& options);

}  // namespace fathom::convert
