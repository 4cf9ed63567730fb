// A page of the cache: keys and values of 16 positions of one sequence in one block. Places and sizes in bytes.
//   keys    per head the elements [D][16]; of q8_0 the codes + 128 [⌈D / 4⌉][16][4], then the scales [⌈D / 32⌉][16]
//   values  per head panels of 16 columns, one after the other: elements [16][16] of position and column, of q8_0 the codes
//           [4][16][4] of four positions, column and position, the last panel as narrow as its columns; then the scales [⌈D / 32⌉][16]
// A last four of q8_0 that is a two lies in two bytes. So every cache line of a head's keys belongs to sixteen positions, and of
// its values to sixteen columns: threads may share out either.
#pragma once
#include "kernels/kernels.h"

namespace fathom::kernels {

struct KvPage {
  KvType type = KvType::f32;
  int64_t kv_heads = 0, head_dim = 0;  // G, D

  int64_t head_bytes() const { return kLanes * kv_bytes(type, head_dim); }  // keys of one head, and its values
  int64_t keys(int64_t head) const { return head * head_bytes(); }
  int64_t values(int64_t head) const { return (kv_heads + head) * head_bytes(); }
  int64_t bytes() const { return 2 * kv_heads * head_bytes(); }  // a multiple of a cache line, since D is even
  int64_t slot_bytes() const { return bytes() / kLanes; }        // keys and values of one position
};

// Zeros in place of the keys and values from slot `first` on.
void clear_slots(const KvPage& layout, int64_t first, uint8_t* page);

}  // namespace fathom::kernels
