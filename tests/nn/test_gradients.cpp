// Every hand-written differentiable operator against central differences in f64. Not here: the straight-through gate, whose
// forward is constant, so that its gradient is no derivative by design (tests/oracle holds it to the definition instead).
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "nn/ops.h"
#include "nn/transformer.h"

namespace fathom::nn {
namespace {

using at::Tensor;

Tensor random(at::IntArrayRef shape, double scale = 1) {
  return (at::randn(shape, at::kDouble) * scale).requires_grad_(true);
}
Tensor leaf(const Tensor& t) { return t.detach().clone().requires_grad_(true); }

Weight weight_of(const std::vector<int64_t>& rows, int64_t columns) {
  int64_t total = 0, start = 0;
  for (int64_t r : rows) total += r;
  const Tensor memory = at::randn({total, columns}, at::kDouble) * 0.5;
  Weight w;
  for (int64_t r : rows) {
    w.parts.push_back(memory.narrow(0, start, r).detach().requires_grad_(true));
    start += r;
  }
  w.joined = memory;
  return w;
}

Weight biased(Weight w) {
  w.bias = at::randn({w.joined.size(0)}, at::kDouble);
  for (int64_t start = 0; const Tensor& part : w.parts) {
    w.biases.push_back(w.bias.narrow(0, start, part.size(0)).detach().requires_grad_(true));
    start += part.size(0);
  }
  return w;
}

// Σ coefficients · outputs is differentiated with respect to every element of every leaf.
void check(const std::vector<std::pair<const char*, Tensor>>& leaves, const std::function<std::vector<Tensor>()>& run, double tolerance = 2e-7) {
  std::vector<Tensor> coefficients;
  const auto total = [&] {
    Tensor sum = at::zeros({}, at::kDouble);
    const auto outputs = run();
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (coefficients.size() <= i) coefficients.push_back(at::randn(outputs[i].sizes(), at::kDouble));
      sum = sum + (outputs[i] * coefficients[i]).sum();
    }
    return sum;
  };
  for (const auto& [name, t] : leaves) t.mutable_grad() = Tensor();
  total().backward();
  for (const auto& [name, t] : leaves) {
    ASSERT_TRUE(t.grad().defined()) << name;
    const Tensor found = t.grad().contiguous(), expected = at::zeros_like(found);
    at::NoGradGuard no_grad;
    double* x = t.mutable_data_ptr<double>();
    const double h = 1e-5;
    for (int64_t i = 0; i < t.numel(); ++i) {
      const double before = x[i];
      x[i] = before + h;
      const double up = total().item<double>();
      x[i] = before - h;
      const double down = total().item<double>();
      x[i] = before;
      expected.mutable_data_ptr<double>()[i] = (up - down) / (2 * h);
    }
    const double scale = std::max(1.0, expected.abs().max().item<double>());
    EXPECT_LT((found - expected).abs().max().item<double>() / scale, tolerance) << name << "\n" << found << "\n" << expected;
  }
}

class Gradients : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(7);
    at::set_num_threads(1);  // ten thousand tiny forwards
  }
  void TearDown() override { at::set_num_threads(threads_); }
  int threads_ = at::get_num_threads();
};

TEST_F(Gradients, NormLinear) {
  for (bool with_delta : {false, true}) {
    const Tensor x = random({5, 7}), delta = random({5, 7}), norm = random({7});
    const Weight w = weight_of({3, 2, 4}, 7);
    std::vector<std::pair<const char*, Tensor>> leaves = {{"x", x}, {"norm", norm}, {"w0", w.parts[0]}, {"w1", w.parts[1]}, {"w2", w.parts[2]}};
    if (with_delta) leaves.emplace_back("delta", delta);
    check(leaves, [&] {
      const auto out = add_norm_linear(x, with_delta ? delta : Tensor(), norm, 1e-5, w, at::kDouble);
      return std::vector<Tensor>{out.h, out.y};
    });
  }
}

TEST_F(Gradients, Linear) {
  const Tensor x = random({6, 5});
  const Weight w = weight_of({4}, 5);
  check({{"x", x}, {"w", w.parts[0]}}, [&] { return std::vector<Tensor>{linear(x, w)}; });
}

TEST_F(Gradients, SwigluLinear) {
  const Tensor gate_up = random({6, 10}, 2);
  const Weight w = weight_of({4}, 5);
  check({{"gate_up", gate_up}, {"w", w.parts[0]}}, [&] { return std::vector<Tensor>{swiglu_linear(gate_up, w)}; });
}

