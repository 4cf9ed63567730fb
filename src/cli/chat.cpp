#include <chrono>
#include <cstring>
#include <future>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/common.h"
#include "cli/conversation.h"
#include "cli/depth_colours.h"
#include "cli/engine_flags.h"
#include "cli/generation_flags.h"
#include "cli/generation_text.h"
#include "cli/interrupt.h"
#include "cli/lines.h"
#include "cli/output.h"
#include "cli/program.h"
#include "core/human.h"
#include "core/limits.h"
#include "core/log.h"
#include "infer/cache_file.h"
#include "infer/weights.h"
#include "model/document_ends.h"
#include "study/evaluate.h"

namespace fathom::cli {
namespace {

constexpr const char* kHelp =
    "/dial X      block fraction of what follows (alone: the one at hand)\n"
    "/depth       colour answers by depth, or no longer\n"
    "/stats       figures of the last answer and every later one, or no longer\n"
    "/system TEXT begin anew with this system message\n"
    "/retry       another answer to the last question\n"
    "/undo        take the last question and its answer back\n"
    "/clear       begin anew\n"
    "/save FILE   keep the conversation, and all that was read of it\n"
    "/load FILE   go on with one that was kept\n"
    "/quit        end, as Ctrl-D does\n"
    "A line that ends in \\ goes on in the next. Ctrl-C stops an answer.\n";

class Chat {
 public:
  Chat(const Arguments& args, std::shared_ptr<model::ModelFolder> folder, std::shared_ptr<const infer::Weights> weights, const text::Tokenizer& tokenizer, model::ChatFormat format)
      : args_(args), folder_(std::move(folder)), tokenizer_(tokenizer), conversation_(std::move(format), tokenizer), system_(args.text("system")),
        engine_(std::move(weights), engine_options(args, threads_of(args))),
        scheduler_(engine_, {.prefix_tokens = folder_->config().max_position_embeddings + infer::PrefixCache::kStride}),  // and where it ends
        end_ids_(model::end_ids(*folder_, model::document_ends(folder_->config(), tokenizer))), speculation_(speculation_of(args, *folder_, dial_of(args, *folder_))), depth_(args.boolean("show-depth")), stats_(args.boolean("stats")) {
    engine_.require_room(std::min(1 + args.integer("max-tokens"), folder_->config().max_position_embeddings));
    at_ = at(args.maybe_number("dial"));
    conversation_.begin(system_);
    range_ = {folder_->config().least_depth(), folder_->config().most_depth()};
  }

  void load(const std::string& path, bool with_dial = true) {
    if (path.empty()) throw UserError({"/load", "", "no name", "the name of a file that /save wrote", ""});
    infer::CachedText text = infer::load_cache(path, identity(), engine_, [&] { scheduler_.forget_prefixes(); });
    const Fields note(text.note, path, "note");
    const std::string system = note.string("system");
    const int64_t asked = note.integer("asked", 0, INT64_MAX);
    const std::optional<double> dial = note.has("dial") ? std::optional(note.number("dial", 0, 1)) : std::nullopt;
    std::vector<int32_t> ids = text.ids;
    std::vector<infer::PolicyFrom> policies = text.policies;
    const Json& conversation = note.raw("conversation");
    note.done();
    Dial next = with_dial ? at(dial) : at_;
    conversation_.restore(conversation, path, std::move(ids), std::move(policies));
    at_ = std::move(next);
    system_ = system;
    asked_ = static_cast<uint64_t>(asked);
    scheduler_.keep(text.ids, text.policies, text.read);
    say(str("loaded ", printable(path), ": ", what_was_read(text.ids.size(), text.read.sequence.position())));
  }

  // false: the end was asked for.
  bool line(const std::string& line) {
    try {
      if (line.starts_with('/')) return command(line);
      if (!line.empty()) ask(line);
    } catch (const UserError& e) {  // of this line; the conversation goes on
      out_flush();
      log_line(LogLevel::quiet, str("fathom: ", e.what()));
    }
    return true;
  }

 private:
  void say(const std::string& text) {
    out(text + "\n");
    out_flush();
  }

