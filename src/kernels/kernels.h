// The engine's loops as one table of function pointers per ISA. Every table computes the same bits: README.md defines
// the one order of operations. Plain pointers and sizes in, nothing allocated, nothing checked: callers own the shapes.
// `*_stride` counts floats between rows. Any size may be 0, nothing has to be aligned.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/kv_type.h"

namespace fathom::kernels {

inline constexpr int64_t kLanes = 16;           // width of a panel, positions in a page
inline constexpr int64_t kGroup = 64;           // outputs of one packed group (pack.h)
inline constexpr int64_t kBlock = 32;           // inner elements that share a scale in a quantised matrix

enum class Isa { reference, avx2, avxvnni, avx512, avx512vnni, avx512bf16, neon, neondot };  // neondot: with ARMv8.2's dotprod

// How a weight matrix lies in memory (pack.h): as plain numbers, or as codes with a scale per block.
enum class Packing : uint8_t {
  f32, bf16, f16,
  q8,      // value = scale · (code − 128), code of 8 bits
  q4,      // value = scale · (code − 8), code of 4 bits
  q4_min,  // value = scale · code + minimum
  q5,      // value = scale · (code − 16), code of 5 bits
  q5_min,  // value = scale · code + minimum
  q4_k,    // as q4_min, where scale and minimum are an f16 of eight blocks times a whole number of the block
  q5_k,    // as q5_min, with such scales
  q6_k,    // value = scale · (code − 32), code of 6 bits, such a scale for every 16 elements
};
constexpr bool is_plain(Packing packing) { return packing <= Packing::f16; }

// As what a product with such weights reads its activations: numbers, pairs of bf16 (round_rows) or codes (quantize_rows).
enum class Operand : uint8_t { f32, bf16, codes };
constexpr Operand operand_of(Packing packing) {
  return packing == Packing::bf16 ? Operand::bf16 : is_plain(packing) ? Operand::f32 : Operand::codes;
}
constexpr int64_t pair_count(int64_t inner) { return (inner + 1) / 2; }

struct Matmul {  // y[r][n] = Σ_k x[r][k] · w[n][k] for the outputs of groups [group_begin, group_end)
  const float* x = nullptr;       // [rows, inner]; with bf16 weights [rows, ⌈inner / 2⌉] pairs of bf16, one in every four bytes
  int64_t x_stride = 0;           // of numbers or pairs
  int64_t rows = 0;
  Packing packing = Packing::f32; // f32, bf16 or f16
  const uint8_t* packed = nullptr;  // the whole matrix, packed (pack.h)
  int64_t outputs = 0;            // N
  int64_t inner = 0;              // K
  float* y = nullptr;             // [rows, outputs]
  int64_t y_stride = 0;
  int64_t group_begin = 0, group_end = 0;
};

// Activations as a quantised product reads them: per row and block of 32 elements a scale and whole numbers.
struct QuantizedRows {
  int8_t* codes = nullptr;        // [rows][blocks · 32], −127 to 127, 0 past the row's end
  float* scale = nullptr;         // [rows][blocks]
  int32_t* half_sum = nullptr;    // [rows][blocks][2] Σ codes of a block's first and last 16
  int64_t blocks = 0;             // of a row
};

struct QuantizedMatmul {  // as Matmul, for a matrix of codes
  QuantizedRows x;
  int64_t rows = 0;
  Packing packing = Packing::q8;
  const uint8_t* packed = nullptr;
  int64_t outputs = 0;
  float* y = nullptr;             // [rows, outputs]
  int64_t y_stride = 0;
  int64_t group_begin = 0, group_end = 0;
};

struct StoreSlot {  // keys and values of one position into a page (kv_page.h), in its type
  KvType type = KvType::f32;
  const float* key = nullptr;             // [G·D], after RoPE
  const float* value = nullptr;           // [G·D]
  int64_t kv_heads = 0, head_dim = 0;     // G, D
  int64_t slot = 0;                       // 0 to 15
  uint8_t* page = nullptr;
};

// Some queries of one sequence over the pages of one block, for one key/value head. Three steps, of which each may be shared
// out: attend_scores by pages, attend_softmax by queries, attend_values by columns.
struct Attend {
  KvType type = KvType::f32;
  const uint8_t* const* pages = nullptr;  // slot j lies in pages[j / 16]
  int64_t key_offset = 0;                 // of this head in a page, in bytes
  int64_t value_offset = 0;
  int64_t head_dim = 0;                   // D
  float scale = 1;
  const float* const* queries = nullptr;  // [count] of [D]
  float* const* outputs = nullptr;        // [count] of [D]; may be the queries themselves, which are read for the scores alone
  const int64_t* visible = nullptr;       // [count] slots that a query sees, ≥ 1, ascending
  int64_t count = 0;                      // 1 to kAttendQueries
  float* scores = nullptr;                // [count][visible of the last query, rounded up to 16]: scores, then weights
  float* inverse = nullptr;               // [count] 1 / Σ of the weights
};
inline constexpr int64_t kAttendQueries = 8;

struct Kernels {
  Isa isa;
  const char* name;
  void (*matmul)(const Matmul&);
  void (*quantized_matmul)(const QuantizedMatmul&);
  // Rows of x to pairs of bf16: to [rows, ⌈width / 2⌉], the first of a pair in the low half, 0 beside a last one that is alone.
  void (*round_rows)(const float* x, int64_t x_stride, int64_t rows, int64_t width, float* to);
  // Rows of x to codes; `to` has room for them, to.blocks = ⌈width / 32⌉.
  void (*quantize_rows)(const float* x, int64_t x_stride, int64_t rows, int64_t width, const QuantizedRows& to);
  float (*dot)(const float* a, const float* b, int64_t n);
  // weight may be null (x / rms(x)); y may be x.
  void (*rms_norm)(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps, float* y,
                   int64_t y_stride);
  // One row of `heads` vectors of head_dim, in place; cosine and sine of its position: [head_dim / 2] each.
  void (*rope)(float* x, int64_t heads, int64_t head_dim, const float* cosine, const float* sine);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);  // y may be gate
  void (*silu)(const float* x, const float* bias, int64_t n, float* y);       // of x + bias; y may be x
  void (*add)(const float* x, const float* a, int64_t n, float* y);           // y may be x or a
  void (*scaled_add)(const float* x, const float* a, float g, int64_t n, float* y);  // y = x + g·a; y may be x or a
  void (*store_slot)(const StoreSlot&);
  // attend_code_* are for a q8_0 cache, attend_scores and attend_values for the others; the functions of their names below choose.
  void (*attend_scores)(const Attend&, int64_t page_begin, int64_t page_end);
  void (*attend_code_scores)(const Attend&, int64_t page_begin, int64_t page_end);
  void (*attend_softmax)(const Attend&, int64_t query_begin, int64_t query_end);
  void (*attend_values)(const Attend&, int64_t first, int64_t last);          // columns; `first` is a multiple of 16
  void (*attend_code_values)(const Attend&, int64_t first, int64_t last);
  double (*log_sum_exp)(const float* x, int64_t n);
  void (*exp_shifted)(const float* x, float shift, int64_t n, float* y);      // y = exp(x − shift); y may be x
  int64_t (*argmax)(const float* x, int64_t n);
};

void attend_scores(const Kernels&, const Attend&, int64_t page_begin, int64_t page_end);
void attend_values(const Kernels&, const Attend&, int64_t first, int64_t last);

// The fastest table that this CPU runs, or the one that the environment variable FATHOM_ISA names; an unknown name or
// one that this CPU lacks is a UserError.
const Kernels& chosen();
const Kernels& kernels_for(Isa isa);   // UserError when this machine cannot run it
const Kernels& kernels_named(const std::string& name);
std::vector<Isa> available();          // on this machine, reference first
const char* isa_name(Isa isa);

// Multiply–adds done so far by the reference kernels' own loops (matmul, dot, attend_*), in this process. Tests hold it
// equal to model/cost. The other tables do not count.
int64_t reference_multiply_adds();

}  // namespace fathom::kernels