TEST_F(Gradients, Biases) {
  const Tensor x = random({5, 7}), delta = random({5, 7}), norm = random({7}), gate_up = random({6, 14}, 2);
  const Weight qkv = biased(weight_of({3, 2, 4}, 7)), o = biased(weight_of({3}, 7));
  const Weight kv = qkv.rows(1, 2);
  std::vector<std::pair<const char*, Tensor>> leaves = {{"x", x}, {"norm", norm}, {"delta", delta}, {"gate_up", gate_up}};
  for (const Weight* w : {&qkv, &o})
    for (const Tensor& leaf : w->leaves()) leaves.emplace_back("leaf", leaf);
  check(leaves, [&] {
    const auto out = add_norm_linear(x, delta, norm, 1e-5, qkv, at::kDouble);
    return std::vector<Tensor>{out.h, out.y, linear(x, o), swiglu_linear(gate_up, o), add_norm_linear(x, {}, norm, 1e-5, kv, at::kDouble).y};
  });
  EXPECT_TRUE(at::equal(linear(x, o), at::mm(x, o.joined.t()) + o.bias));
}

TEST_F(Gradients, NormsOfHeads) {
  const int64_t D = 4;
  const Tensor qkv = random({5, (3 + 2 * 2) * D}), q = random({5, 3 * D}), kv = random({5, 2 * 2 * D}), q_norm = random({D}), k_norm = random({D});
  check({{"qkv", qkv}, {"q norm", q_norm}, {"k norm", k_norm}}, [&] { return std::vector<Tensor>{norm_heads(qkv, 3, 2, q_norm, k_norm, 1e-5)}; });
  check({{"q", q}, {"kv", kv}}, [&] { return std::vector<Tensor>{norm_heads(q, 3, 0, q_norm, k_norm, 1e-5), norm_heads(kv, 0, 2, q_norm, k_norm, 1e-5)}; });
  // Values stay, and one half of a row is what it is beside the other.
  const Tensor whole = norm_heads(at::cat({q, kv}, 1), 3, 2, q_norm, k_norm, 1e-5);
  EXPECT_TRUE(at::equal(whole, at::cat({norm_heads(q, 3, 0, q_norm, k_norm, 1e-5), norm_heads(kv, 0, 2, q_norm, k_norm, 1e-5)}, 1)));
  EXPECT_TRUE(at::equal(whole.narrow(1, 5 * D, 2 * D), kv.narrow(1, 2 * D, 2 * D)));
}

// Two sequences; the second has two documents, one of which begins at its third key.
std::shared_ptr<Attention> ranges(int64_t H, int64_t G, int64_t D, bool keep) {
  auto a = std::make_shared<Attention>();
  a->heads = H;
  a->groups = G;
  a->width = D;
  std::tie(a->cosine, a->sine) = rope_table(12, D, 100.0, at::kDouble);
  if (keep) {  // queries are rows 1, 3 | 4, 7, 8 of nine keys
    a->q_begin = {0, 2, 5};
    a->k_begin = {0, 4, 9};
    a->k_position = {0, 1, 2, 3, 0, 1, 0, 1, 2};
    a->q_position = {1, 3, 0, 1, 2};
    a->lo = {0, 0, 4, 6, 6};
    a->hi = {2, 4, 5, 8, 9};
  } else {
    a->q_begin = a->k_begin = {0, 4, 9};
    a->q_position = a->k_position = {0, 2, 3, 9, 0, 1, 0, 5, 6};
    a->lo = {0, 0, 0, 0, 4, 4, 6, 6, 6};
    a->hi = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  }
  return a;
}

TEST_F(Gradients, Attention) {
  for (const auto& [H, G, D] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{{2, 2, 4}, {4, 2, 2}, {3, 1, 18}}) {
    const Tensor qkv = random({9, (H + 2 * G) * D});
    const auto drop = ranges(H, G, D, false), keep = ranges(H, G, D, true);
    check({{"qkv", qkv}}, [&] { return std::vector<Tensor>{rope_attention(qkv, {}, drop)}; });
    const Tensor q = random({5, H * D}), kv = random({9, 2 * G * D});
    check({{"q", q}, {"kv", kv}}, [&] { return std::vector<Tensor>{rope_attention(q, kv, keep)}; });
  }
}

