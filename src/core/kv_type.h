// How the cache of attention holds the numbers of keys and values.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace fathom {

enum class KvType : uint8_t {
  f32,
  f16,
  bf16,
  q8_0,  // code · scale: codes of 8 bits, an f16 scale for every 32 numbers of a key or value
};
extern const std::vector<std::pair<const char*, KvType>> kKvTypeNames;

inline constexpr int64_t kKvBlock = 32;  // numbers that share a scale

// Bytes of one key, or value, of one head. Static: a shared copy could be one that was compiled for another CPU.
static constexpr int64_t kv_bytes(KvType type, int64_t head_dim) {
  if (type == KvType::q8_0) return head_dim + (head_dim + kKvBlock - 1) / kKvBlock * 2;
  return head_dim * (type == KvType::f32 ? 4 : 2);
}

}  // namespace fathom
