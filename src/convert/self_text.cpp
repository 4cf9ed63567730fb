#include "convert/self_text.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <string_view>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/random.h"
#include "infer/scheduler.h"
#include "model/document_ends.h"

namespace fathom::convert {
namespace {

constexpr int64_t kChatRoom = 64;  // tokens of question and answer, below which no conversation is worth its frame

// Many texts at once. Those that were begun are all ended, and what is written depends on the order of their beginnings alone.
class Writing {
 public:
  Writing(std::shared_ptr<const infer::Weights> dense, const SelfTextOptions& options)
      : options_(options), context_(std::min(options.context, dense->config().max_position_embeddings)), full_(infer::RoutingPolicy::full(dense->config())),
        engine_(std::move(dense), {.threads = options.threads, .kernels = nullptr, .kv_bytes = 0}), scheduler_(engine_, {.max_texts = kAtOnce}) {}

  int64_t context() const { return context_; }

  // Up to `length` tokens behind the prompt; `ended` gets them and whether one of `stops` came. It may ask for more.
  void go_on(std::vector<int32_t> prompt, int64_t length, double temperature, uint64_t stream, std::vector<int32_t> stops, std::function<void(std::vector<int32_t>&&, bool)> ended) {
    infer::Request request;
    request.prompt = std::move(prompt);
    request.policies = {{0, full_}};
    request.sampling.temperature = temperature;
    request.sampling.seed = options_.seed;
    request.stream = stream;
    request.max_new_tokens = length;
    request.stop_ids = std::move(stops);
    request.on_token = [this](const infer::TokenEvent&) { return ++done_, true; };
    request.on_finish = [ended = std::move(ended)](size_t, infer::Generated&& text) {
      if (text.error) std::rethrow_exception(text.error);
      ended(std::move(text.ids), text.finish == infer::Finish::stop_id);
    };
    next_.push_back(std::move(request));
  }

  // `begin` starts another text.
  void run(const std::function<void()>& begin) {
    while (done_ < options_.tokens || !next_.empty() || !scheduler_.idle()) {
      while (done_ < options_.tokens && std::ssize(next_) + scheduler_.waiting() + scheduler_.running() < kAtOnce) begin();
      for (; !next_.empty(); next_.pop_front()) scheduler_.submit(std::move(next_.front()));
      scheduler_.step();
      if (options_.progress) options_.progress(std::min(done_, options_.tokens), options_.tokens);
    }
  }

