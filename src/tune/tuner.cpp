#include "tune/tuner.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "convert/self_text.h"
#include "core/file.h"
#include "core/human.h"
#include "core/limits.h"
#include "core/log.h"
#include "model/document_ends.h"
#include "tune/finish.h"

namespace fathom::tune {
namespace {

constexpr const char* kSelf = "self";

std::string config_path(const std::string& run) { return join_path(run, "config.json"); }
std::string summary_path(const std::string& run) { return join_path(run, "summary.json"); }
std::string self_path(const std::string& run) { return join_path(run, "self.jsonl"); }
std::string tuned_path(const std::string& stage) { return join_path(stage, "tuned.safetensors"); }
std::string standing_path(const std::string& stage) { return join_path(stage, "stage.json"); }

int64_t all_tokens(const TuneConfig& config) {
  int64_t steps = 0;
  for (size_t i = 0; i < config.stages.size(); ++i) steps += config.steps(i);
  return steps * config.rows_per_step() * config.sequence_length;
}

// Text of the teacher's own, a document or a conversation a line; conversations where the student has a template to read them by. Whoever goes on after a
// stop has the pieces that are done.
void write_self_text(const TuneConfig& config, const model::ModelFolder& writer, double chat_share, const std::string& run, const std::function<bool()>& stop) {
  if (exists(self_path(run))) return;
  const std::string pieces = join_path(run, "self-pieces");
  make_folders(pieces);
  const text::Tokenizer tokenizer = writer.tokenizer();
  const auto message = [&](const char* role, const std::vector<int32_t>& ids) { return Json{{"role", role}, {"content", tokenizer.decode(ids, true)}}; };
  const int64_t tokens = config.self_tokens > 0 ? config.self_tokens : all_tokens(config);
  Progress progress("write text", "tokens", tokens);
  const auto texts = convert::self_texts(writer, infer::Weights::load(writer, static_cast<int>(config.threads)), chat_share,
                                         {.tokens = tokens, .context = config.sequence_length, .seed = config.seed, .threads = static_cast<int>(config.threads), .kept = pieces,
                                          .progress = [&](int64_t done, int64_t) {
                                            if (stop && stop()) throw Interrupted(str("stopped while text was written; go on with: fathom tune --resume ", run));
                                            progress.update(done);
                                          }});
  progress.finish();
  std::string lines;
  const auto add = [&](const Json& line) { lines += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; };
  for (const std::vector<int32_t>& text : texts.documents) add({{config.data.field, tokenizer.decode(text, true)}});
  for (const convert::SelfConversation& c : texts.conversations) add({{"messages", Json::array({message("user", c.question), message("assistant", c.answer)})}});
  atomic_write(self_path(run), lines);
  remove_all(pieces);
}

// `data`, which `flag` gave, as a dataset; text is prepared into RUN/`flag`. Around a document stands what the student is used with.
train::Corpus corpus_of(const TuneConfig& config, train::DataConfig data, const std::string& flag, const model::ModelFolder& student, const model::ModelFolder& writer, const std::string& run,
                        const std::function<bool()>& stop) {
  const text::Tokenizer tokenizer = student.tokenizer();
  const model::DocumentEnds ends = model::document_ends(student.config(), tokenizer);
  const auto conversations = model::whole_conversations([&] { return student.chat_format(); });
  for (std::string& text : data.text)
    if (text == kSelf) {
      write_self_text(config, writer, conversations ? config.chat_share : 0, run, stop);
      text = self_path(run);
    }
  if (!data.text.empty()) data.tokenizer = join_path(config.model, "tokenizer.json");
  train::Corpus corpus = train::open_corpus(data, {.run = run, .folder = flag, .resume = "fathom tune --resume", .hint = "give your own text, a dataset of fathom data prepare, or self: --" + flag,
                                                   .add_bos = ends.begin.has_value(), .add_eos = ends.end.has_value(), .conversations = conversations, .threads = config.threads, .stop = stop});
  const data::Manifest& made = corpus.train->manifest();
  if (made.tokenizer_identity != tokenizer.identity())
    throw UserError({config_path(run), flag, "a dataset of the tokenizer " + made.tokenizer_identity, str(tokenizer.identity(), ", that of ", config.model), "prepare the text with that model's tokenizer.json"});
  if (made.bos_id != ends.begin || made.eos_id != ends.end)
    log_warning(data.dataset, ": its documents begin or end otherwise than the texts of ", config.model, " do in use; prepare it with --", ends.begin ? "" : "no-", "bos --", ends.end ? "" : "no-", "eos");
  return corpus;
}

void say_cache(const TuneConfig& config, const Teacher& teacher) {
  const int64_t tokens = all_tokens(config), bytes = teacher.cache_bytes(tokens), rows = tokens / config.sequence_length;
  if (config.teacher_cache.empty() || config.teacher_top == 0) return;
  std::error_code error;
  const auto space = std::filesystem::space(config.teacher_cache, error);
  const int64_t have = std::min(teacher.cached_rows(), rows), missing = bytes - teacher.cache_bytes(have * config.sequence_length);
  log_info("teacher: the likeliest ", config.teacher_top, " of ", human_count(static_cast<double>(tokens)), " tokens take ", human_bytes(static_cast<double>(bytes)), " in ", config.teacher_cache, "; ", have, " of ", rows,
           " rows are there", error ? "" : str(", ", human_bytes(static_cast<double>(space.available)), " free"));
  if (!error && static_cast<double>(missing) > static_cast<double>(space.available))
    throw UserError({config.teacher_cache, "", human_bytes(static_cast<double>(space.available)) + " free", human_bytes(static_cast<double>(missing)), "lower --teacher-top or --tokens, or go without --teacher-cache"});
}

Json run_stages(const Shared& shared) {
  const TuneConfig& config = shared.config;
  std::vector<convert::Tuned> tuned;
  Json stages = Json::array();
  std::vector<double> shares;
  double teacher_loss = std::nan(""), seconds = 0;
  for (size_t i = 0; i < config.stages.size(); ++i) {
    const std::string folder = stage_folder(shared, i);
    const bool last = i + 1 == config.stages.size();
    if (!last && exists(standing_path(folder))) {
      tuned.push_back(convert::read_tuned(tuned_path(folder)));
      stages.push_back(read_json(standing_path(folder)));
      seconds += stages.back().at("seconds").get<double>();
      continue;
    }
    Stage stage(shared, i, tuned);
    tuned.push_back(stage.train());
    if (last) shares = stage.shares_at_middle();
    teacher_loss = stage.teacher_loss();
    Json about = {{"what", name_of(config.stages[i].what, kWhatNames)}, {"tokens", config.steps(i) * config.rows_per_step() * config.sequence_length}, {"seconds", stage.seconds()}, {"standings", Json::array()}};
    for (const Standing& s : stage.standings()) about["standings"].push_back(s.to_json());
    if (!std::isnan(teacher_loss)) about["teacher_loss"] = teacher_loss;
    convert::write_tuned(tuned_path(folder), tuned.back(), formats::Dtype::F32);
    atomic_write(standing_path(folder), about.dump(2) + "\n");
    seconds += stage.seconds();
    stages.push_back(std::move(about));
  }
  Json recipe = config.to_json();
  recipe.erase("model"), recipe.erase("teacher"), recipe.erase("teacher_cache"), recipe.erase("data"), recipe.erase("other");
  Json made = {{"config", recipe}, {"dataset", shared.corpus.fingerprint}, {"stages", stages}};
  if (const std::string converted = join_path(config.model, "fathom_convert.json"); exists(converted)) made["convert"] = read_json(converted);
  const Finished done = finish(shared, tuned, shares, made);
  Json summary = {{"model", done.model}, {"artifact", done.artifact}, {"tokens", all_tokens(config)}, {"seconds", seconds}, {"stages", stages}, {"dial", done.dial}, {"bytes", done.bytes}, {"config", config.to_json()}};
  if (!std::isnan(done.dense_loss)) summary["dense_loss"] = done.dense_loss;
  if (done.dense_bytes > 0) summary["dense_bytes"] = done.dense_bytes;
  atomic_write(summary_path(shared.run), summary.dump(2) + "\n");
  return summary;
}

Json go(const TuneConfig& config, const RunOptions& options, bool& stepped) {
  const std::string where = config_path(options.run);
  const auto student = model::ModelFolder::open(config.model);
  const model::ModelConfig& shape = student->config();
  nn::refuse_untrainable(shape, config.model);
  if (shape.routing.decides()) {
    nn::require_tunable(shape, config.model);
    const bool calibrated = student->dial() && std::ranges::any_of(student->dial()->points.front().thresholds, [](float t) { return std::isfinite(t); });
    if (!calibrated && (config.picks == Picks::topk || config.unit_budget_weight > 0))
      throw UserError({config.model, "fathom_dial.json", "no dial that was calibrated", "the shares of every block, which --picks topk and --unit-budget go by", "convert with --data, or: fathom dial MODEL --calibrate --data TEXT"});
  }
  for (const StageConfig& stage : config.stages)
    if (stage.what == What::routers && shape.routing.units.empty()) throw UserError({config.model, "fathom", "a dense model", "routers or light paths to train", "make them with fathom convert, or tune by --stages adapters"});
  changed_type(config, *student);
  if (config.sequence_length > shape.max_position_embeddings) throw UserError({where, "sequence_length", str(config.sequence_length), str("at most ", shape.max_position_embeddings, ", the model's max_position_embeddings"), ""});
  std::shared_ptr<model::ModelFolder> source;
  std::string identity = student->fingerprint();
  if (!config.teacher.empty()) {
    source = model::ModelFolder::open(config.teacher);
    require_teacher(*source, *student, config.other_teacher);
    if (!config.other_teacher && !rests_on(*source, *student, {})) log_warning(config.teacher, " has other weights than ", config.model, ", which was not made of it: it may teach, but no artifact can be laid over it");
    identity += " " + source->fingerprint();
  }
  for (const std::string& text : config.other)  // before --data is prepared
    if (text != kSelf && !exists(text)) throw UserError({"configuration", "other", "no file or folder " + text, "text beside that of data", "give your own text, or self: --other"});
  const model::ModelFolder& writer = source ? *source : *student;
  const train::Corpus corpus = corpus_of(config, config.data, "data", *student, writer, options.run, options.stop);
  std::optional<train::Corpus> other;
  if (!config.other.empty()) {
    train::DataConfig data = config.data;
    data.dataset.clear(), data.text = config.other;
    other = corpus_of(config, data, "other", *student, writer, options.run, options.stop);
  }
  std::unique_ptr<Teacher> teacher;
  if (source) {
    teacher = std::make_unique<Teacher>(source, TeacherOptions{.top = config.teacher_top, .threads = static_cast<int>(config.threads), .cache = config.teacher_cache,
                                                               .rows = str(corpus.fingerprint, ", seed ", config.seed, other ? str(", ", config.other_share, " of ", other->fingerprint) : ""), .row_tokens = config.sequence_length});
    say_cache(config, *teacher);
  }
  const auto seen = [&](size_t stage, int64_t step, nn::Transformer& network) {
    stepped = true;
    if (options.after_step) options.after_step(stage, step, network);
  };
  return run_stages({.config = config, .run = options.run, .student = student, .teacher = teacher.get(), .corpus = corpus, .other = other ? &*other : nullptr, .identity = other ? identity + " beside " + other->fingerprint : identity, .stop = options.stop, .after_step = seen});
}

// Nothing, or what a run leaves that was killed before its configuration was written.
bool never_began(const std::string& run) {
  const std::filesystem::directory_iterator entries(run);
  return std::all_of(begin(entries), end(entries), [](const auto& entry) {
    const std::string name = entry.path().filename().string();
    return name == ".lock" || name.starts_with(".config.json.tmp-");
  });
}

}  // namespace

TuneConfig config_of_run(const std::string& run) {
  if (!exists(config_path(run))) throw UserError({run, "", exists(run) ? "a folder without config.json" : "no such folder", "the folder of a run", "start one with: fathom tune MODEL --out " + run});
  return TuneConfig::from_json(read_json(config_path(run)), config_path(run));
}

Json tune(const TuneConfig& config, const RunOptions& options) {
  const std::string& run = options.run;
  require_sane(config, config_path(run));
  bool stepped = options.resume;
  if (options.resume) {
    const FileLock lock = train::lock_run(run);
    if (exists(summary_path(run))) {
      log_info(run, " is finished");
      return read_json(summary_path(run));
    }
    return go(config, options, stepped);
  }
  if (exists(run) && !(is_folder(run) && never_began(run)))
    throw UserError({run, "", exists(config_path(run)) ? "the folder of another run" : "an existing path", "a new folder",
                     exists(config_path(run)) ? "go on with it by --resume, or choose another name" : data::is_dataset(join_path(run, "data")) ? "the text that is prepared there is --data " + join_path(run, "data") : "choose another name"});
  const bool made = !exists(run);
  make_folders(run);
  const FileLock lock = train::lock_run(run);
  train::clean_leftovers(run);
  try {
    atomic_write(config_path(run), config.to_json().dump(2) + "\n");
    return go(config, options, stepped);
  } catch (const Interrupted&) {
    throw;
  } catch (...) {
    // As it was before, so that the corrected command can be given as it is. Text that was prepared may have taken hours: it stays, and is named.
    if (stepped) throw;
    for (const std::string& name : {"config.json", ".lock"}) remove_all(join_path(run, name));
    for (size_t i = 0; i < config.stages.size(); ++i) remove_all(join_path(run, str(i + 1, "-", name_of(config.stages[i].what, kWhatNames))));
    const std::string data = join_path(run, "data");
    if (data::is_dataset(data)) log_warning("the text is prepared and stays: tune on it by --data ", data);
    else if (exists(self_path(run))) log_warning("what the teacher wrote stays: tune on it by --data ", self_path(run));
    else if (made) remove_all(run);
    throw;
  }
}

std::string describe_summary(const Json& summary) {
  std::string out;
  for (const Json& stage : summary.at("stages")) {
    const double teacher = stage.contains("teacher_loss") ? stage.at("teacher_loss").get<double>() : std::nan("");
    out += str("stage ", stage.at("what").get<std::string>(), ": ", human_count(stage.at("tokens").get<double>()), " tokens in ", human_duration(stage.at("seconds").get<double>()), "\n");
    for (const Json& s : stage.at("standings")) {
      out += "  " + (s.at("dial").get<double>() < 1 ? str("at MODEL's thresholds for ", percent(s.at("dial").get<double>(), 0), ": ") : "");
      out += str(percent(s.at("block_fraction").get<double>()), " of the blocks, loss ", fixed(s.at("loss").get<double>(), 4));
      if (!std::isnan(teacher)) out += str(", ", fixed(s.at("loss").get<double>() - teacher, 4), " over the teacher; ", percent(s.at("agreement").get<double>()), " of likeliest tokens agree");
      out += "\n";
    }
  }
  if (const Json& dial = summary.at("dial"); dial.is_object()) {
    out += "the model as it was written, on held-out text:\n";
    const bool twin = summary.contains("dense_loss");
    const double against = twin ? summary.at("dense_loss").get<double>() : dial.at("points").back().at("loss").get<double>();
    for (const Json& p : dial.at("points")) {
      const double at = p.at("dial").get<double>(), loss = p.at("loss").get<double>();
      out += str("  dial ", fixed(at, 2), ": ", percent(p.at("block_fraction").get<double>()), " of the blocks, loss ", fixed(loss, 4));
      if (twin || at < 1) out += str(", ", loss < against ? "" : "+", fixed(loss - against, 4), twin ? " over the dense model" : " over dial 1");
      out += "\n";
    }
  }
  if (summary.contains("dense_bytes")) out += str("weights   ", human_bytes(summary.at("bytes").get<double>()), ", the dense model's ", human_bytes(summary.at("dense_bytes").get<double>()), "; what a dial is worth in speed: fathom dial MODEL --data TEXT --against SOURCE\n");
  out += str("model     ", summary.at("model").get<std::string>(), "\n");
  if (!summary.at("artifact").get<std::string>().empty()) out += str("artifact  ", summary.at("artifact").get<std::string>(), " (laid over the source by: fathom convert SOURCE OUT --from …)\n");
  return out;
}

}  // namespace fathom::tune
