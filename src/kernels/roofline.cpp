#include "kernels/roofline.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/thread_pool.h"
#include "kernels/buffer.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

uint64_t read_words(const void* from, int64_t bytes) {
  const uint64_t* const words = static_cast<const uint64_t*>(from);
  uint64_t sum[8] = {};
  for (int64_t i = 0; i < bytes / 8; i += 8)
    for (int j = 0; j < 8; ++j) sum[j] ^= words[i + j];
  uint64_t out = 0;
  for (int j = 0; j < 8; ++j) out ^= sum[j];
  return out;
}

}  // namespace

#if defined(__x86_64__)
namespace {

__attribute__((target("avx512f"))) uint64_t read_avx512(const void* from, int64_t bytes) {
  const char* const p = static_cast<const char*>(from);
  __m512i sum[8] = {};
  for (int64_t i = 0; i < bytes; i += 512)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(p + i + j * 64));
  for (int j = 1; j < 8; ++j) sum[0] = _mm512_xor_si512(sum[0], sum[j]);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(sum[0])));
}

__attribute__((target("avx2"))) uint64_t read_avx2(const void* from, int64_t bytes) {
  const char* const p = static_cast<const char*>(from);
  __m256i sum[8] = {};
  for (int64_t i = 0; i < bytes; i += 256)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
      sum[j] = _mm256_xor_si256(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + j * 32)));
  for (int j = 1; j < 8; ++j) sum[0] = _mm256_xor_si256(sum[0], sum[j]);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm256_castsi256_si128(sum[0])));
}

// 24 independent sums hide the latency of an addition on every CPU that we know. Each returns the operations done.
__attribute__((target("avx512f"))) double f32_avx512(int64_t rounds, float* out) {
  __m512 sum[24], x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(1.0f);
  for (int s = 0; s < 24; ++s) sum[s] = _mm512_set1_ps(static_cast<float>(s));
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 24
    for (int s = 0; s < 24; ++s) sum[s] = _mm512_fmadd_ps(sum[s], x, y);
  for (int s = 1; s < 24; ++s) sum[0] = _mm512_add_ps(sum[0], sum[s]);
  *out = _mm512_cvtss_f32(sum[0]);
  return 2.0 * 24 * 16 * static_cast<double>(rounds);
}

__attribute__((target("avx2,fma"))) double f32_avx2(int64_t rounds, float* out) {
  __m256 sum[12], x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(1.0f);
  for (int s = 0; s < 12; ++s) sum[s] = _mm256_set1_ps(static_cast<float>(s));
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int s = 0; s < 12; ++s) sum[s] = _mm256_fmadd_ps(sum[s], x, y);
  for (int s = 1; s < 12; ++s) sum[0] = _mm256_add_ps(sum[0], sum[s]);
  *out = _mm256_cvtss_f32(sum[0]);
  return 2.0 * 12 * 8 * static_cast<double>(rounds);
}

__attribute__((target("avx512f,avx512bf16"))) double bf16_avx512(int64_t rounds, float* out) {
  __m512 sum[24];
  const __m512i x = _mm512_set1_epi16(0x3f00), y = _mm512_set1_epi16(0x0001);  // 0.5 and nearly 0
  for (int s = 0; s < 24; ++s) sum[s] = _mm512_set1_ps(static_cast<float>(s));
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 24
    for (int s = 0; s < 24; ++s) sum[s] = _mm512_dpbf16_ps(sum[s], (__m512bh)x, (__m512bh)y);
  for (int s = 1; s < 24; ++s) sum[0] = _mm512_add_ps(sum[0], sum[s]);
  *out = _mm512_cvtss_f32(sum[0]);
  return 2.0 * 24 * 32 * static_cast<double>(rounds);
}

