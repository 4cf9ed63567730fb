// The JSON header of a safetensors file, every key and number of it checked by itself; how they fit together and into the
// file is safetensors.cpp's part.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"

namespace fathom::formats {

struct SafetensorsHeader {
  struct Tensor {
    TensorView view;              // without its bytes
    uint64_t begin = 0, end = 0;  // in the data that follows the header
  };
  std::vector<Tensor> tensors;    // in the header's order
  std::map<std::string, std::string> metadata;
};

// `where` names the file in errors.
SafetensorsHeader read_safetensors_header(std::string_view json, const std::string& where);

}  // namespace fathom::formats
