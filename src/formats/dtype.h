// Element types of tensors in files.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fathom::formats {

enum class Dtype { F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, U32, U16, U8, BOOL };

const char* dtype_name(Dtype dtype);                         // as the header spells it: "BF16"
std::optional<Dtype> dtype_from_name(std::string_view name);
int64_t dtype_bytes(Dtype dtype);                            // of one element
std::string dtype_names();                                   // all of them, for messages

}  // namespace fathom::formats