TEST_F(Gradients, AttentionOverManyTiles) {  // more queries than one tile holds
  const int64_t N = 71;
  auto a = std::make_shared<Attention>();
  a->heads = a->groups = 1;
  a->width = 2;
  std::tie(a->cosine, a->sine) = rope_table(N, 2, 100.0, at::kDouble);
  a->q_begin = a->k_begin = {0, N};
  for (int32_t i = 0; i < N; ++i) {
    a->q_position.push_back(i);
    a->lo.push_back(i < 50 ? 0 : 50);
    a->hi.push_back(i + 1);
  }
  a->k_position = a->q_position;
  const Tensor qkv = random({N, 6});
  check({{"qkv", qkv}}, [&] { return std::vector<Tensor>{rope_attention(qkv, {}, a)}; });
}

TEST_F(Gradients, HeadLoss) {
  for (bool with_delta : {false, true}) {
    const Tensor x = random({70, 3}), delta = random({70, 3}), norm = random({3});
    Tensor targets = at::randint(5, {70}, at::kLong);
    targets[3] = -100;
    targets[9] = -100;
    const Weight w = weight_of({5}, 3);
    std::vector<std::pair<const char*, Tensor>> leaves = {{"x", x}, {"norm", norm}, {"w", w.parts[0]}};
    if (with_delta) leaves.emplace_back("delta", delta);
    for (const bool weighted : {false, true}) {
      const HeadTerms terms{.weights = weighted ? at::rand({70}, at::kDouble) : Tensor()};
      check(leaves, [&] { return std::vector<Tensor>{head_loss(x, with_delta ? delta : Tensor(), norm, 1e-5, w, targets, at::kDouble, terms).loss}; });
    }
  }
}

TEST_F(Gradients, Teacher) {
  const int64_t N = 66, V = 7;
  for (const bool all : {false, true})
    for (const double loss_weight : {0.0, 0.7}) {
      const Tensor x = random({N, 3}), delta = random({N, 3}), norm = random({3});
      Tensor targets = at::randint(V, {N}, at::kLong);
      targets[5] = kIgnored;
      const Weight w = weight_of({V}, 3);
      HeadTerms terms{.loss_weight = loss_weight, .kl_weight = 1.3};
      const Tensor logits = at::randn({N, V}, at::kDouble);
      if (all) {
        terms.teacher.logits = logits;
      } else {
        const auto [p, ids] = at::log_softmax(logits, -1).topk(3);
        terms.teacher = {.ids = ids.to(at::kInt), .log_probability = p};
      }
      for (const bool weighted : {false, true}) {
        terms.weights = weighted ? at::rand({N}, at::kDouble) : Tensor();
        check({{"x", x}, {"delta", delta}, {"norm", norm}, {"w", w.parts[0]}},
              [&] { return std::vector<Tensor>{head_loss(x, delta, norm, 1e-5, w, targets, at::kDouble, terms).total}; });
        // The mean by weights, of each token's own.
        const HeadLoss whole = head_loss(x, delta, norm, 1e-5, w, targets, at::kDouble, terms);
        const Tensor weight = (weighted ? terms.weights : at::ones({N}, at::kDouble)) * targets.ge(0);
        EXPECT_NEAR(whole.loss.item<double>(), ((whole.nll * weight).sum() / weight.sum()).item<double>(), 1e-12);
      }
      // A teacher that says what the model says.
      at::NoGradGuard no_grad;
      const Tensor h = x + delta, own = at::mm(h * at::rsqrt(h.square().mean(-1, true) + 1e-5) * norm, w.joined.t());
      const auto [p, ids] = at::log_softmax(own, -1).topk(3);
      terms.teacher = all ? Teacher{.logits = own} : Teacher{.ids = ids.to(at::kInt), .log_probability = p};
      EXPECT_NEAR(head_loss(x, delta, norm, 1e-5, w, targets, at::kDouble, terms).kl.item<double>(), 0, 1e-12);
    }
}

