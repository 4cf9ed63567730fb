#include "kernels/kv_page.h"

#include <algorithm>

namespace fathom::kernels {

void clear_slots(const KvPage& layout, int64_t first, uint8_t* page) {
  const bool codes = layout.type == KvType::q8_0;
  const int64_t D = layout.head_dim, bytes = layout.type == KvType::f32 ? 4 : codes ? 1 : 2;
  // The slots lie side by side in rows: of a key's numbers, of a value's panel, of scales.
  const auto clear = [&](uint8_t* at, int64_t each) { std::fill(at + first * each, at + kLanes * each, uint8_t{0}); };
  for (int64_t g = 0; g < layout.kv_heads; ++g) {
    uint8_t* const keys = page + layout.keys(g);
    uint8_t* const values = page + layout.values(g);
    const int64_t together = codes ? 4 : 1;  // numbers of a key in such a row
    for (int64_t d = 0; d < D; d += together) clear(keys + d * kLanes * bytes, std::min(together, D - d) * bytes);
    for (int64_t panel = 0; panel < D; panel += kLanes) {
      const int64_t width = std::min(kLanes, D - panel);
      uint8_t* const at = values + panel * kLanes * bytes;
      if (!codes) clear(at, width * bytes);
      else
        for (int64_t i = 0; i < kLanes * width; ++i)  // four slots of a column lie together
          if (i / (4 * width) * 4 + i % 4 >= first) at[i] = 0;
    }
    if (!codes) continue;
    for (uint8_t* const head : {keys, values})
      for (int64_t d = 0; d < D; d += kKvBlock) clear(head + kLanes * D + d / kKvBlock * kLanes * 2, 2);
  }
}

}  // namespace fathom::kernels
