#include "tune/teacher.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "core/float16.h"
#include "core/thread_pool.h"
#include "model/document_ends.h"
#include "tune/teacher_cache.h"

namespace fathom::tune {
namespace {

constexpr int64_t kRowsPerStep = 256;  // of logits in memory

// The k greatest of x and their places, descending; the lower place first among equals.
void top_k(std::span<const float> x, std::span<std::pair<float, int32_t>> out) {
  const auto before = [](const std::pair<float, int32_t>& a, const std::pair<float, int32_t>& b) { return a.first > b.first || (a.first == b.first && a.second < b.second); };
  const size_t k = out.size();
  for (size_t i = 0; i < k; ++i) out[i] = {x[i], static_cast<int32_t>(i)};
  std::ranges::make_heap(out, before);  // its front is the last of them
  for (size_t i = k; i < x.size(); ++i) {
    if (!(x[i] > out.front().first)) continue;
    std::ranges::pop_heap(out, before);
    out.back() = {x[i], static_cast<int32_t>(i)};
    std::ranges::push_heap(out, before);
  }
  std::ranges::sort_heap(out, before);
}

}  // namespace

struct Teacher::State {
  std::shared_ptr<const model::ModelFolder> folder;
  TeacherOptions options;
  infer::Engine engine;
  ThreadPool threads;
  infer::RoutingPolicy policy;
  std::unique_ptr<TeacherCache> cache;
  infer::StepResult result;

  State(std::shared_ptr<const model::ModelFolder> f, const TeacherOptions& o)
      : folder(std::move(f)), options(o), engine(infer::Weights::load(*folder, o.threads), {.threads = o.threads}), threads(engine.threads()),
        policy(infer::RoutingPolicy::full(engine.config())) {
    options.top = std::min(options.top, vocab());
    if (options.cache.empty() || options.top == 0) return;
    cache = std::make_unique<TeacherCache>(
        options.cache, Json{{"model", folder->fingerprint()}, {"rows", options.rows}, {"row_tokens", options.row_tokens}, {"top", options.top}, {"vocab_size", vocab()}}, record_bytes());
  }

  int64_t vocab() const { return engine.config().vocab_size; }
  int64_t id_bytes() const { return vocab() <= 65536 ? 2 : 4; }
  int64_t record_bytes() const { return options.row_tokens * options.top * (id_bytes() + 2); }

  // Calls done(row, logits [V]) for every row of the batch, from several threads.
  void logits(const train::Batch& batch, const std::function<void(int64_t, std::span<const float>)>& done) {
    for (int64_t row = 0; row < batch.rows; ++row) {
      const auto at = [&](int64_t t) { return static_cast<size_t>(row * batch.tokens + t); };
      for (int64_t begin = 0, end = 0; begin < batch.tokens; begin = end) {
        end = train::document_end(batch, row, begin);
        infer::Sequence sequence = engine.new_sequence();
        for (int64_t t = begin; t < end; t += kRowsPerStep) {
          const int64_t here = std::min(kRowsPerStep, end - t);
          const infer::WorkItem item{.sequence = &sequence, .tokens = std::span(batch.input).subspan(at(t), static_cast<size_t>(here)), .policy = &policy, .logits = infer::Logits::all};
          engine.forward({&item, 1}, result);
          threads.parallel_for(here, [&](int64_t i) { done(static_cast<int64_t>(at(t)) + i, result.logits_of(0, i)); });
        }
      }
    }
  }

  Answer ask(const train::Batch& batch) {
    const int64_t N = batch.rows * batch.tokens, k = options.top;
    Answer out;
    if (k == 0) {
      out.said.logits = at::empty({N, vocab()}, at::kFloat);
    } else {
      out.said.ids = at::empty({N, k}, at::kInt);
      out.said.log_probability = at::empty({N, k}, at::kFloat);
    }
    float* const all = k == 0 ? out.said.logits.mutable_data_ptr<float>() : nullptr;
    int32_t* const ids = k == 0 ? nullptr : out.said.ids.mutable_data_ptr<int32_t>();
    float* const log_probability = k == 0 ? nullptr : out.said.log_probability.mutable_data_ptr<float>();
    std::vector<double> nll(static_cast<size_t>(N), 0.0);
    logits(batch, [&](int64_t row, std::span<const float> x) {
      const double z = engine.kernels().log_sum_exp(x.data(), static_cast<int64_t>(x.size()));
      if (!std::isfinite(z)) throw UserError({folder->path(), "", "a logit that is not finite", "numbers", "are its weights damaged?"});
      if (const int32_t target = batch.target[static_cast<size_t>(row)]; target != train::kIgnore) nll[static_cast<size_t>(row)] = z - x[static_cast<size_t>(target)];
      if (k == 0) {
        std::ranges::copy(x, all + row * vocab());
        return;
      }
      std::vector<std::pair<float, int32_t>> best(static_cast<size_t>(k));
      top_k(x, best);
      for (int64_t i = 0; i < k; ++i) {
        ids[row * k + i] = best[static_cast<size_t>(i)].second;
        log_probability[row * k + i] = f16_to_f32(f32_to_f16(static_cast<float>(best[static_cast<size_t>(i)].first - z)));
      }
    });
    for (const double x : nll) out.nll += x;
    out.targets = std::ranges::count_if(batch.target, [](int32_t t) { return t != train::kIgnore; });
    return out;
  }

