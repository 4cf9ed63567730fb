// Flags and small steps that several commands share, so that they are called and behave alike.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/flags.h"
#include "data/documents.h"
#include "model/folder.h"
#include "study/evaluate.h"
#include "study/held_out.h"

namespace fathom::cli {

Flag json_flag();      // --json
Flag threads_flag();   // --threads N, 0 = all cores
Flag colour_flag();    // --color auto|always|never
Flag quiet_flag();     // --quiet
Flag field_flag();     // --field NAME, of .jsonl
Flag repair_flag();    // --repair-utf8
// What the two say of documents, and held-out text of `limit` predicted tokens (0: all) in windows of `context`, which Ctrl-C stops.
data::DocumentOptions document_options(const Arguments& args);
// `reader`: whose chat template makes texts of conversations.
study::HeldOutOptions held_out_options(const Arguments& args, const model::ModelFolder& reader, int64_t context, int64_t limit);

Flag dial_flag(const std::string& help = "block fraction to ask for; 1 runs every token in full");  // --dial X

int threads_of(const Arguments& args);
void apply_colour(const Arguments& args);
void apply_quiet(const Arguments& args);

// --dial, if it was given: where it lies below the lowest point that the model was calibrated for, that point, with a
// warning. Refuses a dial that the model cannot run at.
std::optional<double> dial_of(const Arguments& args, const model::ModelFolder& folder);
std::optional<double> dial_of(std::optional<double> asked, const model::ModelFolder& folder);

// --context, or what quality is measured in when nobody says (study/runs.h); refused where a model does not read so far.
int64_t context_of(const Arguments& args, const std::vector<const model::ModelFolder*>& models);
int64_t context_of(const Arguments& args, const std::vector<study::Subject>& subjects);

std::string today();                     // "2026-11-29"
std::string machine_words(int threads);  // "2 threads, avx512 kernels"
// The types of a model's tensors: "F32", or "Q4_1 (210), F32 (61), Q8_0 (1)".
std::string stored_as(const model::ModelFolder& folder);

// Of a tokenizer.json, a folder that holds one, or a GGUF file.
text::Tokenizer tokenizer_at(const std::string& path);

// The folder that the running program stands in.
std::string program_folder();

// A whole file or pipe, or standard input for "-", at most `max_bytes`.
std::string read_input(const std::string& path, int64_t max_bytes);

// Refuses a name that no file can be written to (a folder's, or one in no folder), before the work that fills it.
void require_place(const std::string& path);

// Refuses to write over something unless the command's --overwrite was given.
void refuse_existing(const Arguments& args, const std::string& flag, const std::string& path);

}  // namespace fathom::cli
