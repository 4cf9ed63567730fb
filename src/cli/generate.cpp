#include <algorithm>
#include <future>
#include <utility>

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
  o.sampling.logit_bias = logit_bias_of(args, folder.config().vocab_size);
  o.policy = infer::RoutingPolicy::at_dial(folder.config(), folder.dial(), dial);
  o.max_new_tokens = args.integer("max-tokens");
  o.stop = args.texts("stop");
  for (const std::string& stop : o.stop)
    if (stop.empty()) args.wrong("stop", "an empty text, which stands before everything", "a text of at least one character");
  o.stop_ids = stop_ids_of(args, folder.config().vocab_size);
  if (args.boolean("eos"))
    for (const int32_t id : model::end_ids(folder, ends)) o.stop_ids.push_back(id);
  o.samples = args.integer("samples");
  o.log_probs = args.maybe_integer("log-probs");
  o.probe_plain_steps = args.boolean("stats") || args.boolean("json");
  o.speculation = speculation_of(args, folder, dial);
  o.cancel = interrupted;
  return o;
}

int run(const Arguments& args) {
  apply_colour(args);
  catch_interrupts();
  const bool json = args.boolean("json"), coloured = args.boolean("show-depth") && use_colour() && !json;
  const std::string prompt = prompt_of(args);
  const auto folder = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  auto loading = std::async(std::launch::async, [&] { return infer::Weights::load(*folder, threads_of(args)); });  // beside the tokenizer
  const text::Tokenizer tokenizer = folder->tokenizer();
  const std::optional<double> dial = dial_of(args, *folder);
  const model::DocumentEnds ends = model::document_ends(folder->config(), tokenizer);
  const infer::GenerateOptions options = options_of(args, dial, *folder, ends);
  std::vector<std::vector<int32_t>> prompts = {prompt_ids(args, tokenizer, ends, prompt)};
  const int64_t room = folder->config().max_position_embeddings;
  if (static_cast<int64_t>(prompts[0].size()) >= room)
    throw UserError({args.positional("MODEL"), "", str("a prompt of ", prompts[0].size(), " tokens"),
                     str("fewer than the model's max_position_embeddings ", room), ""});
  infer::Engine engine(loading.get(), engine_options(args, threads_of(args)));

  const DepthRange range{folder->config().least_depth(), folder->config().most_depth()};
  const bool safe = stdout_is_terminal();
  if (coloured) out(depth_legend(range) + "\n\n");
  const std::string begin = !args.boolean("echo") ? "" : safe ? terminal_safe(prompt) : prompt;
  std::vector<GenerationRecord> records(static_cast<size_t>(options.samples));
  std::vector<std::string> held(records.size(), begin);  // one text is shown as it comes; of several, each when all are there
  const auto show = [&](size_t sample, const infer::TextParts& parts) {
    for (const infer::TextPart& part : parts)
      held[sample] += coloured ? in_depth_colour(part.text, records[sample].tokens[part.token].depth, range) : safe ? terminal_safe(part.text) : part.text;
    if (json || records.size() > 1) return;
    out(std::exchange(held[sample], ""));
    out_flush();
  };
  show(0, {});

  const infer::GenerateResult result = infer::generate(engine, &tokenizer, prompts, options, [&](const infer::TokenEvent& e) {
    records[e.prompt].add(e);
    show(e.prompt, e.text);
    return true;
  });
  if (json) {
    Json j = generation_json(prompt, result, records, tokenizer, range);
    const ProcessMemory memory = process_memory();
    j["kv_type"] = args.text("kv-type");
    j["memory"] = {{"weights", engine.weights().bytes()}, {"kv_peak", engine.pool().peak_pages() * engine.pool().page_bytes()}, {"resident", memory.resident}, {"resident_peak", memory.peak}};
    j["dial"] = dial.value_or(folder->dial() ? folder->dial()->default_dial : 1.0);
    out_json(j);
  } else {
    for (size_t i = 0; i < records.size(); ++i) {
      if (records.size() > 1) out(str(i > 0 ? "\n" : "", "sample ", i + 1, " of ", records.size(), ":\n"));
      show(i, result.texts[i].tail);
      out(held[i] + "\n");
      if (args.boolean("show-depth")) out("\n" + depth_histogram(records[i], range, coloured));
      if (options.log_probs) out("\n" + log_prob_table(records[i], tokenizer));
    }
    out_flush();
    if (args.boolean("stats")) log_info(generation_stats(result, records));
  }
  out_flush();
  if (interrupted()) throw Interrupted(str("interrupted after ", result.stats.new_tokens, result.stats.new_tokens == 1 ? " token" : " tokens"));
  if (std::ranges::any_of(result.texts, [](const infer::Generated& g) { return g.finish == infer::Finish::context_full; }))
    log_warning(records.size() == 1 ? "the" : "a", " text ended because the model's context of ", room, " tokens is full");
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
  c.flag(integer_flag("stop-id", "ID", "end at this token, which is no part of the text").range(0, limits::kVocabulary - 1).many());
  c.flag(boolean_flag("eos", "end at the model's end token").otherwise("true"));
  sampling_flags(c);
  c.flag(text_flag("logit-bias", "ID=X", "add X to the logit of this token; -inf forbids it").many());
  c.flag(count_flag("samples", "N", "texts from the prompt, which is read once; the first is the one that stands alone").range(1, limits::kTexts).otherwise("1"));
  speculation_flags(c);
  c.group("Depth");
  c.flag(dial_flag());
  c.flag(boolean_flag("show-depth", "colour every token by the number of blocks that it ran in full"));
  c.flag(boolean_flag("stats", "print speed, fractions and cache size to standard error"));
  engine_flags(c);
  c.group("Output");
  c.flag(integer_flag("log-probs", "N", "print every token's log-probability, and the N likeliest in its place").range(0, limits::kTopLogProbs));
  c.flag(json_flag()).flag(threads_flag()).flag(colour_flag());
  c.examples = {"fathom generate model/ --prompt 'Once upon a time' --show-depth", "fathom generate model/ --prompt-file chapter.txt --temperature 0.8 --top-p 0.95 --dial 0.6"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
