#include "kernels/kernels.h"

#include <cstdlib>

#include "core/error.h"
#include "kernels/tables.h"

namespace fathom::kernels {
namespace {

#if defined(__x86_64__)
bool cpu_has_fma() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
bool cpu_has_avx512() {
  return cpu_has_fma() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
bool cpu_has_vnni() { return cpu_has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#else
bool cpu_has_fma() { return false; }
bool cpu_has_avx512() { return false; }
bool cpu_has_vnni() { return false; }
#endif

const Kernels* avx512vnni() {
  if (!kAvx512 || !kVnniMatmul || !cpu_has_vnni()) return nullptr;
  static const Kernels table = [] {
    Kernels t = *kAvx512;
    t.isa = Isa::avx512vnni;
    t.name = "avx512vnni";
    t.quantized_matmul = kVnniMatmul;
    return t;
  }();
  return &table;
}

const Kernels* find(Isa isa) {  // null when this machine or build lacks it
  switch (isa) {
    case Isa::reference: return kReferenceFma && cpu_has_fma() ? kReferenceFma : kReferencePlain;
    case Isa::avx2: return cpu_has_fma() ? kAvx2 : nullptr;
    case Isa::avx512: return cpu_has_avx512() ? kAvx512 : nullptr;
    case Isa::avx512vnni: return avx512vnni();
  }
  return nullptr;
}

constexpr Isa kAll[] = {Isa::reference, Isa::avx2, Isa::avx512, Isa::avx512vnni};  // slowest first

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

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::reference: return "reference";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512vnni: return "avx512vnni";
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

int64_t reference_multiply_adds() { return __atomic_load_n(&reference_count, __ATOMIC_RELAXED); }

}  // namespace fathom::kernels
