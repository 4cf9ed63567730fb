// Quality of a model on held-out text, by the engine: nats per token and bits per byte of text under one rule, with a 95 %
// interval over documents (or stretches of few documents); how the causal rule agrees with top-k, block by block; and the FLOPs that were spent, exactly,
// from the decisions that were taken.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "infer/forward.h"
#include "infer/policy.h"
#include "model/cost.h"
#include "model/folder.h"
#include "study/held_out.h"
#include "text/tokenizer.h"

namespace fathom::study {

// The model folder that a user means: `path`, or `path`/model when it is the folder of a run.
std::string model_folder_of(const std::string& path);

// A model ready to be scored: its folder, tokenizer and engine.
struct Subject {
  std::string name;                          // for tables: the last part of the run's or the model's folder
  std::shared_ptr<model::ModelFolder> folder;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<infer::Engine> engine;
  // `need_dial`: as ModelFolder::open has it.
  static Subject open(const std::string& path, const infer::EngineOptions& options, bool need_dial = true);
  DocumentEnds ends() const { return document_ends(folder->config(), *tokenizer); }
};

// A warning when `other`, which is to be scored on the tokens that `first` reads, learned documents of other ends.
void warn_of_other_ends(const Subject& first, const Subject& other);

struct UnitSum {             // of one unit's windows (HeldOut::units)
  double nll = 0;            // nats
  int64_t tokens = 0;        // predicted
  int64_t bytes = 0;         // of text that they stand for
};

// The causal rule beside top-k on the states of the teacher's view: of every token, did the rule run it in full where top-k did?
struct BlockAgreement {
  routing::RoutedUnit unit;  // what is decided about
  double capacity = 1;       // share of tokens to run it in full, asked for: what top-k selects
  double realised = 1;       // share of tokens that ran under the rule that was evaluated
  double light = 0;          // share of tokens that took its light path
  int64_t tokens = 0, ran = 0, went_light = 0;
  int64_t compared = 0, agreed = 0, both = 0, by_topk = 0, by_rule = 0;  // counts; 0 when not compared
  double agreement() const, precision() const, recall() const;           // NaN when not compared or undefined
};

struct Evaluation {
  infer::Rule rule = infer::Rule::causal;  // that decided: `random` for a model of random selection
  double dial = 1;                     // block fraction asked for
  int64_t windows = 0, context = 0;
  std::vector<UnitSum> units;          // by HeldOut::units; tokens 0 where no window was scored
  bool by_stretch = false;             // units are stretches of windows, not documents
  double nll = 0;                      // sums
  int64_t tokens = 0, bytes = 0;
  int64_t correct = 0;                 // tokens that were the most likely
  std::vector<BlockAgreement> blocks;  // routed ones, by units: a block may have one for its attention and one for its MLP
  model::ForwardCost spent, dense;     // of all windows
  double seconds = 0;

  double loss() const { return nll / static_cast<double>(tokens); }  // nats per token
  double perplexity() const;
  double bits_per_byte() const;        // NaN without bytes
  double block_fraction() const, total_fraction() const;
  std::vector<double> capacities() const;  // [cuts] realised, for the cost model: exits are in the shares of what was done
  Json to_json() const;
};

// value ± half: Student's t at 95 % on the ratio of sums over units (linearised); NaN half with fewer than 2.
struct Interval {
  double value = 0, half = 0;
  int64_t units = 0;
};
Interval loss_interval(const Evaluation& e);
Interval bits_interval(const Evaluation& e);
// a − b on the same units, in bits per byte (and nats per token when both cut the text into the same tokens).
Interval bits_difference(const Evaluation& a, const Evaluation& b);
Interval loss_difference(const Evaluation& a, const Evaluation& b);

using EvaluateProgress = std::function<void(int64_t done, int64_t total, double loss)>;  // tokens; may throw to interrupt

// Scores all windows under `rule`. causal: at `dial`, the model's default when empty (a model of random selection runs as
// its own control, RoutingPolicy::at_dial). topk and random: at the capacities of that dial.
Evaluation evaluate(const Subject& subject, const HeldOut& text, infer::Rule rule, std::optional<double> dial = {},
                    const EvaluateProgress& progress = {});

// Whether there is a teacher to compare with: top-k of the model's own scores, which a random control never trained.
bool has_teacher(const Subject& subject);

// Fills the agreement of `causal` from the decision scores of a teacher's pass, which is scored here and returned.
Evaluation compare_with_teacher(const Subject& subject, const HeldOut& text, Evaluation& causal, std::optional<double> dial = {},
                                const EvaluateProgress& progress = {});

// The policy that `rule` means for this model at this dial.
infer::RoutingPolicy policy_of(const Subject& subject, infer::Rule rule, std::optional<double> dial);
// "causal rule", "random control" or "top-k".
const char* rule_words(infer::Rule rule);
// "12 documents", "32 stretches of text", "1 document".
std::string units_text(const Evaluation& e, int64_t units);

double dial_of(const Subject& subject, std::optional<double> dial);

}  // namespace fathom::study
