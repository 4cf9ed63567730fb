// The loops of every instruction set against plain ones in f64, on shapes that are multiples of nothing, with guard bands
// around every output.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/float16.h"
#include "core/random.h"
#include "nn/kernels.h"

namespace fathom::nn {
namespace {

float value(float x) { return x; }
double value(double x) { return x; }
double value(Bf16 x) { return bf16_to_f32(x.bits); }
template <class A>
A from(double x) {
  if constexpr (std::is_same_v<A, Bf16>) return Bf16{f32_to_bf16(static_cast<float>(x))};
  else return static_cast<A>(x);
}

constexpr size_t kBand = 37;

// Elements between two bands of a pattern that no loop may touch.
template <class X>
class Guarded {
 public:
  explicit Guarded(size_t n) : n_(n), all_(n + 2 * kBand) { std::memset(static_cast<void*>(all_.data()), 0x5b, all_.size() * sizeof(X)); }
  X* data() { return all_.data() + kBand; }
  X& operator[](size_t i) { return all_[kBand + i]; }
  size_t size() const { return n_; }
  ::testing::AssertionResult intact() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(all_.data());
    for (size_t i = 0; i < kBand * sizeof(X); ++i)
      if (bytes[i] != 0x5b || bytes[(kBand + n_) * sizeof(X) + i] != 0x5b) return ::testing::AssertionFailure() << "guard band, byte " << i;
    return ::testing::AssertionSuccess();
  }

