// Checkpoints of a run, one folder each under RUN/checkpoints, complete or absent (core/file.h atomic_folder):
//   step-000000100/checkpoint.json    everything but tensors, and the hash of
//   step-000000100/state.safetensors  weights, both moments, step counts, running quantiles: all f32
// docs/formats.md, "Checkpoints". A resumed run computes the same bits as one that was never interrupted.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "nn/transformer.h"
#include "train/config.h"
#include "train/corpus.h"
#include "train/loader.h"
#include "train/optimizer.h"

namespace fathom::train {

inline constexpr int kCheckpointVersion = 1;

// Everything about a run's progress but tensors.
struct Progression {
  int64_t step = 0;             // steps done
  int64_t total = 0;            // steps of the whole run
  int64_t tokens = 0;           // seen
  double flops = 0, seconds = 0;
  LoaderState loader;
  int64_t skipped_in_a_row = 0; // steps without an update, since loss or gradient was not finite
  double loss_sum = 0;          // over the steps since the last log line
  int64_t loss_count = 0;
  std::optional<double> validation_loss;  // causal rule, when this step was evaluated
  std::optional<double> best_loss;        // least of them so far
  int64_t best_step = 0;
};

// What must be the same for a resume to compute the same.
struct Identity {
  Json config;                  // TrainConfig::to_json
  std::string tokenizer;        // identity
  std::string dataset;          // hash of its manifest
  std::string precision;        // "f32" or "bf16", resolved
  std::string f32_route;        // "mkl" or "onednn", resolved
  int64_t threads = 0;          // resolved
  std::string machine;          // processor and LibTorch: another one is a warning, not an error
};

struct Quantiles {              // running thresholds per routed block [R]; see trainer.h
  std::vector<float> raw, decision;
  int64_t updates = 0;
};

struct Checkpoint {
  Progression progression;
  Identity identity;
  Quantiles quantiles;
};

std::string checkpoint_name(int64_t step);  // "step-000000100"

// Writes RUN/checkpoints/NAME. An equal one that is there already is left as it is.
void save_checkpoint(const std::string& run, const Checkpoint& checkpoint, const AdamW& optimizer);

struct Found {
  std::string path;
  int64_t step = 0;
  std::optional<double> validation_loss;
};
// All complete checkpoints, ascending by step.
std::vector<Found> find_checkpoints(const std::string& run);

// Reads checkpoint.json (no tensors).
Checkpoint read_checkpoint(const std::string& path);
// Checks the hash and fills the optimizer's parameters (the network's own tensors) and moments, and the quantiles.
void load_tensors(const std::string& path, Checkpoint& checkpoint, AdamW& optimizer, size_t routed_blocks);
// The weights alone, into a network.
void load_weights(const std::string& path, nn::Transformer& network);

// Removes all but the last `keep` and the one of least validation loss.
void prune_checkpoints(const std::string& run, int64_t keep);

// Removes what a killed run left half written in RUN and RUN/checkpoints.
void clean_leftovers(const std::string& run);

// UserError in `where`'s name unless `corpus` is the data behind a checkpoint: the same tokenizer, the same manifest. `whose`
// names the checkpoint in the message.
void require_same_data(const Identity& trained, const Corpus& corpus, const std::string& where, const std::string& whose);

// One process at a time works in a run folder; the lock goes with the process, however it ends.
FileLock lock_run(const std::string& run);

}  // namespace fathom::train
