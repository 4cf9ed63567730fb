// A text that was read, with its keys and values, in a file (docs/formats.md): whoever loads it goes on as if he had read it himself,
// to the bit.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "infer/forward.h"
#include "infer/prefix_cache.h"
#include "infer/scheduler.h"

namespace fathom::infer {

struct CachedText {
  std::vector<int32_t> ids;           // of which the first read.sequence.position() are read
  std::vector<PolicyFrom> policies;   // causal or random, ascending from position 0
  PrefixCache::Found read;
  Json note;                          // the caller's
};

// `model` is the model's fingerprint (model/folder.h). Replaces a file of this kind, atomically, and no other: UserError.
void save_cache(const std::string& path, const std::string& model, const Engine& engine, const CachedText& text);

// UserError: what is no such file, a damaged one, one of another model or type of keys and values, or one that the KV limit does not
// hold. `sound` is called once all is known to be right, before pages are taken: a caller may give some back.
CachedText load_cache(const std::string& path, const std::string& model, Engine& engine, const std::function<void()>& sound = {});

}  // namespace fathom::infer
