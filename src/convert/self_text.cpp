#include "convert/self_text.h"

#include <algorithm>

#include "core/random.h"
#include "infer/scheduler.h"

namespace fathom::convert {

std::vector<std::vector<int32_t>> self_text(std::shared_ptr<const infer::Weights> dense, std::optional<int32_t> begin, const std::vector<int32_t>& ends,
                                            const SelfTextOptions& options) {
  constexpr int64_t kAtOnce = 32;
  const model::ModelConfig& config = dense->config();
  const int64_t context = std::min(options.context, config.max_position_embeddings);
  infer::Engine engine(dense, {.threads = options.threads, .kernels = nullptr, .kv_bytes = 0});
  infer::Scheduler scheduler(engine, {.max_texts = kAtOnce});
  Random random(options.seed);
  std::vector<std::vector<int32_t>> texts;
  int64_t done = 0;
  uint64_t next = 0;
  // In the order of submission, so that the texts do not depend on which ended first; all that were begun are kept.
  while (done < options.tokens || !scheduler.idle()) {
    while (done < options.tokens && scheduler.waiting() + scheduler.running() < kAtOnce) {
      const size_t at = texts.size();
      const int32_t first = begin ? *begin : static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size)));
      texts.push_back({first});
      infer::Request request;
      request.prompt = {first};
      request.policies = {{0, infer::RoutingPolicy::full(config)}};
      request.sampling.temperature = 1;
      request.sampling.seed = options.seed;
      request.stream = next++;
      request.max_new_tokens = context - 1;
      request.stop_ids = ends;
      request.on_token = [&](const infer::TokenEvent&) {
        ++done;
        return true;
      };
      request.on_finish = [&, at](size_t, infer::Generated&& text) {
        if (text.error) std::rethrow_exception(text.error);
        texts[at].insert(texts[at].end(), text.ids.begin(), text.ids.end());
        if (text.finish == infer::Finish::stop_id && !ends.empty()) texts[at].push_back(ends.front());
      };
      scheduler.submit(std::move(request));
    }
    scheduler.step();
    if (options.progress) options.progress(std::min(done, options.tokens), options.tokens);
  }
  std::erase_if(texts, [](const std::vector<int32_t>& text) { return text.size() < 2; });
  return texts;
}

}  // namespace fathom::convert