// The same products with adapters beside some of their parts, their own weights frozen or not.
TEST_F(Gradients, Adapters) {
  const auto adapt = [](Weight w, const std::vector<bool>& which) {
    for (size_t i = 0; i < w.parts.size(); ++i)
      w.adapters.push_back(which[i] ? Adapter{random({2, w.joined.size(1)}), random({w.parts[i].size(0), 2}), 0.7} : Adapter{});
    return w;
  };
  for (const bool frozen : {false, true}) {
    const Tensor x = random({5, 7}), delta = random({5, 7}), norm = random({7});
    const Weight qkv = adapt(weight_of({3, 2, 4}, 7), {true, false, true}), o = adapt(weight_of({3}, 7), {true});
    std::vector<std::pair<const char*, Tensor>> leaves = {{"x", x}, {"norm", norm}, {"delta", delta}};
    for (const Weight* w : {&qkv, &o})
      for (const Tensor& leaf : w->leaves()) leaves.emplace_back("leaf", leaf);
    std::erase_if(leaves, [&](const auto& leaf) {
      const bool part = std::ranges::any_of(qkv.parts, [&](const Tensor& p) { return p.is_same(leaf.second); }) || o.parts[0].is_same(leaf.second);
      if (part && frozen) const_cast<Tensor&>(leaf.second).requires_grad_(false);
      return part && frozen;
    });
    check(leaves, [&] {
      const auto out = add_norm_linear(x, delta, norm, 1e-5, qkv, at::kDouble);
      return std::vector<Tensor>{out.h, out.y, linear(x, o)};
    });
    const Tensor gate_up = random({6, 14}, 2);
    const Weight down = adapt(weight_of({4}, 7), {true});
    check({{"gate_up", gate_up}, {"a", down.adapters[0].a}, {"b", down.adapters[0].b}}, [&] { return std::vector<Tensor>{swiglu_linear(gate_up, down)}; });
  }
}

TEST_F(Gradients, Embedding) {
  const Tensor w = random({6, 4}), tokens = at::tensor({1, 3, 1, 5, 1}, at::kLong);
  check({{"w", w}}, [&] { return std::vector<Tensor>{embed(w, tokens)}; });
}

TEST_F(Gradients, RouterScore) {
  for (bool normed : {false, true}) {
    const Tensor x = random({5, 4}), d = random({5, 4}), w = random({1, 4});
    check({{"x", x}, {"delta", d}, {"w", w}}, [&] {
      const GatheredRows e = gather_rows(score_rows(x, d, w, normed, 1e-5), w, {});
      return std::vector<Tensor>{e.h, e.score};
    });
    const Tensor y = leaf(x), v = leaf(w);
    check({{"x", y}, {"w", v}}, [&] { return std::vector<Tensor>{gather_rows(score_rows(y, {}, v, normed, 1e-5), v, {}).score}; });
  }
}

// The way a routed block goes: the score, the rows that run, and their way back into the memory that the score was read from.
TEST_F(Gradients, GatherAndScatter) {
  const Tensor rows = at::tensor({0, 4, 5}, at::kLong), filled = at::tensor({0, 4, 5, 6, 6}, at::kLong);
  for (int choice = 0; choice < 8; ++choice) {
    const bool normed = choice & 1, in_place = choice & 2, fill = choice & 4;
    const int64_t K = fill ? 5 : 3;
    const Tensor x = random({7, 3}), d = random({7, 3}), w = random({1, 3}), a = random({K, 3}), m = random({K, 3});
    check({{"x", x}, {"delta", d}, {"w", w}, {"a", a}, {"m", m}}, [&] {
      const GatheredRows e = gather_rows(score_rows(x, d, w, normed, 1e-5), w, fill ? filled : rows, 3);
      const Tensor g = at::tanh(e.score.index_select(0, rows)), own = e.gathered * e.gathered;
      return std::vector<Tensor>{scatter_delta(e.h, rows, a * own, m + own, g, in_place), e.score};
    });
  }
  const Tensor y = random({7, 3}), b = random({3, 3}), n = random({3, 3}), g = random({3});
  check({{"x", y}, {"a", b}, {"m", n}}, [&] { return std::vector<Tensor>{scatter_delta(y, rows, b, n, {}, false)}; });
  const Tensor z = leaf(y), d = leaf(b);
  check({{"x", z}, {"a", d}, {"g", g}}, [&] { return std::vector<Tensor>{scatter_delta(z, rows, d, {}, g, false)}; });
}

std::vector<std::pair<const char*, Tensor>> larger_leaves(const Transformer& model) {
  std::vector<std::pair<const char*, Tensor>> leaves;
  for (const auto& p : model.parameters()) {
    at::NoGradGuard no_grad;
    if (p.matrix) p.tensor.mul_(20);
    leaves.emplace_back(p.name.c_str(), p.tensor);
  }
  return leaves;
}

