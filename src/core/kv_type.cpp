#include "core/kv_type.h"

namespace fathom {

const std::vector<std::pair<const char*, KvType>> kKvTypeNames = {{"f32", KvType::f32}, {"f16", KvType::f16}, {"bf16", KvType::bf16}, {"q8_0", KvType::q8_0}};

}  // namespace fathom