  // A row's ids, then its log-probabilities.
  std::vector<std::byte> pack(const nn::Teacher& said, int64_t row) const {
    const int64_t n = options.row_tokens * options.top;
    std::vector<std::byte> record(static_cast<size_t>(record_bytes()));
    const int32_t* ids = said.ids.const_data_ptr<int32_t>() + row * n;
    const float* p = said.log_probability.const_data_ptr<float>() + row * n;
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(record.data() + i * id_bytes(), &ids[i], static_cast<size_t>(id_bytes()));  // little-endian, as the formats here are
      const uint16_t half = f32_to_f16(p[i]);
      std::memcpy(record.data() + n * id_bytes() + i * 2, &half, 2);
    }
    return record;
  }
  void unpack(const std::vector<std::byte>& record, nn::Teacher& to, int64_t row) const {
    const int64_t n = options.row_tokens * options.top;
    int32_t* ids = to.ids.mutable_data_ptr<int32_t>() + row * n;
    float* p = to.log_probability.mutable_data_ptr<float>() + row * n;
    for (int64_t i = 0; i < n; ++i) {
      ids[i] = 0;
      std::memcpy(&ids[i], record.data() + i * id_bytes(), static_cast<size_t>(id_bytes()));
      uint16_t half = 0;
      std::memcpy(&half, record.data() + n * id_bytes() + i * 2, 2);
      p[i] = f16_to_f32(half);
    }
  }
};

Teacher::Teacher(std::shared_ptr<const model::ModelFolder> folder, const TeacherOptions& options) : state_(std::make_unique<State>(std::move(folder), options)) {}
Teacher::~Teacher() = default;
const model::ModelFolder& Teacher::folder() const { return *state_->folder; }
int64_t Teacher::cache_bytes(int64_t tokens) const {
  const State& s = *state_;
  return s.cache ? s.cache->file_bytes(tokens / s.options.row_tokens) : tokens * s.options.top * (s.id_bytes() + 2);
}
int64_t Teacher::cached_rows() const { return state_->cache ? state_->cache->records() : 0; }

Teacher::Answer Teacher::ask(const train::Batch& batch) { return state_->ask(batch); }

nn::Teacher Teacher::rows(const train::Batch& batch, int64_t first_row) {
  State& s = *state_;
  if (!s.cache) return s.ask(batch).said;
  if (first_row + batch.rows <= s.cache->records()) {
    nn::Teacher out;
    out.ids = at::empty({batch.rows * batch.tokens, s.options.top}, at::kInt);
    out.log_probability = at::empty({batch.rows * batch.tokens, s.options.top}, at::kFloat);
    for (int64_t row = 0; row < batch.rows; ++row) s.unpack(s.cache->read(first_row + row), out, row);
    return out;
  }
  nn::Teacher out = s.ask(batch).said;
  for (int64_t row = 0; row < batch.rows; ++row)
    if (first_row + row == s.cache->records()) s.cache->append(s.pack(out, row));
  return out;
}

void require_teacher(const model::ModelFolder& teacher, const model::ModelFolder& student, bool other) {
  const auto hold = [&](const char* field, const std::string& found, const std::string& expected, const std::string& hint) {
    if (found != expected) throw UserError({teacher.path(), field, found, str(expected, ", that of ", student.path()), hint});
  };
  const model::ModelConfig &t = teacher.config(), &s = student.config();
  if (t.routing.decides()) throw UserError({teacher.path(), "fathom.routed_blocks", "a model whose tokens choose their depth", "a dense teacher", "name the model that it was converted from"});
  hold("vocab_size", str(t.vocab_size), str(s.vocab_size), "they must say the same tokens");
  hold("tokenizer", teacher.tokenizer().identity(), student.tokenizer().identity(), "they must cut text alike");
  if (other) return;
  const char* hint = "a model of another shape may teach with --other-teacher";
  hold("hidden_size", str(t.hidden_size), str(s.hidden_size), hint);
  hold("intermediate_size", str(t.intermediate_size), str(s.intermediate_size), hint);
  hold("num_attention_heads", str(t.num_attention_heads), str(s.num_attention_heads), hint);
  hold("num_key_value_heads", str(t.num_key_value_heads), str(s.num_key_value_heads), hint);
  hold("head_dim", str(t.head_dim), str(s.head_dim), hint);
  hold("rope_theta", str(t.rope_theta), str(s.rope_theta), hint);
  if (t.num_hidden_layers < s.num_hidden_layers)  // the student may have lost some
    throw UserError({teacher.path(), "num_hidden_layers", str(t.num_hidden_layers), str("at least ", s.num_hidden_layers, ", those of ", student.path()), hint});
}

}  // namespace fathom::tune
