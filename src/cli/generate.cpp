#include "cli/commands.h"
#include "cli/common.h"
#include "cli/depth_colours.h"
#include "cli/engine_flags.h"
#include "cli/generation_flags.h"
#include "cli/generation_text.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/memory.h"
#include "infer/generate.h"
#include "infer/weights.h"
#include "model/document_ends.h"
#include "study/evaluate.h"

namespace fathom::cli {
namespace {

std::string prompt_of(const Arguments& args) {
  if (args.given("prompt") && args.given("prompt-file")) args.wrong("prompt-file", "--prompt as well", "one of the two");
  std::string prompt = args.text("prompt");
  if (args.given("prompt-file")) prompt = read_input(args.text("prompt-file"), limits::kPromptBytes);
  else if (prompt == "-") prompt = read_input("-", limits::kPromptBytes);
  return prompt;
}

std::vector<int32_t> prompt_ids(const Arguments& args, const text::Tokenizer& tokenizer, const model::DocumentEnds& ends, const std::string& prompt) {
  std::vector<int32_t> ids = model::prompt_ids(tokenizer, ends, prompt, {.begin = args.boolean("bos"), .allow_special = args.boolean("parse-special")});
  if (ids.empty()) args.wrong("prompt", "no token", "a text of at least one token", "this model has no token that begins a text");
  return ids;
}

infer::GenerateOptions options_of(const Arguments& args, std::optional<double> dial, const model::ModelFolder& folder, const model::DocumentEnds& ends) {
  infer::GenerateOptions o;
  o.sampling = sampling_of(args, folder.generation());
  o.policy = infer::RoutingPolicy::at_dial(folder.config(), folder.dial(), dial);
  o.max_new_tokens = args.integer("max-tokens");
  o.stop = args.texts("stop");
  for (const std::string& stop : o.stop)
    if (stop.empty()) args.wrong("stop", "an empty text, which stands before everything", "a text of at least one character");
  if (args.boolean("eos")) o.stop_ids = model::end_ids(folder, ends);
  if (args.given("draft-dial") && args.boolean("draft-repeats")) args.wrong("draft-repeats", "--draft-dial as well", "one of the two");
  if (args.given("draft-dial") || args.boolean("draft-repeats")) o.speculation.emplace();
  if (args.given("draft-dial")) o.speculation->draft = infer::RoutingPolicy::at_dial(folder.config(), folder.dial(), dial_of(args.maybe_number("draft-dial"), folder));
  o.cancel = interrupted;
  return o;
}

int run(const Arguments& args) {
  apply_colour(args);
  catch_interrupts();
  const bool json = args.boolean("json"), coloured = args.boolean("show-depth") && use_colour() && !json;
  const std::string prompt = prompt_of(args);
  const auto folder = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  const text::Tokenizer tokenizer = folder->tokenizer();
  const std::optional<double> dial = dial_of(args, *folder);
  const model::DocumentEnds ends = model::document_ends(folder->config(), tokenizer);
  const infer::GenerateOptions options = options_of(args, dial, *folder, ends);
  std::vector<std::vector<int32_t>> prompts = {prompt_ids(args, tokenizer, ends, prompt)};
  const int64_t room = folder->config().max_position_embeddings;
  if (static_cast<int64_t>(prompts[0].size()) >= room)
    throw UserError({args.positional("MODEL"), "", str("a prompt of ", prompts[0].size(), " tokens"),
                     str("fewer than the model's max_position_embeddings ", room), ""});
  infer::Engine engine(infer::Weights::load(*folder), engine_options(args, threads_of(args)));

  const DepthRange range{folder->config().least_depth(), folder->config().most_depth()};
  const bool safe = stdout_is_terminal();
  if (coloured) out(depth_legend(range) + "\n\n");
  if (args.boolean("echo") && !json) out(safe ? terminal_safe(prompt) : prompt);
  if (!json) out_flush();

  GenerationRecord record;
  const auto show = [&](const infer::TextParts& parts) {
    if (json || parts.empty()) return;
    for (const infer::TextPart& part : parts)
      out(coloured ? in_depth_colour(part.text, record.tokens[part.token].depth, range) : safe ? terminal_safe(part.text) : part.text);
    out_flush();
  };
  const infer::GenerateResult result = infer::generate(engine, &tokenizer, prompts, options, [&](const infer::TokenEvent& e) {
    record.add(e);
    show(e.text);
    return true;
  });
  if (json) {
    Json j = generation_json(prompt, result, record, tokenizer, range);
    const ProcessMemory memory = process_memory();
    j["kv_type"] = args.text("kv-type");
    j["memory"] = {{"weights", engine.weights().bytes()}, {"kv_peak", engine.pool().peak_pages() * engine.pool().page_bytes()}, {"resident", memory.resident}, {"resident_peak", memory.peak}};
    j["dial"] = dial.value_or(folder->dial() ? folder->dial()->default_dial : 1.0);
    out_json(j);
  } else {
    show(result.texts[0].tail);
    out("\n");
    out_flush();
    if (args.boolean("show-depth")) out("\n" + depth_histogram(record, range, coloured));
    if (args.boolean("stats")) log_info(generation_stats(result, record));
  }
  out_flush();
  if (interrupted()) throw Interrupted(str("interrupted after ", record.tokens.size(), record.tokens.size() == 1 ? " token" : " tokens"));
  if (result.texts[0].finish == infer::Finish::context_full)
    log_warning("the text ended because the model's context of ", room, " tokens is full");
  return kExitDone;
}

}  // namespace

Command generate_command() {
  Command c{.name = "generate", .summary = "Write text from a prompt, with a cache that skips what the tokens skip"};
  c.details = "Text is written to standard output as it comes. The same command gives the same text on any machine and number of threads.";
  c.positional("MODEL", "the model folder, the folder of a run, or a .gguf file");
  c.flag(text_flag("prompt", "TEXT", "how the text begins; - reads standard input").noted("nothing"));
  c.flag(path_flag("prompt-file", "FILE", "read the prompt from a file, - for standard input"));
  c.flag(boolean_flag("echo", "print the prompt too"));
  c.flag(boolean_flag("parse-special", "read special tokens in the prompt as such, not as plain text"));
  c.flag(boolean_flag("bos", "begin with the model's begin token, where it was trained with one").otherwise("true"));
  c.group("Length");
  c.flag(count_flag("max-tokens", "N", "new tokens at most").range(1, limits::kNewTokens).otherwise("128"));
  c.flag(text_flag("stop", "TEXT", "end before this text").many());
  c.flag(boolean_flag("eos", "end at the model's end token").otherwise("true"));
  sampling_flags(c);
  c.group("Speculation");
  c.flag(number_flag("draft-dial", "X", "guess tokens at this dial and check several at once; the text is the same, only sooner or later").range(1e-6, 1).noted("no guesses"));
  c.flag(boolean_flag("draft-repeats", "guess that the text goes on as it did after the same tokens"));
  c.group("Depth");
  c.flag(dial_flag());
  c.flag(boolean_flag("show-depth", "colour every token by the number of blocks that it ran in full"));
  c.flag(boolean_flag("stats", "print speed, fractions and cache size to standard error"));
  engine_flags(c);
  c.group("Output");
  c.flag(json_flag()).flag(threads_flag()).flag(colour_flag());
  c.examples = {"fathom generate model/ --prompt 'Once upon a time' --show-depth", "fathom generate model/ --prompt-file chapter.txt --temperature 0.8 --top-p 0.95 --dial 0.6"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