 private:
  size_t n_;
  std::vector<X> all_;
};

template <class X>
Guarded<X> random_values(Random& random, size_t n, double scale = 1) {
  Guarded<X> g(n);
  for (size_t i = 0; i < n; ++i) g[i] = from<X>(scale * random.normal());
  return g;
}

// One tolerance per activation type, relative to the largest expected value.
template <class P, class A>
constexpr double kTolerance = std::is_same_v<A, Bf16> ? 8e-3 : std::is_same_v<P, float> ? 4e-6 : 1e-13;

template <class P, class A, class X>
void expect_near(Guarded<X>& found, const std::vector<double>& expected, const char* what) {
  EXPECT_TRUE(found.intact()) << what;
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0.1;
  for (double e : expected) largest = std::max(largest, std::abs(e));
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(value(found[i]), expected[i], (kTolerance<P, A>) * largest) << what << " " << i;
}

template <class P, class A>
void each_isa(const std::function<void(const Kernels<P, A>&)>& body) {
  const Kernels<P, A>* all[8];
  const int n = kernels_available<P, A>(all, 8);
  ASSERT_GE(n, 1);
  for (int i = 0; i < n; ++i) {
    SCOPED_TRACE(all[i]->isa);
    body(*all[i]);
  }
}

template <class Pair>
class KernelTest : public ::testing::Test {};
template <class P_, class A_>
struct Types {
  using P = P_;
  using A = A_;
};
using AllTypes = ::testing::Types<Types<float, float>, Types<double, double>, Types<float, Bf16>>;
TYPED_TEST_SUITE(KernelTest, AllTypes);

TYPED_TEST(KernelTest, NormForwardAndBackward) {
  using P = typename TypeParam::P;
  using A = typename TypeParam::A;
  each_isa<P, A>([](const Kernels<P, A>& k) {
    Random random(1);
    for (int64_t C : {1, 3, 16, 37, 130})
      for (bool delta : {false, true}) {
        const int64_t N = 5;
        const size_t n = static_cast<size_t>(N * C);
        auto x = random_values<P>(random, n);
        auto d = random_values<A>(random, n), du = random_values<A>(random, n);
        auto norm = random_values<P>(random, static_cast<size_t>(C));
        auto dh = random_values<P>(random, n);
        Guarded<P> h(n), rstd(static_cast<size_t>(N)), dx(n), dnorm(static_cast<size_t>(C));
        Guarded<A> u(n), da(n);
        std::vector<double> eh(n), eu(n), edx(n), edn(static_cast<size_t>(C), 0.0);
        k.add_norm(N, C, x.data(), delta ? d.data() : nullptr, norm.data(), 1e-5, delta ? h.data() : nullptr, u.data(), rstd.data());
        for (int64_t i = 0; i < N; ++i) {
          double square = 0, dot = 0;
          for (int64_t c = 0; c < C; ++c) {
            const size_t j = static_cast<size_t>(i * C + c);
            eh[j] = value(x[j]) + (delta ? value(d[j]) : 0.0);
            square += eh[j] * eh[j];
          }
          const double r = 1 / std::sqrt(square / static_cast<double>(C) + 1e-5);
          for (int64_t c = 0; c < C; ++c) {
            const size_t j = static_cast<size_t>(i * C + c), w = static_cast<size_t>(c);
            eu[j] = eh[j] * r * value(norm[w]);
            dot += value(du[j]) * value(norm[w]) * eh[j] * r;
            edn[w] += value(du[j]) * eh[j] * r;
          }
          for (int64_t c = 0; c < C; ++c) {
            const size_t j = static_cast<size_t>(i * C + c), w = static_cast<size_t>(c);
            edx[j] = value(dh[j]) + r * (value(du[j]) * value(norm[w]) - eh[j] * r * dot / static_cast<double>(C));
          }
        }
        if (delta) expect_near<P, P>(h, eh, "h");
        expect_near<P, A>(u, eu, "u");
        for (size_t c = 0; c < static_cast<size_t>(C); ++c) dnorm[c] = 0;
        k.norm_backward(N, C, delta ? h.data() : x.data(), rstd.data(), norm.data(), dh.data(), dx.data(), da.data(), du.data(), dnorm.data());
        expect_near<P, P>(dx, edx, "dx");
        expect_near<P, A>(da, edx, "da");
        expect_near<P, A>(du, eu, "u again");
        expect_near<P, P>(dnorm, edn, "dnorm");
      }
  });
}

TYPED_TEST(KernelTest, Swiglu) {
  using P = typename TypeParam::P;
  using A = typename TypeParam::A;
  each_isa<P, A>([](const Kernels<P, A>& k) {
    Random random(2);
    for (int64_t F : {1, 7, 33, 100}) {
      const int64_t N = 3;
      const size_t n = static_cast<size_t>(N * F);
      auto gate_up = random_values<A>(random, 2 * n, 4), dact = random_values<A>(random, n);
      gate_up[0] = from<A>(-120.0);  // past the end of f32's exponential
      gate_up[2 * static_cast<size_t>(F)] = from<A>(110.0);
      Guarded<A> act(n), again(n), dgate_up(2 * n);
      std::vector<double> ea(n), eg(2 * n);
      for (int64_t i = 0; i < N; ++i)
        for (int64_t f = 0; f < F; ++f) {
          const size_t j = static_cast<size_t>(i * F + f), g = static_cast<size_t>(i * 2 * F + f), u = g + static_cast<size_t>(F);
          const double x = value(gate_up[g]), s = 1 / (1 + std::exp(-x));
          ea[j] = x * s * value(gate_up[u]);
          eg[u] = value(dact[j]) * x * s;
          eg[g] = value(dact[j]) * value(gate_up[u]) * (s + x * s * (1 - s));
        }
      k.swiglu(N, F, gate_up.data(), act.data());
      expect_near<P, A>(act, ea, "act");
      k.swiglu_backward(N, F, gate_up.data(), dact.data(), dgate_up.data(), again.data());
      expect_near<P, A>(again, ea, "act again");
      expect_near<P, A>(dgate_up, eg, "dgate_up");
    }
  });
}

TYPED_TEST(KernelTest, SoftmaxLoss) {
  using P = typename TypeParam::P;
  using A = typename TypeParam::A;
  each_isa<P, A>([](const Kernels<P, A>& k) {
    Random random(3);
    for (int64_t V : {1, 5, 40, 257}) {
      const int64_t target[4] = {0, V - 1, -100, V / 2};
      auto logits = random_values<A>(random, static_cast<size_t>(4 * V), 5);
      std::vector<double> nll(4, 0.0), d(static_cast<size_t>(4 * V), 0.0);
      for (int64_t i = 0; i < 4; ++i) {
        if (target[i] < 0) continue;
        double sum = 0;
        for (int64_t v = 0; v < V; ++v) sum += std::exp(value(logits[static_cast<size_t>(i * V + v)]));
        nll[static_cast<size_t>(i)] = std::log(sum) - value(logits[static_cast<size_t>(i * V + target[i])]);
        for (int64_t v = 0; v < V; ++v)
          d[static_cast<size_t>(i * V + v)] = 0.25 * (std::exp(value(logits[static_cast<size_t>(i * V + v)])) / sum - (v == target[i]));
      }
      Guarded<P> found(4);
      k.softmax_loss(4, V, logits.data(), target, P(0), found.data());
      expect_near<P, P>(found, nll, "nll");
      k.softmax_loss(4, V, logits.data(), target, P(0.25), found.data());
      expect_near<P, P>(found, nll, "nll");
      expect_near<P, A>(logits, d, "dlogits");
    }
  });
}

TYPED_TEST(KernelTest, DistillLoss) {
  using P = typename TypeParam::P;
  using A = typename TypeParam::A;
  each_isa<P, A>([](const Kernels<P, A>& k) {
    Random random(9);
    for (const int64_t V : {5, 16, 37, 130})
      for (const int64_t top : {int64_t{1}, int64_t{3}, V, int64_t{0}}) {  // 0: all logits of the teacher
        const int64_t target[3] = {V - 1, -100, 2};
        auto logits = random_values<A>(random, static_cast<size_t>(3 * V), 5);
        auto teacher = random_values<P>(random, static_cast<size_t>(3 * V), 2), log_p = random_values<P>(random, static_cast<size_t>(3 * top));
        std::vector<int32_t> ids(static_cast<size_t>(3 * top));
        std::vector<double> nll(3, 0.0), kl(3, 0.0), d(static_cast<size_t>(3 * V), 0.0);
        for (int64_t i = 0; i < 3; ++i) {
          const auto z = [&](int64_t v) { return value(logits[static_cast<size_t>(i * V + v)]); };
          double sum = 0, total = 0, mass = 0, rest = 0;
          for (int64_t v = 0; v < V; ++v) sum += std::exp(z(v)), total += std::exp(value(teacher[static_cast<size_t>(i * V + v)]));
          std::vector<double> p(static_cast<size_t>(V), -1);  // of the teacher; below 0: in the rest
          for (int64_t v = 0; v < V && top == 0; ++v) p[static_cast<size_t>(v)] = std::exp(value(teacher[static_cast<size_t>(i * V + v)])) / total;
          for (int64_t j = 0; j < top; ++j) {
            const size_t at = static_cast<size_t>(i * top + j);
            ids[at] = static_cast<int32_t>((V - 1 + j) % V);
            log_p[at] = from<P>(std::log(0.9 / static_cast<double>(top)));
            p[static_cast<size_t>(ids[at])] = std::exp(value(log_p[at]));
          }
          for (int64_t v = 0; v < V; ++v) {
            if (p[static_cast<size_t>(v)] >= 0) mass += p[static_cast<size_t>(v)];
            else rest += std::exp(z(v)) / sum;
          }
          if (target[i] < 0) continue;
          const size_t n = static_cast<size_t>(i);
          const double p_rest = rest > 0 ? 1 - mass : 0;
          nll[n] = std::log(sum) - z(target[i]);
          if (p_rest > 0) kl[n] = p_rest * std::log(p_rest / rest);
          for (int64_t v = 0; v < V; ++v) {
            const double q = std::exp(z(v)) / sum, pv = p[static_cast<size_t>(v)];
            if (pv >= 0) kl[n] += pv * std::log(pv / q);
            const double of_kl = pv >= 0 ? (mass + p_rest) * q - pv : q * (mass + p_rest - p_rest / rest);
            d[static_cast<size_t>(i * V + v)] = 0.25 * (q - (v == target[i])) + 0.5 * of_kl;
          }
        }
        Guarded<P> found(3), found_kl(3), scratch(static_cast<size_t>(3 * top));
        DistillTask<P, A> t;
        t.V = V, t.k = top;
        t.logits = logits.data(), t.target = target;
        t.ids = ids.data(), t.log_probability = log_p.data(), t.scratch = scratch.data();
        t.teacher = top == 0 ? teacher.data() : nullptr;
        t.loss_scale = P(0.25), t.kl_scale = P(0.5);
        t.nll = found.data(), t.kl = found_kl.data();
        for (const bool gradient : {false, true}) {
          t.gradient = gradient;
          k.distill_loss(t, 0, 1);
          k.distill_loss(t, 1, 3);
          expect_near<P, P>(found, nll, "nll");
          expect_near<P, P>(found_kl, kl, "kl");
        }
        expect_near<P, A>(logits, d, "dlogits");
        EXPECT_TRUE(scratch.intact());
      }
  });
}

TYPED_TEST(KernelTest, RouterAndScatter) {
  using P = typename TypeParam::P;
  using A = typename TypeParam::A;
  each_isa<P, A>([](const Kernels<P, A>& k) {
    Random random(4);
    for (int64_t C : {1, 6, 35, 64}) {
      const int64_t N = 6, row[3] = {1, 2, 5};
      const size_t n = static_cast<size_t>(N * C), m3 = static_cast<size_t>(3 * C);
      auto x = random_values<P>(random, n), w = random_values<P>(random, static_cast<size_t>(C)), g = random_values<P>(random, 3);
      auto a = random_values<A>(random, m3), m = random_values<A>(random, m3), delta = random_values<A>(random, n);
      Guarded<P> r(6), h(n), rstd(6), out(n), dg(3);
      Guarded<A> da(m3);
      std::vector<double> er(6), eh(n), eout(n), eda(m3), edg(3, 0.0);
      for (int64_t i = 0; i < N; ++i) {
        double dot = 0, square = 0;
        for (int64_t c = 0; c < C; ++c) {
          const double v = value(x[static_cast<size_t>(i * C + c)]) + value(delta[static_cast<size_t>(i * C + c)]);
          eh[static_cast<size_t>(i * C + c)] = v;
          dot += v * value(w[static_cast<size_t>(c)]);
          square += v * v;
        }
        er[static_cast<size_t>(i)] = dot / std::sqrt(square / static_cast<double>(C) + 1e-5);
      }
      k.score(N, C, x.data(), delta.data(), w.data(), 1e-5, h.data(), r.data(), rstd.data());
      expect_near<P, P>(h, eh, "x + delta");
      expect_near<P, P>(r, er, "score");
      for (size_t i = 0; i < n; ++i) {
        out[i] = x[i];
        eout[i] = value(x[i]);
      }
      for (size_t i = 0; i < 3; ++i)
        for (size_t c = 0; c < static_cast<size_t>(C); ++c) {
          const size_t j = i * static_cast<size_t>(C) + c, t = static_cast<size_t>(row[i] * C) + c;
          eout[t] += value(g[i]) * (value(a[j]) + value(m[j]));
          eda[j] = value(g[i]) * value(x[t]);
          edg[i] += value(x[t]) * (value(a[j]) + value(m[j]));
        }
      k.scatter(3, C, row, a.data(), m.data(), g.data(), out.data());
      expect_near<P, P>(out, eout, "scatter");
      k.scatter_backward(3, C, row, x.data(), a.data(), m.data(), g.data(), da.data(), dg.data());
      expect_near<P, A>(da, eda, "da");
      expect_near<P, P>(dg, edg, "dg");

      // One delta alone.
      Guarded<P> out1(n), dg1(3);
      Guarded<A> da1(m3);
      std::vector<double> eout1(n), edg1(3, 0.0);
      for (size_t i = 0; i < n; ++i) out1[i] = x[i], eout1[i] = value(x[i]);
      for (size_t i = 0; i < 3; ++i)
        for (size_t c = 0; c < static_cast<size_t>(C); ++c) {
          const size_t t = static_cast<size_t>(row[i] * C) + c, j = i * static_cast<size_t>(C) + c;
          eout1[t] += value(g[i]) * value(a[j]);
          edg1[i] += value(x[t]) * value(a[j]);
        }
      k.scatter(3, C, row, a.data(), nullptr, g.data(), out1.data());
      expect_near<P, P>(out1, eout1, "scatter of one");
      k.scatter_backward(3, C, row, x.data(), a.data(), nullptr, g.data(), da1.data(), dg1.data());
      expect_near<P, A>(da1, eda, "da of one");
      expect_near<P, P>(dg1, edg1, "dg of one");

      // The entrance's way back, in two parts: h may be anything where a row was gathered.
      auto gathered = random_values<P>(random, m3), dgathered = random_values<P>(random, m3), dscore = random_values<P>(random, 6);
      dscore[0] = dscore[5] = P(0);
      Guarded<P> dx(n), dw(static_cast<size_t>(C));
      Guarded<A> dxa(n);
      std::vector<double> edx(n), edw(static_cast<size_t>(C), 0.0);
      for (size_t c = 0; c < static_cast<size_t>(C); ++c) dw[c] = P(0);
      for (size_t i = 0, j = 0; i < 6; ++i) {
        const bool runs = i == 1 || i == 2 || i == 5;
        const double s = value(dscore[i]) * value(rstd[i]);
        for (size_t c = 0; c < static_cast<size_t>(C); ++c) {
          const size_t at = i * static_cast<size_t>(C) + c;
          const double hv = runs ? value(gathered[j * static_cast<size_t>(C) + c]) : value(h[at]);
          edx[at] = value(x[at]) + (runs ? value(dgathered[j * static_cast<size_t>(C) + c]) : 0.0) + s * value(w[c]) -
                    s * value(rstd[i]) * value(r[i]) * hv / static_cast<double>(C);
          edw[c] += s * hv;
        }
        j += runs;
      }
      EntranceTask<P, A> t;
      t.C = C;
      t.count = 3;
      t.row = row;
      t.h = h.data();
      t.gathered = gathered.data();
      t.w = w.data();
      t.score = r.data();
      t.rstd = rstd.data();
      t.dh = x.data();
      t.dg = dgathered.data();
      t.dscore = dscore.data();
      t.dx = dx.data();
      t.da = dxa.data();
      k.entrance_backward(t, 0, 2, dw.data());
      k.entrance_backward(t, 2, 6, dw.data());
      expect_near<P, P>(dx, edx, "dx");
      expect_near<P, A>(dxa, edx, "dx as activations");
      expect_near<P, P>(dw, edw, "dw");
    }
  });
}

// One task; the ranges are documents of uneven length within the keys, queries every `step`-th key.
TYPED_TEST(KernelTest, Attention) {
  using P = typename TypeParam::P;
  using A = typename TypeParam::A;
  each_isa<P, A>([](const Kernels<P, A>& k) {
    Random random(5);
    for (const auto& [nk, step, D, heads] : std::vector<std::tuple<int, int, int, int>>{{1, 1, 2, 1}, {33, 1, 6, 2}, {70, 3, 16, 1}, {97, 1, 18, 3}, {130, 2, 64, 1}}) {
      std::vector<int32_t> lo, hi, qp, kp, q_of;
      for (int i = 0; i < nk; ++i) kp.push_back(i);
      for (int i = step - 1; i < nk; i += step) {
        lo.push_back(i < 40 ? 0 : 40);
        hi.push_back(i + 1);
        qp.push_back(i);
      }
      const int64_t nq = static_cast<int64_t>(qp.size());
      if (nq == 0) continue;
      std::vector<P> cosine, sine;
      for (int p = 0; p < nk; ++p)
        for (int j = 0; j < D / 2; ++j) {
          cosine.push_back(static_cast<P>(std::cos(p * std::pow(50.0, -2.0 * j / D))));
          sine.push_back(static_cast<P>(std::sin(p * std::pow(50.0, -2.0 * j / D))));
        }
      const int64_t q_stride = heads * D + 3, kv_stride = 2 * D + 1, out_stride = heads * D;
      auto q = random_values<A>(random, static_cast<size_t>(nq * q_stride)), kv = random_values<A>(random, static_cast<size_t>(nk * kv_stride));
      auto dout = random_values<A>(random, static_cast<size_t>(nq * out_stride));
      Guarded<A> out(static_cast<size_t>(nq * out_stride)), dq(q.size()), dkv(kv.size());
      Guarded<P> lse(static_cast<size_t>(heads * nq)), scratch(static_cast<size_t>(k.attention_scratch(nq, nk, D)));
      AttentionTask<P, A> t;
      t.nq = nq;
      t.nk = nk;
      t.D = D;
      t.heads = heads;
      t.q = q.data();
      t.k = kv.data();
      t.v = kv.data() + D;
      t.q_stride = q_stride;
      t.kv_stride = kv_stride;
      t.lo = lo.data();
      t.hi = hi.data();
      t.q_position = qp.data();
      t.k_position = kp.data();
      t.cosine = cosine.data();
      t.sine = sine.data();
      t.out = out.data();
      t.lse = lse.data();
      t.out_stride = out_stride;
      t.lse_stride = nq;
      k.attention(t, scratch.data());

      // The same in f64, straight from the definition, with the gradients of Σ dout · out.
      std::vector<double> eo(out.size()), eq(q.size()), ekv(kv.size());
      const auto turn = [&](const std::vector<double>& v, int position, double sign) {
        std::vector<double> y(v.size());
        for (int j = 0; j < D / 2; ++j) {
          const double angle = sign * position * std::pow(50.0, -2.0 * j / D), c = std::cos(angle), s = std::sin(angle);
          const size_t a = static_cast<size_t>(j), b = static_cast<size_t>(j + D / 2);
          y[a] = v[a] * c - v[b] * s;
          y[b] = v[b] * c + v[a] * s;
        }
        return y;
      };
      const auto vec = [&](auto& from, int64_t offset) {
        std::vector<double> v;
        for (int64_t j = 0; j < D; ++j) v.push_back(value(from[static_cast<size_t>(offset + j)]));
        return v;
      };
      const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
        double s = 0;
        for (size_t j = 0; j < a.size(); ++j) s += a[j] * b[j];
        return s;
      };
      std::vector<std::vector<double>> key, val;
      for (int64_t j = 0; j < nk; ++j) {
        key.push_back(turn(vec(kv, j * kv_stride), static_cast<int>(j), 1));
        val.push_back(vec(kv, j * kv_stride + D));
      }
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < nq; ++i) {
          const size_t qi = static_cast<size_t>(i);
          const auto query = turn(vec(q, i * q_stride + h * D), qp[qi], 1);
          const auto d = vec(dout, i * out_stride + h * D);
          std::vector<double> p;
          double sum = 0, mean = 0;
          for (int j = lo[qi]; j < hi[qi]; ++j) {
            p.push_back(std::exp(dot(query, key[static_cast<size_t>(j)]) / std::sqrt(static_cast<double>(D))));
            sum += p.back();
          }
          for (int j = lo[qi]; j < hi[qi]; ++j) {
            p[static_cast<size_t>(j - lo[qi])] /= sum;
            mean += p[static_cast<size_t>(j - lo[qi])] * dot(d, val[static_cast<size_t>(j)]);
          }
          std::vector<double> dquery(static_cast<size_t>(D), 0.0);
          for (int j = lo[qi]; j < hi[qi]; ++j) {
            const size_t kj = static_cast<size_t>(j);
            const double w = p[static_cast<size_t>(j - lo[qi])], ds = w * (dot(d, val[kj]) - mean) / std::sqrt(static_cast<double>(D));
            std::vector<double> dkey(static_cast<size_t>(D));
            for (size_t c = 0; c < static_cast<size_t>(D); ++c) {
              eo[static_cast<size_t>(i * out_stride + h * D) + c] += w * val[kj][c];
              ekv[static_cast<size_t>(j * kv_stride + D) + c] += w * d[c];
              dquery[c] += ds * key[kj][c];
              dkey[c] = ds * query[c];
            }
            dkey = turn(dkey, j, -1);
            for (size_t c = 0; c < static_cast<size_t>(D); ++c) ekv[static_cast<size_t>(j * kv_stride) + c] += dkey[c];
          }
          dquery = turn(dquery, qp[qi], -1);
          for (size_t c = 0; c < static_cast<size_t>(D); ++c) eq[static_cast<size_t>(i * q_stride + h * D) + c] = dquery[c];
        }
      expect_near<P, A>(out, eo, "out");
      EXPECT_TRUE(lse.intact());
      for (size_t i = 0; i < dq.size(); ++i) dq[i] = from<A>(0);
      for (size_t i = 0; i < dkv.size(); ++i) dkv[i] = from<A>(0);
      t.dout = dout.data();
      t.dq = dq.data();
      t.dk = dkv.data();
      t.dv = dkv.data() + D;
      k.attention_backward(t, scratch.data());
      expect_near<P, A>(dq, eq, "dq");
      expect_near<P, A>(dkv, ekv, "dkv");
      EXPECT_TRUE(scratch.intact());
    }
  });
}

}  // namespace
}  // namespace fathom::nn
