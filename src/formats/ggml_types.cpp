#include "formats/ggml_types.h"

#include <algorithm>

#include "core/error.h"

namespace fathom::formats {
namespace {

struct TypeRow {
  GgmlType type;
  const char* name;
  int64_t elements, bytes;  // of a block
  QuantLayout layout;
};
constexpr TypeRow kTypes[] = {
    {GgmlType::F32, "F32", 1, 4, {}},
    {GgmlType::F16, "F16", 1, 2, {}},
    {GgmlType::BF16, "BF16", 1, 2, {}},
    {GgmlType::Q8_0, "Q8_0", 32, 34, {.bits = 8, .group = 32, .block = 32, .offset = 128}},
    {GgmlType::Q4_0, "Q4_0", 32, 18, {.bits = 4, .group = 32, .block = 32, .offset = 8}},
    {GgmlType::Q4_1, "Q4_1", 32, 20, {.bits = 4, .group = 32, .block = 32, .has_minimum = true}},
    {GgmlType::Q5_0, "Q5_0", 32, 22, {.bits = 5, .group = 32, .block = 32, .offset = 16}},
    {GgmlType::Q5_1, "Q5_1", 32, 24, {.bits = 5, .group = 32, .block = 32, .has_minimum = true}},
    {GgmlType::Q4_K, "Q4_K", 256, 144, {.bits = 4, .group = 32, .block = 256, .has_minimum = true, .two_level = true}},
    {GgmlType::Q5_K, "Q5_K", 256, 176, {.bits = 5, .group = 32, .block = 256, .has_minimum = true, .two_level = true}},
    {GgmlType::Q6_K, "Q6_K", 256, 210, {.bits = 6, .group = 16, .block = 256, .offset = 32, .two_level = true}},
};

// Numbers that files may hold and this reader refuses: a message names them.
struct OtherType {
  uint32_t number;
  const char* name;
};
constexpr OtherType kOthers[] = {
    {9, "Q8_1"},     {10, "Q2_K"},   {11, "Q3_K"},   {15, "Q8_K"}, {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {20, "IQ4_NL"},  {21, "IQ3_S"},  {22, "IQ2_S"},  {23, "IQ4_XS"}, {24, "I8"},    {25, "I16"},    {26, "I32"},     {27, "I64"},
    {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},  {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"},  {41, "Q1_0"},
};

const TypeRow& row(GgmlType type) {
  for (const TypeRow& r : kTypes)
    if (r.type == type) return r;
  FATHOM_ASSERT(false, "ggml type without a row");
}

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

}  // namespace

const char* ggml_type_name(GgmlType type) { return row(type).name; }
int64_t ggml_block_elements(GgmlType type) { return row(type).elements; }
int64_t ggml_block_bytes(GgmlType type) { return row(type).bytes; }
bool is_quantized(GgmlType type) { return row(type).layout.bits != 0; }

std::optional<GgmlType> ggml_type_from_name(std::string_view name) {
  for (const TypeRow& r : kTypes)
    if (std::equal(name.begin(), name.end(), r.name, r.name + std::string_view(r.name).size(), [](char a, char b) { return upper(a) == b; })) return r.type;
  return {};
}

std::optional<GgmlType> ggml_type_from_number(uint32_t number) {
  for (const TypeRow& r : kTypes)
    if (static_cast<uint32_t>(r.type) == number) return r.type;
  return {};
}

std::string ggml_type_text(uint32_t number) {
  if (const auto type = ggml_type_from_number(number)) return str(ggml_type_name(*type), " (", number, ")");
  for (const OtherType& t : kOthers)
    if (t.number == number) return str(t.name, " (", number, ")");
  return str("the unknown type ", number);
}

std::string ggml_type_names() {
  std::string all;
  for (const TypeRow& r : kTypes) all += (all.empty() ? "" : ", ") + std::string(r.name);
  return all;
}

int64_t ggml_bytes(GgmlType type, int64_t elements) {
  const TypeRow& r = row(type);
  FATHOM_ASSERT(elements >= 0 && elements % r.elements == 0, elements, " elements of ", r.name);
  return elements / r.elements * r.bytes;
}

QuantLayout quant_layout(GgmlType type) {
  FATHOM_ASSERT(is_quantized(type), ggml_type_name(type));
  return row(type).layout;
}

}  // namespace fathom::formats