// By hand: GCC 12 copies and spills the sums of the intrinsic, which then measures that.
__attribute__((target("avx512f,avx512vnni"))) double int8_avx512(int64_t rounds, float* out) {
  __m512i a = {}, b = {}, c = {}, d = {}, e = {}, f = {}, g = {}, h = {}, x = _mm512_set1_epi8(1), y = _mm512_set1_epi8(0);
  for (int64_t r = 0; r < 3 * rounds; ++r)
    __asm__("vpdpbusd %8, %9, %0\n\tvpdpbusd %8, %9, %1\n\tvpdpbusd %8, %9, %2\n\tvpdpbusd %8, %9, %3\n\t"
            "vpdpbusd %8, %9, %4\n\tvpdpbusd %8, %9, %5\n\tvpdpbusd %8, %9, %6\n\tvpdpbusd %8, %9, %7"
            : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h) : "v"(x), "v"(y));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d)), _mm512_add_epi32(_mm512_add_epi32(e, f), _mm512_add_epi32(g, h)));
  *out = static_cast<float>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)));
  return 2.0 * 24 * 64 * static_cast<double>(rounds);
}

// Without VNNI: 16-bit products added in pairs.
__attribute__((target("avx2"))) double int8_avx2(int64_t rounds, float* out) {
  __m256i sum[12], x = _mm256_set1_epi16(1), y = _mm256_set1_epi16(0);
  for (int s = 0; s < 12; ++s) sum[s] = _mm256_set1_epi32(s);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int s = 0; s < 12; ++s) sum[s] = _mm256_add_epi32(sum[s], _mm256_madd_epi16(sum[s], s % 2 ? x : y));
  for (int s = 1; s < 12; ++s) sum[0] = _mm256_add_epi32(sum[0], sum[s]);
  *out = static_cast<float>(_mm_cvtsi128_si32(_mm256_castsi256_si128(sum[0])));
  return 2.0 * 12 * 16 * static_cast<double>(rounds);
}

// With AVX-VNNI.
__attribute__((target("avx2"))) double int8_avxvnni(int64_t rounds, float* out) {
  __m256i a = {}, b = {}, c = {}, d = {}, e = {}, f = {}, g = {}, h = {}, x = _mm256_set1_epi8(1), y = _mm256_set1_epi8(0);
  for (int64_t r = 0; r < 3 * rounds; ++r)
    __asm__("%{vex%} vpdpbusd %8, %9, %0\n\t%{vex%} vpdpbusd %8, %9, %1\n\t%{vex%} vpdpbusd %8, %9, %2\n\t%{vex%} vpdpbusd %8, %9, %3\n\t"
            "%{vex%} vpdpbusd %8, %9, %4\n\t%{vex%} vpdpbusd %8, %9, %5\n\t%{vex%} vpdpbusd %8, %9, %6\n\t%{vex%} vpdpbusd %8, %9, %7"
            : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h) : "x"(x), "x"(y));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)), _mm256_add_epi32(_mm256_add_epi32(e, f), _mm256_add_epi32(g, h)));
  *out = static_cast<float>(_mm_cvtsi128_si32(_mm256_castsi256_si128(sum)));
  return 2.0 * 24 * 32 * static_cast<double>(rounds);
}

using Work = double (*)(int64_t rounds, float* keep);

Work work_of(Arithmetic kind) {
  const bool wide = __builtin_cpu_supports("avx512f");
  switch (kind) {
    case Arithmetic::f32: return wide ? f32_avx512 : __builtin_cpu_supports("fma") ? f32_avx2 : nullptr;
    case Arithmetic::bf16: return wide && __builtin_cpu_supports("avx512bf16") ? bf16_avx512 : nullptr;
    case Arithmetic::int8: return wide && __builtin_cpu_supports("avx512vnni") ? int8_avx512 : __builtin_cpu_supports("avxvnni") ? int8_avxvnni : __builtin_cpu_supports("avx2") ? int8_avx2 : nullptr;
  }
  return nullptr;
}

}  // namespace
#elif defined(__aarch64__)
namespace {

uint64_t read_neon(const void* from, int64_t bytes) {
  const uint8_t* const p = static_cast<const uint8_t*>(from);
  uint8x16_t sum[8] = {};
  for (int64_t i = 0; i < bytes; i += 128)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sum[j] = veorq_u8(sum[j], vld1q_u8(p + i + j * 16));
  for (int j = 1; j < 8; ++j) sum[0] = veorq_u8(sum[0], sum[j]);
  return vgetq_lane_u64(vreinterpretq_u64_u8(sum[0]), 0);
}

double f32_neon(int64_t rounds, float* out) {
  const float32x4_t x = vdupq_n_f32(0.5f), y = vdupq_n_f32(1.0f);
  float32x4_t sum[16];
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) sum[s] = vdupq_n_f32(static_cast<float>(s));
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) sum[s] = vfmaq_f32(sum[s], x, y);
#pragma GCC unroll 16
  for (int s = 1; s < 16; ++s) sum[0] = vaddq_f32(sum[0], sum[s]);
  *out = vgetq_lane_f32(sum[0], 0);
  return 2.0 * 16 * 4 * static_cast<double>(rounds);
}