  struct Dial {
    std::optional<double> asked;
    infer::RoutingPolicy policy;
  };
  Dial at(std::optional<double> dial) const {
    const std::optional<double> asked = dial_of(dial, *folder_);
    return {asked, infer::RoutingPolicy::at_dial(folder_->config(), folder_->dial(), asked)};
  }

  bool command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(1, space - 1), rest = space < line.size() ? line.substr(space + 1) : "";
    if (name == "quit" || name == "exit" || name == "bye") return false;
    if (name == "help" || name == "?") say(std::string(kHelp, std::strlen(kHelp) - 1));
    else if (name == "dial") dial(rest);
    else if (name == "depth") toggle_depth();
    else if (name == "stats") toggle_stats();
    else if (name == "clear") conversation_.begin(system_), say("a new conversation");
    else if (name == "system") conversation_.begin(system_ = rest), say(rest.empty() ? "a new conversation without a system message" : "a new conversation");
    else if (name == "save") save(rest);
    else if (name == "load") load(rest);
    else if (name == "undo") say(conversation_.take_back().empty() ? "nothing to take back" : "taken back");
    else if (name == "retry") {
      const std::string question = conversation_.take_back();
      question.empty() ? say("nothing was asked") : ask(question);
    } else {
      throw UserError({"command", "", "\"/" + printable(name, 40) + "\"", "one of /dial /depth /stats /system /retry /undo /clear /save /load /quit /help", ""});
    }
    return true;
  }

  // Of model and tokenizer; takes a moment, so not before somebody asks.
  const std::string& identity() {
    if (identity_.empty()) identity_ = folder_->fingerprint() + tokenizer_.identity();
    return identity_;
  }

  static std::string what_was_read(size_t tokens, int64_t read) { return str(tokens, " tokens, ", read, " of them read"); }

  void save(const std::string& path) {
    if (path.empty()) throw UserError({"/save", "", "no name", "the name of the file to write", ""});
    require_place(path);
    infer::CachedText text{.ids = conversation_.ids(), .policies = conversation_.policies(), .read = scheduler_.kept(conversation_.ids(), conversation_.policies()), .note = {}};
    text.note = {{"conversation", conversation_.to_json()}, {"system", system_}, {"asked", asked_}, {"dial", at_.asked ? Json(*at_.asked) : Json()}};
    infer::save_cache(path, identity(), engine_, text);
    say(str("saved ", printable(path), ": ", what_was_read(text.ids.size(), text.read.sequence.position())));
  }

  void toggle_stats() {
    stats_ = !stats_;
    say(str("figures ", stats_ ? "on" : "off"));
    if (stats_ && !last_stats_.empty()) log_info(last_stats_);  // of the answer that made somebody ask
  }

  void toggle_depth() {
    depth_ = !depth_;
    say(str("depth colours ", depth_ ? "on" : "off"));
    if (depth_ && use_colour() && range_.least < range_.most) say(depth_legend(range_));
  }

  void dial(const std::string& rest) {
    if (!rest.empty()) {
      size_t used = 0;
      double asked = 0;
      try {
        asked = std::stod(rest, &used);
      } catch (const std::exception&) {
        used = 0;
      }
      if (used != rest.size() || !(asked > 0 && asked <= 1)) throw UserError({"/dial", "", "\"" + printable(rest, 40) + "\"", "a number above 0, at most 1", ""});
      at_ = at(asked);
    }
    say(str("dial ", fixed(at_.asked.value_or(folder_->dial() ? folder_->dial()->default_dial : 1.0), 3)));
  }