 private:
  static constexpr int64_t kAtOnce = 32;
  const SelfTextOptions& options_;
  int64_t context_;
  infer::RoutingPolicy full_;
  infer::Engine engine_;
  infer::Scheduler scheduler_;
  std::deque<infer::Request> next_;
  int64_t done_ = 0;
};

}  // namespace

std::vector<std::vector<int32_t>> self_text(std::shared_ptr<const infer::Weights> dense, std::optional<int32_t> begin, const std::vector<int32_t>& ends,
                                            const SelfTextOptions& options) {
  const auto vocabulary = static_cast<uint64_t>(dense->config().vocab_size);
  Writing writing(std::move(dense), options);
  Random random(options.seed);
  std::vector<std::vector<int32_t>> texts;  // in the order of their beginnings
  writing.run([&] {
    const size_t at = texts.size();
    texts.push_back({begin ? *begin : static_cast<int32_t>(random.below(vocabulary))});
    writing.go_on(texts.back(), writing.context() - 1, kDocumentTemperature, at, ends, [&, at](std::vector<int32_t>&& ids, bool ended) {
      texts[at].insert(texts[at].end(), ids.begin(), ids.end());
      if (ended) texts[at].push_back(ends.front());
    });
  });
  std::erase_if(texts, [](const std::vector<int32_t>& text) { return text.size() < 2; });
  return texts;
}

std::optional<ChatFrame> chat_frame(const model::ChatFormat& format, const text::Tokenizer& tokenizer) {
  constexpr std::string_view kMessage = "MESSAGE";
  std::string whole;
  try {
    whole = format.render_to_keep(std::vector<text::ChatMessage>{{"user", std::string(kMessage)}}, true);
  } catch (const UserError&) {  // it wants more than a question
    return {};
  }
  const size_t at = whole.find(kMessage);
  if (at == std::string::npos) return {};
  constexpr text::EncodeOptions kAsWritten{.allow_special = true};
  ChatFrame frame{.before = tokenizer.encode(std::string_view(whole).substr(0, at), kAsWritten), .between = tokenizer.encode(std::string_view(whole).substr(at + kMessage.size()), kAsWritten)};
  const bool told_apart = !frame.before.empty() && !frame.between.empty() && tokenizer.is_special(frame.between.front());
  return told_apart ? std::optional(frame) : std::nullopt;
}

std::vector<SelfConversation> self_conversations(std::shared_ptr<const infer::Weights> dense, const ChatFrame& frame, const std::vector<int32_t>& ends, const SelfTextOptions& options) {
  Writing writing(std::move(dense), options);
  const int64_t around = std::ssize(frame.before) + std::ssize(frame.between), room = writing.context() - around;
  FATHOM_ASSERT(room >= kChatRoom, writing.context(), around);
  std::vector<int32_t> stops = ends;
  stops.push_back(frame.between.front());
  std::vector<SelfConversation> out;
  writing.run([&] {
    const size_t at = out.size();
    out.emplace_back();
    writing.go_on(frame.before, room / 4, 1, 2 * at, stops, [&, at](std::vector<int32_t>&& question, bool asked) {
      if (!asked || question.empty()) return;
      SelfConversation& c = out[at];
      c.ids = frame.before;
      c.ids.insert(c.ids.end(), question.begin(), question.end());
      c.ids.insert(c.ids.end(), frame.between.begin(), frame.between.end());
      c.question = std::move(question);
      writing.go_on(c.ids, writing.context() - std::ssize(c.ids), kAnswerTemperature, 2 * at + 1, stops, [&, at](std::vector<int32_t>&& answer, bool answered) {
        SelfConversation& done = out[at];
        done.ids.insert(done.ids.end(), answer.begin(), answer.end());
        if (answered && std::ssize(done.ids) < writing.context()) done.ids.push_back(frame.between.front());
        done.answer = std::move(answer);
      });
    });
  });
  std::erase_if(out, [](const SelfConversation& c) { return c.answer.empty(); });
  return out;
}

namespace {

Json to_json(const SelfTexts& texts) {
  Json conversations = Json::array();
  for (const SelfConversation& c : texts.conversations) conversations.push_back({{"question", c.question}, {"answer", c.answer}, {"ids", c.ids}});
  return {{"documents", texts.documents}, {"conversations", conversations}};
}

// Nothing where there is none, or no whole one.
std::optional<SelfTexts> read_piece(const std::string& path) try {
  if (!exists(path)) return {};
  const Json json = read_json(path);
  SelfTexts out;
  json.at("documents").get_to(out.documents);
  for (const Json& c : json.at("conversations"))
    out.conversations.push_back({.question = c.at("question").get<std::vector<int32_t>>(), .answer = c.at("answer").get<std::vector<int32_t>>(), .ids = c.at("ids").get<std::vector<int32_t>>()});
  return out;
} catch (const Json::exception&) {
  return {};
}

}  // namespace

SelfTexts self_texts(const model::ModelFolder& writer, std::shared_ptr<const infer::Weights> dense, double chat_share, const SelfTextOptions& options) {
  const text::Tokenizer tokenizer = writer.tokenizer();
  const model::DocumentEnds ends = model::document_ends(writer.config(), tokenizer);
  const std::vector<int32_t> stops = model::end_ids(writer, ends);
  std::optional<ChatFrame> frame;
  try {
    if (const auto format = writer.chat_format()) frame = chat_frame(*format, tokenizer);
  } catch (const UserError& error) {  // documents need no template
    log_warning("no conversations are written: ", error.what());
  }
  const int64_t context = std::min(options.context, writer.config().max_position_embeddings);
  if (frame && std::ssize(frame->before) + std::ssize(frame->between) + kChatRoom > context) frame.reset();

  const auto write = [&](int64_t first, int64_t tokens, uint64_t seed) {
    SelfTexts out;
    int64_t before = 0;
    SelfTextOptions part = options;
    part.seed = seed;
    if (options.progress) part.progress = [&](int64_t done, int64_t) { options.progress(first + before + done, options.tokens); };
    part.tokens = frame ? static_cast<int64_t>(chat_share * static_cast<double>(tokens)) : 0;
    if (part.tokens > 0) out.conversations = self_conversations(dense, *frame, stops, part);
    for (const SelfConversation& c : out.conversations) before += std::ssize(c.question) + std::ssize(c.answer);
    part.tokens = tokens - before;
    if (part.tokens > 0) out.documents = self_text(dense, ends.first(), stops, part);
    return out;
  };
  SelfTexts all;
  for (int64_t first = 0, piece = 0; first < options.tokens; first += kPieceTokens, ++piece) {
    const std::string path = options.kept.empty() ? "" : join_path(options.kept, str(piece, ".json"));
    std::optional<SelfTexts> texts = path.empty() ? std::nullopt : read_piece(path);
    if (!texts) {
      texts = write(first, std::min(kPieceTokens, options.tokens - first), options.seed + static_cast<uint64_t>(piece) * 0x9E3779B97F4A7C15u);
      if (!path.empty()) atomic_write(path, to_json(*texts).dump());
    }
    std::ranges::move(texts->documents, std::back_inserter(all.documents));
    std::ranges::move(texts->conversations, std::back_inserter(all.conversations));
  }
  return all;
}

}  // namespace fathom::convert
