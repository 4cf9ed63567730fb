// Products alone, beside what the machine reads and computes: GB/s of weights for few rows, Gop/s (a multiply–add is two)
// for many, every packing. Matrices are visited in turn, so that with one row they come out of memory.
//
//   bench_kernels [--threads 1,2] [--rows 1,2,4,8,16,96,384] [--shape N,K] [--megabytes 256] [--packing f32,q4_k]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <vector>

#include "core/error.h"
#include "core/float16.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "kernels/pack.h"
#include "kernels/roofline.h"

namespace fathom::bench {
namespace {

using Clock = std::chrono::steady_clock;
using kernels::PackedMatrix;
using kernels::Packing;

std::vector<int64_t> numbers(const std::string& flag, const std::string& text, size_t count) {
  std::vector<int64_t> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    try {
      out.push_back(std::stoll(part));
    } catch (const std::exception&) {
      throw UsageError({flag, "", "\"" + printable(part) + "\"", "whole numbers", ""});
    }
    if (out.back() < 1 || out.back() > (1 << 24)) throw UsageError({flag, "", str(out.back()), "1 to 16777216", ""});
  }
  if (out.empty() || (count && out.size() != count)) throw UsageError({flag, "", str(out.size(), " numbers"), str(count ? count : 1), ""});
  return out;
}

struct Work {
  int64_t N, K;
  int threads;
  std::vector<PackedMatrix> matrices;
  ThreadPool pool;

