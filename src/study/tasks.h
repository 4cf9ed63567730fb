// Log-likelihood tasks: items out of a file, and each as the tokens that a model reads. What is asked and how it is cut into tokens are
// those of lm-evaluation-harness 0.4.13 (tasks lambada_openai, arc_easy, piqa, hellaswag), so that figures may be set beside its.
//
// A file is in one of four forms, told by its content (docs/formats.md, "Task files"):
//   {"context": TEXT, "continuation": TEXT}               a line each: is the continuation what the model itself would say?
//   {"context": TEXT, "choices": [TEXT …], "answer": I}   a line each: which choice is the most likely after the context?
//   {"query": TEXT, "choices": [TEXT …], "gold": I}       the same as a question: a line "Answer:" is put after it
//   six lines of text                                     a context, the answer's index, four choices
// A continuation or a choice follows its context after one space.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace fathom::study {

struct TaskItem {
  std::string context;               // what is read before a choice, whole
  std::vector<std::string> choices;  // a task of continuations has one an item
  int64_t answer = 0;                // which of them is right
};

struct Task {
  std::string name, path;
  std::string hash;                  // of the file's bytes, unpacked
  bool continuations = false;        // else choices
  std::vector<TaskItem> items;       // at least one
};

// The task in a file, packed as .zst or .bz2 or not, called `name` or else as the file is without its endings. UserError names file and line: no item, lines of several forms, a
// text that is not UTF-8, an empty or missing choice, an answer outside the choices, more than limits::kTaskBytes or kTaskChoices.
Task read_task(const std::string& path, std::string name = "");

// The task of this name (known_tasks()) in its usual file in `folder`, packed as .zst or .bz2 or not.
Task read_known_task(const std::string& name, const std::string& folder);
std::vector<std::string> known_tasks();

// An item as a model reads it: a choice's tokens follow the shared ones.
struct TaskRequest {
  struct Choice {
    std::vector<int32_t> tokens;   // at least one
    std::vector<int32_t> targets;  // as many: the id that is to follow each, −1 where none counts
    int64_t scored() const;        // targets that count
  };
  std::vector<int32_t> shared;     // the context but its last token, whose prediction differs from choice to choice
  std::vector<Choice> choices;
  bool cut = false;                // the context lost tokens on its left, so that choices share nothing
};

// Cuts items into tokens for one model.
class TaskEncoder {
 public:
  // `context`: tokens that the model reads at most.
  TaskEncoder(text::Tokenizer tokenizer, int64_t context);

  struct Pair {
    std::vector<int32_t> context, continuation;
  };
  // White space at the context's end goes to the continuation; both are encoded as one text, from which the context's own number of
  // tokens is taken off. A context has before it what the tokenizer puts before a text; an empty one is the token that begins or ends a document.
  Pair pair(std::string_view context, std::string_view continuation) const;

  // Where context and continuation are more than `context` + 1 tokens, tokens on the left are left out. UserError (`where` names the
  // item): a continuation of no tokens, or of more than `context`.
  TaskRequest request(const TaskItem& item, const std::string& where) const;

 private:
  std::vector<int32_t> encode(std::string_view text, bool marked) const;
  text::Tokenizer tokenizer_;
  int64_t context_;
  std::vector<int32_t> before_;  // what the tokenizer puts before a text
};

}  // namespace fathom::study
