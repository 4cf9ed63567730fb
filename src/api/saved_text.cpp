// Engine::save and load: a cache file (infer/cache_file.h) whose note holds the dials that a request names.
#include <algorithm>
#include <utility>

#include "api/driver.h"
#include "api/internals.h"
#include "infer/cache_file.h"

namespace fathom {
namespace {

void check(const Internals::ModelState& model, const std::vector<TokenId>& ids, const std::vector<infer::PolicyFrom>& policies) {
  const auto refuse = [](const char* field, const std::string& found, const std::string& expected, const char* hint = "") { throw UserError({"text", field, found, expected, hint}); };
  if (ids.empty() || std::ssize(ids) > model.info.max_position_embeddings)
    refuse("ids", str(ids.size(), " tokens"), str("1 to the model's max_position_embeddings ", model.info.max_position_embeddings));
  for (const TokenId id : ids)
    if (id < 0 || id >= model.info.vocab_size) refuse("ids", str("id ", id), str("0 to ", model.info.vocab_size - 1), "does the tokenizer belong to this model?");
  if (policies.back().position >= std::ssize(ids)) refuse("dials", str("position ", policies.back().position), str("below ", ids.size(), ", the number of tokens"));
}

Json json_of(const std::vector<DialFrom>& dials) {
  Json out = Json::array();
  for (const DialFrom& d : dials) out.push_back({{"position", d.position}, {"dial", d.dial}});
  return out;
}

// The dials of the file's note, which must give the thresholds that the file's text was read under.
std::vector<DialFrom> dials_of(const infer::CachedText& text, const Internals::ModelState& model, const std::string& path) {
  if (!text.note.is_object() || !text.note.contains("dials"))
    throw UserError({path, "note", "no dials", "a file of Engine::save", "what fathom chat saved is loaded by fathom chat"});
  const Fields note(text.note, path, "note");
  const Json& dials = note.raw("dials");
  note.done();
  if (!dials.is_array()) note.wrong("dials", describe(dials), "an array");
  std::vector<DialFrom> out;
  for (size_t i = 0; i < dials.size(); ++i) {
    const Fields f(dials[i], path, str("note.dials[", i, "]"));
    out.push_back({f.integer("position", 0, std::ssize(text.ids)), f.number("dial", 0, 1)});
    f.done();
  }
  const auto same = [](const infer::PolicyFrom& a, const infer::PolicyFrom& b) { return a.position == b.position && a.policy == b.policy; };
  if (!std::ranges::equal(model.policies(path, {}, out), text.policies, same))
    throw UserError({path, "policies", "other thresholds", "this model's at the same dials", "save it again: the model was calibrated anew since"});
  return out;
}

}  // namespace

int64_t Driver::save(const std::string& path, const std::vector<TokenId>& ids, const std::vector<DialFrom>& dials) {
  const Internals::ModelState& model = Internals::of(model_);
  const std::vector<infer::PolicyFrom> policies = model.policies("text", {}, dials);
  check(model, ids, policies);
  const std::string& identity = model.identity();
  int64_t kept = 0;
  between_steps([&] {  // pages are held in here alone
    const infer::CachedText text{.ids = ids, .policies = policies, .read = scheduler_->kept(ids, policies), .note = {{"dials", json_of(dials)}}};
    infer::save_cache(path, identity, *engine_, text);
    kept = text.read.sequence.position();
  });
  return kept;
}

KeptText Driver::load(const std::string& path) {
  const Internals::ModelState& model = Internals::of(model_);
  if (options_.prefix_tokens == 0) throw UserError({"engine options", "prefix_tokens", "0", "as many as the text has", "an engine that keeps no beginnings can load none"});
  const std::string& identity = model.identity();
  KeptText out;
  between_steps([&] {
    const bool limited = engine_->pool().page_limit() != INT64_MAX;
    const infer::CachedText text = infer::load_cache(path, identity, *engine_, [&] { if (limited) scheduler_->forget_prefixes(); });
    const int64_t read = text.read.sequence.position();
    out = {.ids = text.ids, .dials = dials_of(text, model, path), .kept = 0};
    if (read > 0) scheduler_->keep(text.ids, text.policies, text.read);
    out.kept = scheduler_->kept(text.ids, text.policies).sequence.position();
    if (out.kept < read) throw UserError({path, "", str(read, " tokens that are read"), str(out.kept, ", what the engine keeps"), "raise EngineOptions::prefix_tokens"});
  });
  return out;
}

}  // namespace fathom
