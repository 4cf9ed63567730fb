#include "cli/convert_data.h"

#include "cli/bar.h"
#include "cli/common.h"
#include "cli/program.h"
#include "convert/self_text.h"

namespace fathom::cli {

namespace {

constexpr const char* kSelf = "self";

}  // namespace

std::string ConvertData::hash() const {
  Hasher hash;
  for (const auto& window : windows) {
    const uint64_t size = window.size();
    hash.update(&size, sizeof size), hash.update(window.data(), window.size_bytes());
  }
  return hash.hex();
}

ConvertData load_convert_data(const Arguments& args, const model::ModelFolder& source, std::shared_ptr<const infer::Weights> weights, int64_t context, const WorkFolder& work) {
  ConvertData out;
  std::vector<std::string> files = args.texts("data");
  const bool own = std::erase(files, kSelf) > 0;
  const int64_t tokens = args.integer("tokens"), of_own = !own ? 0 : files.empty() ? tokens : tokens / 2;
  const text::Tokenizer tokenizer = source.tokenizer();
  const study::DocumentEnds ends = study::document_ends(source.config(), tokenizer);
  if (own) {
    if (of_own == 0) args.wrong("tokens", str(tokens), "how many tokens the model is to write");
    Bar bar(args, "writing text", "tokens", of_own);
    const double chat_share = args.number("chat-share");
    const auto seed = static_cast<uint64_t>(args.integer("seed"));
    const std::string kept = work.part("text", {{"source", source.fingerprint()}, {"tokens", of_own}, {"context", context}, {"seed", seed}, {"chat_share", chat_share}});
    convert::SelfTexts texts = convert::self_texts(source, std::move(weights), chat_share,
                                                   {.tokens = of_own, .context = context, .seed = seed, .threads = threads_of(args), .kept = kept, .progress = [&](int64_t done, int64_t) { bar.update(done); }});
    bar.finish();
    out.made = std::move(texts.documents);
    for (convert::SelfConversation& c : texts.conversations) out.made.push_back(std::move(c.ids));
    for (const auto& text : out.made) out.windows.push_back(text);
    out.name = str("text of ", source.path());
  }
  if (files.empty()) return out;
  out.held = study::load_held_out(files, tokenizer, ends, held_out_options(args, source, context, tokens - of_own));
  for (const study::Window& w : out.held->windows) out.windows.push_back(w.tokens);
  out.name += (own ? " and " : "") + out.held->name;
  return out;
}

}  // namespace fathom::cli
