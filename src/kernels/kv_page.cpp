#include "kernels/kv_page.h"

#include <algorithm>

namespace fathom::kernels {

void clear_slots(const KvPage& layout, int64_t first, uint8_t* page) {
  const int64_t D = layout.head_dim, bytes = layout.type == KvType::f32 ? 4 : layout.type == KvType::q8_0 ? 1 : 2;
  // The slots lie side by side in rows: of a key's column, of a value's panel, of scales.
  const auto clear = [&](uint8_t* at, int64_t rows, int64_t each) {
    for (int64_t row = 0; row < rows; ++row) std::fill(at + (row * kLanes + first) * each, at + (row + 1) * kLanes * each, uint8_t{0});
  };
  for (int64_t g = 0; g < layout.kv_heads; ++g) {
    uint8_t* const keys = page + layout.keys(g);
    uint8_t* const values = page + layout.values(g);
    clear(keys, D, bytes);
    for (int64_t panel = 0; panel < D; panel += kLanes) clear(values + panel * kLanes * bytes, 1, std::min(kLanes, D - panel) * bytes);
    if (layout.type != KvType::q8_0) continue;
    for (uint8_t* const head : {keys, values}) clear(head + kLanes * D, (D + kKvBlock - 1) / kKvBlock, 2);
  }
}

}  // namespace fathom::kernels
