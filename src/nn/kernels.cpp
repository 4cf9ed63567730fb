#include "nn/kernels.h"

namespace fathom::nn {

extern const Kernels<float, float> kernels_f32_base, kernels_f32_v3, kernels_f32_v4;
extern const Kernels<double, double> kernels_f64_base, kernels_f64_v3, kernels_f64_v4;
extern const Kernels<float, Bf16> kernels_bf16_base, kernels_bf16_v3, kernels_bf16_v4;

namespace {

int isa_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return v4 ? 2 : v3 ? 1 : 0;
#else
  return 0;
#endif
}

template <class P, class A>
const Kernels<P, A>* const* tables();
template <>
const Kernels<float, float>* const* tables<float, float>() {
  static const Kernels<float, float>* const t[] = {&kernels_f32_base, &kernels_f32_v3, &kernels_f32_v4};
  return t;
}
template <>
const Kernels<double, double>* const* tables<double, double>() {
  static const Kernels<double, double>* const t[] = {&kernels_f64_base, &kernels_f64_v3, &kernels_f64_v4};
  return t;
}
template <>
const Kernels<float, Bf16>* const* tables<float, Bf16>() {
  static const Kernels<float, Bf16>* const t[] = {&kernels_bf16_base, &kernels_bf16_v3, &kernels_bf16_v4};
  return t;
}

}  // namespace

template <class P, class A>
const Kernels<P, A>& kernels() {
  static const Kernels<P, A>& chosen = *tables<P, A>()[isa_level()];
  return chosen;
}

template <class P, class A>
int kernels_available(const Kernels<P, A>** out, int max) {
  int n = 0;
  for (int level = 0; level <= isa_level() && n < max; ++level) out[n++] = tables<P, A>()[level];
  return n;
}

template const Kernels<float, float>& kernels<float, float>();
template const Kernels<double, double>& kernels<double, double>();
template const Kernels<float, Bf16>& kernels<float, Bf16>();
template int kernels_available<float, float>(const Kernels<float, float>**, int);
template int kernels_available<double, double>(const Kernels<double, double>**, int);
template int kernels_available<float, Bf16>(const Kernels<float, Bf16>**, int);

}  // namespace fathom::nn
