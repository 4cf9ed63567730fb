// Two steps. First every group by itself: over a range of step sizes, assign codes and take the scale (and minimum) of least
// squares for these codes; keep the best and repeat from it. Then the block: round the groups' scales to small integers,
// trying the neighbours of each with the codes that fit them, and solve for d (and dmin) by least squares over all 256
// values; repeat while the error falls. The error that decides is that of the values as they will be read back.
#include "formats/ggml_quantize_k.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/float16.h"

namespace fathom::formats {
namespace {

// Four floats as one: every loop below runs over 16 or 32 values and sums in four lanes, on any ISA in the same order.
using F4 = float __attribute__((vector_size(16)));

F4 load(const float* p) {
  F4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
F4 all(float v) { return F4{v, v, v, v}; }
double sum(F4 v) { return static_cast<double>((v[0] + v[1]) + (v[2] + v[3])); }

// The nearest whole number from low to high (NaN: low). Adding 1.5 * 2^23 leaves no bits below one.
F4 nearest(F4 v, F4 low, F4 high) {
  const F4 magic = all(12582912.f);
  v = v > low ? v : low;
  v = v < high ? v : high;
  return (v + magic) - magic;
}
int nearest_integer(double v, int low, int high) {
  return !(v > low) ? low : v >= high ? high : static_cast<int>(std::floor(v + 0.5));
}

// The least f16 that is not nearer to 0 than v: with it every group's scale has its integer within the range.
uint16_t f16_outward(double v) {
  const uint16_t bits = f32_to_f16(static_cast<float>(v));
  return static_cast<uint16_t>(bits + (std::fabs(static_cast<double>(f16_to_f32(bits))) < std::fabs(v) && (bits & 0x7fff) < 0x7bff));
}

constexpr double kWorst = std::numeric_limits<double>::infinity();

// ---- Lines: value = scale * code - minimum, code 0 to high, both parameters from 0.

struct Line {
  double scale = 0, minimum = 0;
};

struct LineFit {
  const float* x;
  F4 high;
  double sum_x = 0, sum_xx = 0;
  Line best;
  double error = kWorst;

  // Codes of a step size and a minimum; then the line of least squares through them.
  bool attempt(double inverse_step, double minimum) {
    const F4 inv = all(static_cast<float>(inverse_step)), m = all(static_cast<float>(minimum)), zero = all(0);
    F4 q1 = zero, q2 = zero, xq = zero;
    for (int i = 0; i < 32; i += 4) {
      const F4 v = load(x + i), q = nearest((v + m) * inv, zero, high);
      q1 += q, q2 += q * q, xq += v * q;
    }
    const double q = sum(q1), qq = sum(q2), xq_sum = sum(xq), det = 32 * qq - q * q;
    if (!(det > 0)) return false;
    Line line{(32 * xq_sum - q * sum_x) / det, (q * xq_sum - qq * sum_x) / det};
    if (line.minimum < 0) line = {xq_sum / qq, 0};
    if (!(line.scale > 0)) return false;
    const double s = line.scale, t = line.minimum;
    const double e = sum_xx - 2 * s * xq_sum + 2 * t * sum_x + s * s * qq - 2 * s * t * q + 32 * t * t;
    if (!(e < error)) return false;
    error = e, best = line;
    return true;
  }
};

Line fit_line(const float* x, int high) {
  const auto [least, most] = std::minmax_element(x, x + 32);
  const double low = std::min(*least, 0.f), range = *most - low;
  if (!(range > 0)) return {0, -low};
  LineFit fit{.x = x, .high = all(static_cast<float>(high)), .best = {range / high, -low}};
  F4 s = all(0), ss = all(0);
  for (int i = 0; i < 32; i += 4) s += load(x + i), ss += load(x + i) * load(x + i);
  fit.sum_x = sum(s), fit.sum_xx = sum(ss);
  // A finer step than range / high cuts off the extremes, a coarser one leaves codes unused.
  for (int i = -10; i <= 20; ++i) fit.attempt((high + 0.1 * i) / range, -low);
  for (int i = 0; i < 6 && fit.attempt(1 / fit.best.scale, fit.best.minimum);) ++i;
  return fit.best;
}

struct LineError {
  F4 step, inverse, minimum, high;
  LineError(float a, float b, int top) : step(all(a)), inverse(all(a > 0 ? 1 / a : 0)), minimum(all(b)), high(all(static_cast<float>(top))) {}
  F4 codes(F4 v) const { return nearest((v + minimum) * inverse, all(0), high); }
  double of(const float* x) const {
    F4 e = all(0);
    for (int i = 0; i < 32; i += 4) {
      const F4 v = load(x + i), d = step * codes(v) - minimum - v;
      e += d * d;
    }
    return sum(e);
  }
};

// The second-level integers of all groups for the d and dmin of `c`, and the codes. Returns the error.
double assign_lines(const float* x, const Line* lines, int high, LineCodes& c) {
  const float d = f16_to_f32(c.d), dmin = f16_to_f32(c.dmin);
  double total = 0;
  for (int g = 0; g < 8; ++g, x += 32) {
    const int s = d > 0 ? nearest_integer(lines[g].scale / d, 0, 63) : 0, m = dmin > 0 ? nearest_integer(lines[g].minimum / dmin, 0, 63) : 0;
    double best = kWorst;
    for (int i = std::max(s - 1, 0); i <= std::min(s + 1, 63); ++i)
      for (int j = std::max(m - 1, 0); j <= std::min(m + 1, 63); ++j) {
        const double e = LineError(d * static_cast<float>(i), dmin * static_cast<float>(j), high).of(x);
        if (e < best) best = e, c.scale[g] = static_cast<int8_t>(i), c.minimum[g] = static_cast<int8_t>(j);
      }
    total += best;
    const LineError line(d * static_cast<float>(c.scale[g]), dmin * static_cast<float>(c.minimum[g]), high);
    for (int i = 0; i < 32; i += 4) {
      const F4 q = line.codes(load(x + i));
      for (int k = 0; k < 4; ++k) c.codes[32 * g + i + k] = static_cast<uint8_t>(q[k]);
    }
  }
  return total;
}

// d and dmin of least squares for the integers of `c`; false when they do not determine them.
bool solve_lines(const float* x, LineCodes& c) {
  double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;  // u = scale * code, v = minimum: x = d u - dmin v
  for (int i = 0; i < 256; ++i) {
    const double u = c.scale[i / 32] * c.codes[i], v = c.minimum[i / 32];
    uu += u * u, uv += u * v, vv += v * v, xu += x[i] * u, xv += x[i] * v;
  }
  const double det = uu * vv - uv * uv;
  const bool both = det > 1e-9 * uu * vv;
  const double d = both ? (xu * vv - xv * uv) / det : uu > 0 && vv == 0 ? xu / uu : 0, dmin = both ? (xu * uv - xv * uu) / det : 0;
  if (!(d > 0) || !(dmin >= 0)) return false;
  c.d = f32_to_f16(static_cast<float>(d)), c.dmin = f32_to_f16(static_cast<float>(dmin));
  return true;
}

// ---- Scales: value = scale * q, q -32 to 31, the scale of either sign.

double fit_scale(const float* x) {
  float extreme = 0;
  for (int i = 0; i < 16; ++i)
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  if (extreme == 0) return 0;
  double best = -1, scale = 0;
  const auto attempt = [&](double inverse) {  // least squares leaves sum x^2 - (sum x q)^2 / sum q^2
    const F4 inv = all(static_cast<float>(inverse)), low = all(-32), high = all(31);
    F4 xq = all(0), qq = all(0);
    for (int i = 0; i < 16; i += 4) {
      const F4 v = load(x + i), q = nearest(v * inv, low, high);
      xq += v * q, qq += q * q;
    }
    const double a = sum(xq), b = sum(qq);
    if (!(b > 0) || !(a * a > best * b)) return false;
    best = a * a / b, scale = a / b;
    return true;
  };
  for (int i = -12; i <= 12; ++i) attempt(-(32 + 0.1 * i) / extreme), attempt((31 + 0.1 * i) / extreme);
  for (int i = 0; i < 4 && attempt(1 / scale);) ++i;
  return scale;
}

struct ScaleError {
  F4 step, inverse;
  explicit ScaleError(float a) : step(all(a)), inverse(all(a != 0 ? 1 / a : 0)) {}
  F4 codes(F4 v) const { return nearest(v * inverse, all(-32), all(31)); }
  double of(const float* x) const {
    F4 e = all(0);
    for (int i = 0; i < 16; i += 4) {
      const F4 v = load(x + i), d = step * codes(v) - v;
      e += d * d;
    }
    return sum(e);
  }
};

double assign_scales(const float* x, const double* scales, ScaleCodes& c) {
  const float d = f16_to_f32(c.d);
  double total = 0;
  for (int g = 0; g < 16; ++g, x += 16) {
    const int s = d != 0 ? nearest_integer(scales[g] / d, -128, 127) : 0;
    double best = kWorst;
    for (int i = std::max(s - 2, -128); i <= std::min(s + 2, 127); ++i) {
      const double e = ScaleError(d * static_cast<float>(i)).of(x);
      if (e < best) best = e, c.scale[g] = static_cast<int8_t>(i);
    }
    total += best;
    const ScaleError line(d * static_cast<float>(c.scale[g]));
    for (int i = 0; i < 16; i += 4) {
      const F4 q = line.codes(load(x + i));
      for (int k = 0; k < 4; ++k) c.codes[16 * g + i + k] = static_cast<uint8_t>(q[k] + 32);
    }
  }
  return total;
}

bool solve_scales(const float* x, ScaleCodes& c) {
  double uu = 0, xu = 0;
  for (int i = 0; i < 256; ++i) {
    const double u = c.scale[i / 16] * (c.codes[i] - 32);
    uu += u * u, xu += x[i] * u;
  }
  if (!(uu > 0) || xu == 0) return false;
  c.d = f32_to_f16(static_cast<float>(xu / uu));
  return true;
}

constexpr int kRounds = 4;  // more change nothing in the third digit of the error

// From the start that `c` holds, in turns the integers and the first-level scales, while the error falls.
template <class Codes, class Assign, class Solve>
double descend(Codes& best, Assign assign, Solve solve) {
  double error = assign(best);
  Codes c = best;
  for (int i = 0; i < kRounds && solve(c); ++i) {
    const double e = assign(c);
    if (!(e < error)) break;
    error = e, best = c;
  }
  return error;
}

}  // namespace

LineCodes fit_lines(const float* x, int high) {
  Line lines[8];
  double scale = 0, minimum = 0;
  for (int g = 0; g < 8; ++g) {
    lines[g] = fit_line(x + 32 * g, high);
    scale = std::max(scale, lines[g].scale), minimum = std::max(minimum, lines[g].minimum);
  }
  LineCodes c;
  c.d = f16_outward(scale / 63), c.dmin = f16_outward(minimum / 63);
  descend(c, [&](LineCodes& k) { return assign_lines(x, lines, high, k); }, [&](LineCodes& k) { return solve_lines(x, k); });
  return c;
}

ScaleCodes fit_scales(const float* x) {
  double scales[16], extreme = 0;
  for (int g = 0; g < 16; ++g) {
    scales[g] = fit_scale(x + 16 * g);
    if (std::fabs(scales[g]) > std::fabs(extreme)) extreme = scales[g];
  }
  ScaleCodes c;
  c.d = f16_outward(extreme / -128);
  descend(c, [&](ScaleCodes& k) { return assign_scales(x, scales, k); }, [&](ScaleCodes& k) { return solve_scales(x, k); });
  return c;
}

}  // namespace fathom::formats
