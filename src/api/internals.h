// The insides of the public handles, for the other files of this room; and the border at which the library's errors become
// the public ones.
#pragma once
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/kv_type.h"
#include "fathom/error.h"
#include "fathom/model.h"
#include "fathom/request.h"
#include "infer/policy.h"
#include "infer/scheduler.h"
#include "infer/weights.h"
#include "model/chat_format.h"
#include "model/document_ends.h"
#include "model/folder.h"
#include "text/tokenizer.h"

namespace fathom {

// In the interface's own words: what a message tells its reader to set, and a request's fields, by the names that they have in it.
Error public_error(const UserError& e);

// Nothing for a number that is none of the types.
std::optional<KvType> kv_type_of(CacheType type);

// What `body` returns; its UserError as an Error.
template <class Body>
auto at_border(Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const UserError& e) {
    throw public_error(e);
  }
}

// The insides of a handle are no part of what the library shows of the handle.
#define FATHOM_HIDDEN __attribute__((visibility("hidden")))

struct FATHOM_HIDDEN Model::State {
  std::shared_ptr<model::ModelFolder> folder;
  std::optional<text::Tokenizer> tokenizer;
  std::optional<UserError> no_tokenizer;     // why there is none
  std::optional<model::ChatFormat> chat_format;
  std::optional<UserError> no_chat_format;
  model::DocumentEnds ends;
  std::shared_ptr<const infer::Weights> weights;  // null: opened without
  ModelInfo info;
  Sampling sampling;                         // what the files recommend

  const text::Tokenizer& need_tokenizer() const;
  const std::shared_ptr<const infer::Weights>& need_weights() const;
  infer::RoutingPolicy policy(std::optional<double> dial) const;
  // Of a text's tokens, as Request::dial and Request::dials say; UserError names `where` and the field.
  std::vector<infer::PolicyFrom> policies(const std::string& where, std::optional<double> dial, const std::vector<DialFrom>& dials) const;
  // Of weights and tokenizer; the first call reads all of the weights' file.
  const std::string& identity() const;
  mutable std::once_flag identified;
  mutable std::string identity_;
};

struct Internals {
  using ModelState = Model::State;
  static const ModelState& of(const Model& model) { return *model.state_; }
};

}  // namespace fathom