  void ask(const std::string& question) {
    conversation_.ask(question, at_.policy);
    const int64_t room = folder_->config().max_position_embeddings - std::ssize(conversation_.ids());
    if (room <= 0) {
      conversation_.take_back();
      throw UserError({"conversation", "", str(folder_->config().max_position_embeddings - room, " tokens"),
                       str("fewer than the model's max_position_embeddings ", folder_->config().max_position_embeddings), "/clear begins a new one, /undo takes back"});
    }
    const bool coloured = depth_ && use_colour(), safe = stdout_is_terminal();
    GenerationRecord record;
    infer::Generated answer;
    const auto show = [&](const infer::TextParts& parts) {
      for (const infer::TextPart& part : parts)
        out(coloured && part.token < record.tokens.size() ? in_depth_colour(part.text, record.tokens[part.token].depth, range_)
            : safe                                        ? terminal_safe(part.text)
                                                          : part.text);
      out_flush();
    };
    infer::Request request{.prompt = conversation_.ids(), .policies = conversation_.policies(), .sampling = sampling_of(args_, for_conversation(folder_->generation())),
                           .stream = asked_++, .max_new_tokens = args_.integer("max-tokens"), .stop_ids = end_ids_, .tokenizer = &tokenizer_, .speculation = speculation_};
    request.on_token = [&](const infer::TokenEvent& e) {
      record.add(e);
      show(e.text);
      return true;
    };
    request.on_finish = [&](size_t, infer::Generated&& text) {
      if (text.error) std::rethrow_exception(text.error);
      answer = std::move(text);
    };
    infer::GenerateStats times;
    try {
      const infer::RequestId id = scheduler_.submit(std::move(request));
      while (!scheduler_.idle()) {
        if (interrupted()) scheduler_.cancel(id);
        const int64_t running = scheduler_.running(), before = std::ssize(record.tokens);
        const auto begin = std::chrono::steady_clock::now();
        const infer::Scheduler::Step step = scheduler_.step();
        times.count(step, running, std::ssize(record.tokens) - before, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      }
    } catch (...) {  // there is no room for an answer, or it failed
      conversation_.take_back();
      throw;
    }
    show(answer.tail);
    out("\n");
    if (depth_ && range_.least == range_.most) out("(no block is routed: every token runs all of them)\n");
    out_flush();
    if (interrupted()) {
      forget_interrupt();
      log_info("stopped");
    }
    if (answer.finish == infer::Finish::context_full) log_warning("the answer ended because the model's context is full");
    conversation_.answered(answer.text, answer.ids);
    // What a step without guesses takes, the whole conversation knows better than one answer.
    plain_.plain_steps += times.plain_steps, plain_.plain_seconds += times.plain_seconds;
    times.plain_steps = plain_.plain_steps, times.plain_seconds = plain_.plain_seconds;
    last_stats_ = stats(answer, record, times);
    if (stats_) log_info(last_stats_);
  }

  std::string stats(const infer::Generated& g, const GenerationRecord& record, const infer::GenerateStats& times) const {
    const double read = static_cast<double>(g.prompt_tokens - g.cached_tokens), fresh = static_cast<double>(record.tokens.size());
    double depth = 0;
    for (const auto& t : record.tokens) depth += static_cast<double>(t.depth) / std::max(fresh, 1.0);
    const auto rate = [](double tokens, double seconds) { return human_count(seconds > 0 ? tokens / seconds : 0); };
    return str("prompt ", g.prompt_tokens, " tokens, ", g.cached_tokens, " of them cached, the others at ", rate(read, times.prefill_seconds), " tokens/s; ", g.ids.size(),
               " new at ", rate(fresh, times.decode_seconds), " tokens/s; mean depth ", fixed(depth, 2), " of ", range_.most, "; KV cache ",
               human_bytes(static_cast<double>(g.kv_slot_bytes)), " of ", human_bytes(static_cast<double>(g.kv_slot_bytes_dense)), " if dense",
               g.guessed > 0 ? "; " + guesses_text(g.guessed, g.guessed_right, times, seconds_saved(times)) : "");
  }

  const Arguments& args_;
  std::shared_ptr<model::ModelFolder> folder_;
  text::Tokenizer tokenizer_;
  Conversation conversation_;
  std::string system_, identity_, last_stats_;
  infer::Engine engine_;
  infer::Scheduler scheduler_;
  std::vector<int32_t> end_ids_;
  std::optional<infer::Speculation> speculation_;
  bool depth_, stats_;
  infer::GenerateStats plain_;  // its plain_steps and plain_seconds: of all answers
  Dial at_;
  DepthRange range_;
  uint64_t asked_ = 0;
};

model::ChatFormat format_of(const Arguments& args, const model::ModelFolder& folder) {
  std::optional<model::ChatFormat> own = folder.chat_format();
  if (args.given("chat-template")) {
    const std::string& path = args.text("chat-template");
    text::ChatTemplate given(read_input(path, limits::kChatTemplateBytes), path);
    if (own) own->chat_template = std::move(given);
    else own = model::ChatFormat{.chat_template = std::move(given), .bos_token = {}, .eos_token = {}};
  }
  if (!own)
    throw UserError({folder.path(), "", "no chat template", "chat_template.jinja, tokenizer_config.json with a chat_template, or a GGUF file's tokenizer.chat_template",
                     "give --chat-template FILE, or let `fathom generate` go on with a text"});
  return *own;
}

int run(const Arguments& args) {
  apply_colour(args);
  catch_interrupts();
  const auto folder = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  auto loading = std::async(std::launch::async, [&] { return infer::Weights::load(*folder, threads_of(args)); });  // beside the tokenizer
  const text::Tokenizer tokenizer = folder->tokenizer();
  if (args.given("load") && args.given("system")) args.wrong("system", "--load as well", "one of the two");
  model::ChatFormat format = format_of(args, *folder);
  Chat chat(args, folder, loading.get(), tokenizer, std::move(format));
  const bool person = ::isatty(STDIN_FILENO) && stdout_is_terminal();
  if (args.given("load")) chat.load(args.text("load"), !args.given("dial"));
  if (person) out("/help lists the commands; Ctrl-D ends\n");
  Lines lines;
  std::string text, line;
  while (true) {
    if (person) out(text.empty() ? "> " : ". ");
    out_flush();
    switch (lines.next(line)) {
      case Lines::Got::end:
        if (!text.empty()) chat.line(text);
        if (person) out("\n"), out_flush();
        return kExitDone;
      case Lines::Got::interrupt:
        if (!person || terminated()) throw Interrupted("interrupted");
        forget_interrupt();
        text.clear();
        out("\n(Ctrl-D or /quit ends)\n");
        continue;
      case Lines::Got::line: break;
    }
    if (line.ends_with('\\')) {
      line.back() = '\n';
      text += line;
      continue;
    }
    if (!chat.line(text + line)) return kExitDone;
    text.clear();
  }
}

}  // namespace

Command chat_command() {
  Command c{.name = "chat", .summary = "Talk with a model, at any dial"};
  c.details = "Reads lines from standard input and answers each. What else may be typed (/help shows it too):\n"
              "/dial X, /depth, /stats, /system TEXT, /retry, /undo, /clear, /save FILE, /load FILE, /quit.\n"
              "Where the model recommends nothing, answers are drawn at temperature 0.7 from the likeliest 95 %.";
  c.positional("MODEL", "the model folder, the folder of a run, or a .gguf file");
  c.flag(text_flag("system", "TEXT", "how the model is to behave").noted("nothing, or what the template says"));
  c.flag(path_flag("load", "FILE", "go on with a conversation that /save wrote; nothing of it is read again"));
  c.flag(path_flag("chat-template", "FILE", "a Jinja template in place of the model's own"));
  c.flag(count_flag("max-tokens", "N", "tokens of an answer at most").range(1, limits::kNewTokens).otherwise("1024"));
  sampling_flags(c);
  speculation_flags(c);
  c.group("Depth");
  c.flag(dial_flag());
  c.flag(boolean_flag("show-depth", "colour every token by the number of blocks that it ran in full"));
  c.flag(boolean_flag("stats", "print speed, depth and cache size to standard error after every answer"));
  engine_flags(c);
  c.group("Output");
  c.flag(threads_flag()).flag(colour_flag());
  c.examples = {"fathom chat models/SmolLM2-135M-Instruct.Q4_1.gguf", "echo 'What is the capital of France?' | fathom chat model/ --temperature 0 --dial 0.6"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
