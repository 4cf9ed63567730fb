// A tensor as it lies in a model's files, row by row under the shape of model/schema.h: plain numbers or quantised blocks.
// The engine packs its weights straight from these; whoever wants plain numbers takes to_f32().
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/ggml_types.h"

namespace fathom::model {

struct StoredTensor {
  std::string where, name;            // for errors: the file, and the tensor's name in it
  formats::GgmlType type = formats::GgmlType::F32;
  std::vector<int64_t> shape;         // of the schema: [N, K], or [K] for a vector
  std::span<const std::byte> bytes;   // row after row; need not be aligned
  // GGUF files of the llama architecture hold the rows of q and k, and the elements of their biases, with the two halves of a
  // head's rotary pairs interleaved. Then this is the head width D, and row() finds the row that the schema means, to_f32() puts
  // a vector's elements in order; 0: they lie as the schema has them.
  int64_t interleaved_head = 0;
  std::shared_ptr<const void> owner;  // keeps the bytes alive, where a file does not

  int64_t columns() const { return shape.back(); }
  int64_t rows() const { return shape.size() == 1 ? 1 : shape[0]; }
  std::span<const std::byte> row(int64_t n) const;
  void row_f32(int64_t n, float* to) const;   // [K]
  std::vector<float> to_f32() const;          // [N, K]
  // UserError that names the file's first NaN or infinity, also where a block's scale makes it.
  void refuse_not_finite() const;
};

// Where the file has the schema's row (or element) n when heads of width D are interleaved, and the way back.
int64_t interleaved(int64_t n, int64_t head_dim);
int64_t not_interleaved(int64_t n, int64_t head_dim);

bool all_finite(std::span<const float> values);
// UserError that names the first NaN or infinity; `first` is the index of values[0] in the tensor.
void refuse_not_finite(std::span<const float> values, const std::string& where, const std::string& name, const std::string& hint, int64_t first = 0);

// A tensor that holds its own f32 numbers: of a model that was made, not read.
StoredTensor stored_f32(std::string name, std::vector<int64_t> shape, std::vector<float> values);

}  // namespace fathom::model
