#include "formats/dtype.h"

#include "core/error.h"

namespace fathom::formats {
namespace {

struct DtypeRow {
  Dtype dtype;
  const char* name;
  int64_t bytes;
};
constexpr DtypeRow kDtypes[] = {
    {Dtype::F64, "F64", 8},         {Dtype::F32, "F32", 4}, {Dtype::F16, "F16", 2}, {Dtype::BF16, "BF16", 2},
    {Dtype::F8_E4M3, "F8_E4M3", 1}, {Dtype::F8_E5M2, "F8_E5M2", 1}, {Dtype::I64, "I64", 8}, {Dtype::I32, "I32", 4},
    {Dtype::I16, "I16", 2},         {Dtype::I8, "I8", 1},   {Dtype::U64, "U64", 8}, {Dtype::U32, "U32", 4},
    {Dtype::U16, "U16", 2},         {Dtype::U8, "U8", 1},   {Dtype::BOOL, "BOOL", 1},
};

const DtypeRow& row(Dtype dtype) {
  for (const DtypeRow& r : kDtypes)
    if (r.dtype == dtype) return r;
  FATHOM_ASSERT(false, "dtype without a row");
}

}  // namespace

const char* dtype_name(Dtype dtype) { return row(dtype).name; }
int64_t dtype_bytes(Dtype dtype) { return row(dtype).bytes; }
std::optional<Dtype> dtype_from_name(std::string_view name) {
  for (const DtypeRow& r : kDtypes)
    if (name == r.name) return r.dtype;
  return {};
}

std::string dtype_names() {
  std::string all;
  for (const DtypeRow& r : kDtypes) all += (all.empty() ? "" : ", ") + std::string(r.name);
  return all;
}

}  // namespace fathom::formats
