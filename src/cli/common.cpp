#include "cli/common.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "core/file.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/thread_pool.h"
#include "infer/policy.h"
#include "kernels/kernels.h"
#include "study/runs.h"

namespace fathom::cli {

Flag json_flag() { return boolean_flag("json", "print the result as one JSON document on standard output"); }
Flag threads_flag() { return integer_flag("threads", "N", "threads to use").range(0, limits::kThreads).otherwise("0").noted("0, all cores that the process may use"); }
Flag colour_flag() {
  return text_flag("color", "WHEN", "colours: on a terminal unless NO_COLOR is set, always or never").one_of({"auto", "always", "never"}).otherwise("auto");
}
Flag quiet_flag() { return boolean_flag("quiet", "no progress and no remarks on standard error"); }
Flag field_flag() { return text_flag("field", "NAME", "field of a .jsonl line that holds the text; a line without it may have messages, a conversation").otherwise("text"); }
Flag repair_flag() { return boolean_flag("repair-utf8", "replace broken UTF-8 by U+FFFD instead of refusing the file"); }

data::DocumentOptions document_options(const Arguments& args) {
  data::DocumentOptions options;
  options.field = args.text("field");
  if (args.boolean("repair-utf8")) options.invalid_utf8 = data::InvalidUtf8::repair;
  return options;
}

study::HeldOutOptions held_out_options(const Arguments& args, const model::ModelFolder& reader, int64_t context, int64_t limit) {
  data::DocumentOptions documents = document_options(args);
  documents.conversations = model::whole_conversations([&] { return reader.chat_format(); });
  return {.documents = std::move(documents), .context = context, .limit = limit, .progress = [](int64_t, int64_t) { stop_if_interrupted(); }};
}

Flag dial_flag(const std::string& help) { return number_flag("dial", "X", help).range(1e-6, 1).noted("the model's"); }

std::optional<double> dial_of(const Arguments& args, const model::ModelFolder& folder) { return dial_of(args.maybe_number("dial"), folder); }

std::optional<double> dial_of(std::optional<double> asked, const model::ModelFolder& folder) {
  try {
    infer::RoutingPolicy::at_dial(folder.config(), folder.dial(), asked);
  } catch (const UserError& e) {  // of several models, whose
    const ErrorParts& p = e.parts();
    throw UserError({folder.path(), p.where, p.found, p.expected, p.hint});
  }
  if (!asked || !folder.dial()) return asked;
  const double dial = folder.dial()->reachable(*asked);
  if (dial > *asked + 1e-3)  // printed dials are rounded
    log_warning("dial ", *asked, " lies below the lowest dial that ", folder.path(), " was calibrated for; running at ", dial);
  return dial;
}

int threads_of(const Arguments& args) {
  const int64_t n = args.integer("threads");
  return n == 0 ? available_threads() : static_cast<int>(n);
}

void apply_colour(const Arguments& args) {
  const std::string& when = args.text("color");
  set_colour(when == "always" ? Colour::always : when == "never" ? Colour::never : Colour::automatic);
}

void apply_quiet(const Arguments& args) {
  if (args.boolean("quiet")) set_log_level(LogLevel::quiet);
}

int64_t context_of(const Arguments& args, const std::vector<const model::ModelFolder*>& models) {
  std::vector<std::string> folders;
  std::vector<int64_t> lengths;
  for (const model::ModelFolder* m : models) folders.push_back(m->path()), lengths.push_back(m->config().max_position_embeddings);
  const int64_t most = *std::ranges::min_element(lengths), context = args.maybe_integer("context").value_or(study::default_context(folders, lengths));
  if (context > most) args.wrong("context", str(context), str("at most ", most, models.size() > 1 ? ", the models' max_position_embeddings" : ", the model's max_position_embeddings"));
  return context;
}

int64_t context_of(const Arguments& args, const std::vector<study::Subject>& subjects) {
  std::vector<const model::ModelFolder*> folders;
  for (const study::Subject& s : subjects) folders.push_back(s.folder.get());
  return context_of(args, folders);
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d", &utc);
  return text;
}

std::string machine_words(int threads) { return str(threads, threads == 1 ? " thread, " : " threads, ", kernels::chosen().name, " kernels"); }

std::string stored_as(const model::ModelFolder& folder) {
  std::map<std::string, int64_t> count;
  for (const model::TensorSpec& spec : model::schema(folder.config())) ++count[folder.dtype(spec.name)];
  std::vector<std::pair<int64_t, std::string>> types;
  for (const auto& [type, n] : count) types.emplace_back(-n, type);
  std::sort(types.begin(), types.end());
  if (types.size() == 1) return types[0].second;
  std::string out;
  for (const auto& [n, type] : types) out += str(out.empty() ? "" : ", ", type, " (", -n, ")");
  return out;
}

std::string program_folder() {
  std::string path(4096, '\0');
  const ssize_t n = ::readlink("/proc/self/exe", path.data(), path.size());
  path.resize(n > 0 ? static_cast<size_t>(n) : 0);
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

namespace {

std::string read_stream(int fd, const std::string& name, int64_t max_bytes) {
  std::string text;
  char chunk[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) {
      stop_if_interrupted();
      continue;
    }
    if (n < 0) throw UserError({name, "", std::strerror(errno), "text", ""});
    if (n == 0) return text;
    text.append(chunk, static_cast<size_t>(n));
    if (static_cast<int64_t>(text.size()) > max_bytes)
      throw UserError({name, "", str("more than ", max_bytes, " bytes"), str("at most ", max_bytes), ""});
  }
}

}  // namespace

text::Tokenizer tokenizer_at(const std::string& path) {
  return path.ends_with(".gguf") ? model::ModelFolder::open(path)->tokenizer() : text::Tokenizer::load(path);
}

std::string read_input(const std::string& path, int64_t max_bytes) {
  if (path == "-") return read_stream(STDIN_FILENO, "standard input", max_bytes);
  std::error_code ignored;
  const auto type = std::filesystem::status(path, ignored).type();
  if (type != std::filesystem::file_type::fifo && type != std::filesystem::file_type::character) return read_file(path, max_bytes);
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(std::fopen(path.c_str(), "re"), &std::fclose);  // <(command)
  if (!pipe) stop_if_interrupted();
  if (!pipe) throw UserError({path, str("cannot open: ", std::strerror(errno)), "", "", ""});
  return read_stream(::fileno(pipe.get()), path, max_bytes);
}

void require_place(const std::string& path) {
  if (is_folder(path)) throw UserError({path, "", "a folder", "the name of a file", "name a file in it"});
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (!folder.empty() && !is_folder(folder))
    throw UserError({path, "", exists(folder) ? folder + ", which is a file" : "no folder " + folder, "a folder to write into", "make it first"});
}

void refuse_existing(const Arguments& args, const std::string& flag, const std::string& path) {
  if (!args.boolean("overwrite") && exists(path))
    args.wrong(flag, "the existing \"" + printable(path) + "\"", "a new name", "give --overwrite to replace it");
}

}  // namespace fathom::cli
