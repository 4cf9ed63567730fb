#include "kernels/kernels.h"

#include <cstdlib>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "core/error.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

[[maybe_unused]] Kernels with_loops(Kernels table, Isa isa, const CodeLoops& loops) {
  table.isa = isa;
  table.name = isa_name(isa);
  table.quantized_matmul = loops.quantized_matmul;
  table.attend_code_scores = loops.attend_scores;
  table.attend_code_values = loops.attend_values;
  return table;
}

#if defined(__x86_64__)

bool cpu_has_fma() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
bool cpu_has_avx512() {
  return cpu_has_fma() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
bool cpu_has_avxvnni() { return cpu_has_fma() && __builtin_cpu_supports("avxvnni"); }
bool cpu_has_vnni() { return cpu_has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool cpu_has_bf16() { return cpu_has_vnni() && __builtin_cpu_supports("avx512bf16"); }

Kernels with_bf16(Kernels table) {
  table.isa = Isa::avx512bf16;
  table.name = isa_name(table.isa);
  table.matmul = kBf16Matmul;
  return table;
}

const Kernels* find(Isa isa) {  // null when this machine lacks it
  static const Kernels short_vnni = with_loops(*kAvx2, Isa::avxvnni, cpu_has_avxvnni() ? kAvxVnniLoops : kAvx512VnniLoops256);
  static const Kernels vnni = with_loops(*kAvx512, Isa::avx512vnni, kVnniLoops);
  static const Kernels bf16 = with_bf16(vnni);
  switch (isa) {
    case Isa::reference: return cpu_has_fma() ? kReferenceFma : kReferencePlain;
    case Isa::avx2: return cpu_has_fma() ? kAvx2 : nullptr;
    case Isa::avxvnni: return cpu_has_avxvnni() || cpu_has_vnni() ? &short_vnni : nullptr;
    case Isa::avx512: return cpu_has_avx512() ? kAvx512 : nullptr;
    case Isa::avx512vnni: return cpu_has_vnni() ? &vnni : nullptr;
    case Isa::avx512bf16: return cpu_has_bf16() ? &bf16 : nullptr;
    default: return nullptr;
  }
}

#elif defined(__aarch64__)

const Kernels* find(Isa isa) {
  static const Kernels dot = with_loops(*kNeon, Isa::neondot, kDotLoops);
  switch (isa) {
    case Isa::reference: return kReferencePlain;
    case Isa::neon: return kNeon;
    case Isa::neondot: return cpu_has_dotprod() ? &dot : nullptr;
    default: return nullptr;
  }
}

#else

const Kernels* find(Isa isa) { return isa == Isa::reference ? kReferencePlain : nullptr; }

#endif

constexpr Isa kAll[] = {Isa::reference, Isa::avx2, Isa::avxvnni, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16, Isa::neon, Isa::neondot};  // slowest first

std::string available_names() {
  std::string names;
  for (Isa isa : available()) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  return names;
}

const Kernels& from_environment() {
  const char* const name = std::getenv("FATHOM_ISA");
  if (!name || !*name) return kernels_for(available().back());
  return kernels_named(name);
}

}  // namespace

void attend_scores(const Kernels& table, const Attend& a, int64_t page_begin, int64_t page_end) {
  (a.type == KvType::q8_0 ? table.attend_code_scores : table.attend_scores)(a, page_begin, page_end);
}
void attend_values(const Kernels& table, const Attend& a, int64_t first, int64_t last) {
  (a.type == KvType::q8_0 ? table.attend_code_values : table.attend_values)(a, first, last);
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::reference: return "reference";
    case Isa::avx2: return "avx2";
    case Isa::avxvnni: return "avxvnni";
    case Isa::avx512: return "avx512";
    case Isa::avx512vnni: return "avx512vnni";
    case Isa::avx512bf16: return "avx512bf16";
    case Isa::neon: return "neon";
    case Isa::neondot: return "neondot";
  }
  return "";
}

std::vector<Isa> available() {
  std::vector<Isa> found;
  for (Isa isa : kAll)
    if (find(isa)) found.push_back(isa);
  return found;
}

const Kernels& kernels_for(Isa isa) {
  if (const Kernels* table = find(isa)) return *table;
  throw UserError({"FATHOM_ISA", "", isa_name(isa), "an instruction set of this machine: " + available_names(), ""});
}

const Kernels& kernels_named(const std::string& name) {
  for (Isa isa : kAll)
    if (name == isa_name(isa)) return kernels_for(isa);
  throw UserError({"FATHOM_ISA", "", "\"" + printable(name) + "\"", "one of " + available_names(), ""});
}

const Kernels& chosen() {
  static const Kernels& table = from_environment();
  return table;
}

#if defined(__aarch64__)
bool cpu_has_dotprod() { return (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#endif

int64_t reference_multiply_adds() { return __atomic_load_n(&reference_count, __ATOMIC_RELAXED); }

}  // namespace fathom::kernels