// The whole network under imposed decisions, gates and auxiliary losses included.
TEST_F(Gradients, RoutedNetwork) {
  for (auto gate : {routing::Gate::one_plus_tanh, routing::Gate::sigmoid, routing::Gate::raw})
    for (auto kv : {routing::KvPolicy::drop, routing::KvPolicy::keep}) {
      model::ModelConfig c;
      c.vocab_size = 9;
      c.hidden_size = 6;
      c.intermediate_size = 5;
      c.num_hidden_layers = 3;
      c.num_attention_heads = 2;
      c.num_key_value_heads = 1;
      c.head_dim = 4;
      c.routing.units = {{0, 0.5}, {2, 0.5}};
      c.routing.gate = gate;
      c.routing.kv = kv;
      c.routing.forced_positions = 1;
      c.routing.router_bias = true;
      c.qkv_bias = gate != routing::Gate::raw;
      c.output_bias = c.mlp_bias = c.qk_norm = kv == routing::KvPolicy::keep;
      Transformer model(c, at::kDouble);
      model.init(3);
      const auto leaves = larger_leaves(model);
      Batch batch;
      batch.tokens = at::randint(9, {2, 6}, at::kLong);
      batch.targets = at::randint(9, {2, 6}, at::kLong);
      ForwardOptions options;
      options.pick = Pick::imposed;
      for (int r = 0; r < 2; ++r) options.imposed.push_back(at::rand({2, 6}).lt(0.5));
      options.aux = {{kRouterBce, 0.3}, {kRouterZ, 0.1}};
      check(leaves, [&] { return std::vector<Tensor>{model.forward(batch, options).total}; }, 1e-6);
    }
}

// Units of parts, light paths and static units, every kind in one network.
model::ModelConfig config_of_all_units(routing::KvPolicy kv) {
  using routing::Part;
  model::ModelConfig c;
  c.vocab_size = 9;
  c.hidden_size = 6;
  c.intermediate_size = 5;
  c.num_hidden_layers = 5;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 4;
  c.routing.units = {{.block = 0, .capacity = 0.5, .part = Part::attention, .paths = {.skip = false, .light = true}, .light_rank = 2},
                     {.block = 0, .capacity = 0.5, .part = Part::mlp, .paths = {.light = true}, .light_rank = 1},
                     {.block = 1, .capacity = 0.5, .paths = {.light = true}, .light_rank = 2},
                     {.block = 2, .capacity = 0, .part = Part::mlp, .paths = {.skip = false, .light = true, .full = false}, .light_rank = 2},
                     {.block = 3, .capacity = 0.5, .part = Part::attention},
                     {.block = 4, .capacity = 0, .paths = {.skip = false, .light = true, .full = false}, .light_rank = 1}};
  c.routing.kv = kv;
  c.routing.forced_positions = 1;
  c.routing.router_bias = true;
  c.routing.router_input = routing::RouterInput::normed;
  return c;
}

TEST_F(Gradients, NetworkOfAllUnits) {
  for (auto gate : {routing::Gate::one_plus_tanh, routing::Gate::raw})
    for (auto kv : {routing::KvPolicy::drop, routing::KvPolicy::keep}) {
      model::ModelConfig c = config_of_all_units(kv);
      c.routing.gate = gate;
      c.qkv_bias = c.output_bias = c.mlp_bias = gate == routing::Gate::raw;
      c.qk_norm = kv == routing::KvPolicy::drop;
      Transformer model(c, at::kDouble);
      model.init(3);
      const auto leaves = larger_leaves(model);
      Batch batch;
      batch.tokens = at::randint(9, {2, 6}, at::kLong);
      batch.targets = at::randint(9, {2, 6}, at::kLong);
      batch.document_start = at::tensor({0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2}, at::kInt).view({2, 6});
      ForwardOptions options;
      options.pick = Pick::imposed;
      for (const auto& unit : c.routing.units) {
        const Tensor full = at::rand({2, 6}).lt(0.5), rest = at::full({2, 6}, static_cast<int>(unit.cheapest()), at::kByte);
        const Tensor some = unit.paths.light ? at::where(at::rand({2, 6}).lt(0.5), at::full({}, 2, at::kByte), rest) : rest;
        options.imposed.push_back(unit.is_static() ? rest : at::where(full, at::full({}, 1, at::kByte), some));
      }
      options.aux = {{kRouterBce, 0.3}, {kRouterZ, 0.1}};
      check(leaves, [&] { return std::vector<Tensor>{model.forward(batch, options).total}; }, 1e-6);
    }
}

}  // namespace
}  // namespace fathom::nn