  Work(Packing packing, int64_t n, int64_t k, int64_t bytes, int thread_count) : N(n), K(k), threads(thread_count), pool(thread_count) {
    Random random(1);
    const int64_t count = std::max<int64_t>(1, bytes / kernels::packed_bytes(packing, N, K));
    std::vector<float> drawn(static_cast<size_t>(K));
    for (float& x : drawn) x = static_cast<float>(random.normal());
    for (int64_t i = 0; i < count; ++i) {
      if (kernels::is_plain(packing)) {
        matrices.emplace_back(packing, N, K, [&](int64_t, std::byte* row) {
          for (int64_t j = 0; j < K; ++j) {
            const float x = drawn[static_cast<size_t>(j)];
            const uint16_t half = packing == Packing::f16 ? f32_to_f16(x) : f32_to_bf16(x);
            if (packing == Packing::f32) std::memcpy(row + j * 4, &x, 4);
            else std::memcpy(row + j * 2, &half, 2);
          }
        }, pool);
        continue;
      }
      matrices.emplace_back(packing, N, K, [&](int64_t row, const kernels::QuantizedRow& to) {
        for (size_t j = 0; j < to.codes.size(); ++j) to.codes[j] = static_cast<uint8_t>((static_cast<size_t>(row) * 7 + j * 13) % 16);
        for (uint16_t& s : to.scale) s = f32_to_f16(0.01f);
        for (uint16_t& m : to.minimum) m = f32_to_f16(-0.08f);
        std::ranges::fill(to.sub_scale, 33);
        std::ranges::fill(to.sub_minimum, 33);
      }, pool);
    }
  }
};

double seconds_per_product(Work& work, int64_t rows) {
  const kernels::Kernels& table = kernels::chosen();
  std::vector<float> x(static_cast<size_t>(rows * work.K), 0.5f), y(static_cast<size_t>(rows * work.N));
  std::vector<float> pairs(static_cast<size_t>(rows * kernels::pair_count(work.K)));
  const int64_t blocks = kernels::block_count(work.K);
  std::vector<int8_t> codes(static_cast<size_t>(rows * blocks * kernels::kBlock));
  std::vector<float> scale(static_cast<size_t>(rows * blocks));
  std::vector<int32_t> half_sum(scale.size() * 2);
  const kernels::QuantizedRows q{codes.data(), scale.data(), half_sum.data(), blocks};
  constexpr int64_t kRowBlock = 96;
  const auto once = [&](const PackedMatrix& w) {
    const int64_t row_blocks = (rows + kRowBlock - 1) / kRowBlock;
    if (!kernels::is_plain(w.packing())) table.quantize_rows(x.data(), work.K, rows, work.K, q);
    const bool bf16 = w.packing() == Packing::bf16;
    const int64_t stride = bf16 ? kernels::pair_count(work.K) : work.K;
    if (bf16) table.round_rows(x.data(), work.K, rows, work.K, pairs.data());
    work.pool.parallel_for(w.groups() * row_blocks, [&](int64_t chunk) {
      const int64_t row = chunk % row_blocks * kRowBlock, n = std::min(kRowBlock, rows - row), group = chunk / row_blocks;
      if (kernels::is_plain(w.packing()))
        return table.matmul({.x = (bf16 ? pairs.data() : x.data()) + row * stride, .x_stride = stride, .rows = n, .packing = w.packing(), .packed = w.data(), .outputs = work.N,
                             .inner = work.K, .y = y.data() + row * work.N, .y_stride = work.N, .group_begin = group, .group_end = group + 1});
      const kernels::QuantizedRows part{q.codes + row * blocks * kernels::kBlock, q.scale + row * blocks, q.half_sum + row * blocks * 2, blocks};
      table.quantized_matmul({.x = part, .rows = n, .packing = w.packing(), .packed = w.data(), .outputs = work.N,
                              .y = y.data() + row * work.N, .y_stride = work.N, .group_begin = group, .group_end = group + 1});
    });
  };
  std::vector<double> times;
  const auto until = Clock::now() + std::chrono::milliseconds(400);
  for (size_t i = 0; Clock::now() < until || times.size() < 5; ++i) {
    const auto begin = Clock::now();
    const size_t many = rows <= 8 ? std::min<size_t>(8, work.matrices.size()) : 1;
    for (size_t j = 0; j < many; ++j) once(work.matrices[(i * many + j) % work.matrices.size()]);
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(many));
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

int run(int argc, char** argv) {
  std::vector<int64_t> threads = {1, 2}, rows = {1, 2, 4, 8, 16, 96, 384}, shape = {2048, 2048};
  int64_t megabytes = 256;
  std::vector<Packing> packings;
  for (int i = 0; i <= static_cast<int>(Packing::q6_k); ++i) packings.push_back(static_cast<Packing>(i));
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--threads") threads = numbers(flag, argv[i + 1], 0);
    else if (flag == "--rows") rows = numbers(flag, argv[i + 1], 0);
    else if (flag == "--shape") shape = numbers(flag, argv[i + 1], 2);
    else if (flag == "--megabytes") megabytes = numbers(flag, argv[i + 1], 1)[0];
    else if (flag == "--packing") std::erase_if(packings, [&](Packing p) { return (str(",", argv[i + 1], ",")).find(str(",", kernels::packing_name(p), ",")) == std::string::npos; });
    else throw UsageError({flag, "", "an unknown flag", "--threads --rows --shape --megabytes --packing", ""});
  }
  std::printf("%s, N %ld, K %ld\n", kernels::chosen().name, static_cast<long>(shape[0]), static_cast<long>(shape[1]));
  for (const int64_t t : threads) {
    std::printf("%ld thread(s): reads %.1f GB/s; f32 %.0f, int8 %.0f Gop/s\n", static_cast<long>(t),
                kernels::read_bandwidth(megabytes << 20, static_cast<int>(t)), kernels::multiply_add_peak(kernels::Arithmetic::f32, static_cast<int>(t)),
                kernels::multiply_add_peak(kernels::Arithmetic::int8, static_cast<int>(t)));
    for (const Packing packing : packings) {
      Work work(packing, shape[0], shape[1], megabytes << 20, static_cast<int>(t));
      std::printf("  %-7s", kernels::packing_name(packing));
      for (const int64_t r : rows) {
        const double seconds = seconds_per_product(work, r);
        std::printf("  %ld: %.1f GB/s %.0f Gop/s", static_cast<long>(r), static_cast<double>(work.matrices[0].bytes()) / seconds / 1e9,
                    2.0 * static_cast<double>(shape[0] * shape[1] * r) / seconds / 1e9);
        std::fflush(stdout);
      }
      std::printf("\n");
    }
  }
  return 0;
}

}  // namespace
}  // namespace fathom::bench

int main(int argc, char** argv) {
  try {
    return fathom::bench::run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "bench_kernels: " << e.what() << "\n";
    return 1;
  }
}