__attribute__((target("arch=armv8.2-a+dotprod"))) double int8_dot(int64_t rounds, float* out) {
  const int8x16_t x = vdupq_n_s8(1), y = vdupq_n_s8(0);
  int32x4_t sum[16];
  for (int s = 0; s < 16; ++s) sum[s] = vdupq_n_s32(s);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) sum[s] = vdotq_s32(sum[s], x, y);
  for (int s = 1; s < 16; ++s) sum[0] = vaddq_s32(sum[0], sum[s]);
  *out = static_cast<float>(vgetq_lane_s32(sum[0], 0));
  return 2.0 * 16 * 16 * static_cast<double>(rounds);
}

using Work = double (*)(int64_t rounds, float* keep);

Work work_of(Arithmetic kind) {
  if (kind == Arithmetic::f32) return f32_neon;
  return kind == Arithmetic::int8 && cpu_has_dotprod() ? int8_dot : nullptr;
}

}  // namespace
#endif

BandwidthMeter::BandwidthMeter(int threads) : pool_(threads) {}

double BandwidthMeter::measure(int64_t bytes, int64_t volume) {
  uint64_t (*read)(const void*, int64_t) = read_words;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) read = read_avx512;
  else if (__builtin_cpu_supports("avx2")) read = read_avx2;
#elif defined(__aarch64__)
  read = read_neon;
#endif
  const int threads = pool_.size();
  const int64_t share = std::min(bytes, kMost) / threads / 512 * 512, all = share * threads;
  if (all == 0) return 0;
  if (all > memory_.size() * static_cast<int64_t>(sizeof(float))) {
    memory_ = Buffer(all / static_cast<int64_t>(sizeof(float)));
    std::memset(memory_.data(), 1, static_cast<size_t>(all));
  }
  std::atomic<uint64_t> keep{0};
  const std::function<void(int64_t)> body = [&](int64_t part) { keep ^= read(reinterpret_cast<const char*>(memory_.data()) + part * share, share); };
  const int passes = static_cast<int>(std::clamp<int64_t>(volume / all, 3, 200));
  double best = 1e30;
  for (int i = 0; i < passes; ++i) {
    const auto begin = Clock::now();
    pool_.parallel_for(threads, body);
    best = std::min(best, seconds_since(begin));
  }
  return static_cast<double>(all) / best / 1e9;
}

double read_bandwidth(int64_t bytes, int threads) { return BandwidthMeter(threads).measure(bytes); }

const char* arithmetic_name(Arithmetic kind) { return kind == Arithmetic::f32 ? "f32" : kind == Arithmetic::bf16 ? "bf16" : "int8"; }

double multiply_add_peak(Arithmetic kind, int threads) {
  double (*work)(int64_t, float*) = nullptr;
#if defined(__x86_64__) || defined(__aarch64__)
  work = work_of(kind);
#endif
  if (!work) return 0;
  ThreadPool pool(threads);
  std::vector<float> keep(static_cast<size_t>(threads));
  std::vector<double> done(static_cast<size_t>(threads));
  const std::function<void(int64_t)> body = [&](int64_t part) { done[static_cast<size_t>(part)] = work(400000, &keep[static_cast<size_t>(part)]); };
  double best = 0;
  for (int i = 0; i < 10; ++i) {
    const auto begin = Clock::now();
    pool.parallel_for(threads, body);
    double operations = 0;
    for (double d : done) operations += d;
    best = std::max(best, operations / seconds_since(begin) / 1e9);
  }
  return best;
}

}  // namespace fathom::kernels
