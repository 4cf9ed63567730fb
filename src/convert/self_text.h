// Text that a model writes itself, to fit and tune it on where no other is at hand: documents from nothing, and both sides of conversations
// by its chat template.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/weights.h"
#include "model/folder.h"
#include "text/tokenizer.h"

namespace fathom::convert {

struct SelfTextOptions {
  int64_t tokens = 32768;   // of all texts, at least
  int64_t context = 512;    // of a text, at most; it ends sooner where the model says so
  uint64_t seed = 1;
  int threads = 0;          // 0: all cores that this process may use
  std::string kept;         // folder that self_texts() keeps its pieces in, and takes those from that are there; "" = none
  std::function<void(int64_t done, int64_t of)> progress = {};  // tokens; may throw to interrupt
};

// Texts of a dense model, sampled at kDocumentTemperature. Each begins with `begin`, the token that begins the model's documents, or without one with a
// token drawn evenly from the vocabulary; `ends` are the ids that end one, and are its last token. The same seed writes the same texts.
inline constexpr double kDocumentTemperature = 0.8;
std::vector<std::vector<int32_t>> self_text(std::shared_ptr<const infer::Weights> dense, std::optional<int32_t> begin, const std::vector<int32_t>& ends,
                                            const SelfTextOptions& options);

// What stands around a user's message by a chat template: before it, and between it and the answer, beginning with the special token that ends it.
struct ChatFrame {
  std::vector<int32_t> before, between;
};
// Nothing where the template takes no message by itself, or has no special token that ends one.
std::optional<ChatFrame> chat_frame(const model::ChatFormat& format, const text::Tokenizer& tokenizer);

struct SelfConversation {
  std::vector<int32_t> question, answer;  // without what stands around them
  std::vector<int32_t> ids;               // all of it, `context` at most; where the answer ended, with the token that ends a message
};
// Conversations of one question and its answer, both of which the model writes: an instruction that a model was tuned on is what it writes where a user's
// message is to come (Magpie, arXiv:2406.08464). Questions at temperature 1, answers at kAnswerTemperature. Questions that do not end in a quarter
// of the context are left out, though their tokens count. A message ends with the frame's token or one of `ends`.
inline constexpr double kAnswerTemperature = 0.7;
std::vector<SelfConversation> self_conversations(std::shared_ptr<const infer::Weights> dense, const ChatFrame& frame, const std::vector<int32_t>& ends, const SelfTextOptions& options);

struct SelfTexts {
  std::vector<std::vector<int32_t>> documents;
  std::vector<SelfConversation> conversations;
};
// Of a model as it comes: `chat_share` of the tokens are conversations, where it has a template that frames them and they have room; documents
// make up for what is missing. They are written in pieces of kPieceTokens, each with a seed of its own.
inline constexpr int64_t kPieceTokens = 1 << 15;  // a minute of a small model
SelfTexts self_texts(const model::ModelFolder& writer, std::shared_ptr<const infer::Weights> dense, double chat_share, const SelfTextOptions& options);

}  // namespace fathom::convert
