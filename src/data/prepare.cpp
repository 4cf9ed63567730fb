#include "data/prepare.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "core/limits.h"
#include "core/log.h"
#include "core/thread_pool.h"
#include "core/work_folder.h"

namespace fathom::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgress = ".progress.json";  // hidden: no reader of a dataset looks at it
constexpr const char* kLock = ".lock";

const std::vector<std::pair<const char*, SplitMode>> kSplitModes = {
    {"automatic", SplitMode::automatic}, {"hash", SplitMode::by_hash}, {"tail", SplitMode::by_tail}, {"none", SplitMode::none}};

fs::path plain(const std::string& folder) {
  const fs::path p = fs::path(folder).lexically_normal();
  return p.filename().empty() ? p.parent_path() : p;  // "out/"
}

// One preparation: what it was asked for, and what is done.
class Preparation {
 public:
  Preparation(const std::vector<std::string>& inputs, const std::string& folder, const text::Tokenizer& tokenizer, const PrepareOptions& options)
      : folder_(plain(folder).string()), work_(partial_path(folder_)), tokenizer_(tokenizer), options_(options), sources_(find_sources(inputs)) {
    if (exists(folder_)) throw UserError({folder_, "", "an existing path", "a new folder", "choose another name or remove it"});
    const bool split = options.split != SplitMode::none && !(options.split == SplitMode::automatic && options.validation_share == 0);
    if (split && !(options.validation_share > 0 && options.validation_share < 1))
      throw UserError({"validation share", "", str(options.validation_share), "more than 0 and less than 1", "or no split at all"});
    FATHOM_ASSERT(options.shard_tokens >= 1 && options.shard_tokens <= limits::kShardOption, options.shard_tokens);
    mode_ = !split ? SplitMode::none : options.split == SplitMode::automatic ? choose_split() : options.split;
    describe_run();
  }

  PrepareResult run() {
    make_folders(work_);
    // A killed run may take a moment to go: wait up to two seconds.
    const FileLock lock(join_path(work_, kLock), UserError({folder_, "", "another run that prepares it now", "none", "wait for it or end it"}), std::chrono::seconds(2));
    result_.resumed = load_progress();
    clean_work_folder();
    if (!result_.resumed) save_progress({});

    DocumentStream stream(sources_, options_.documents);
    stream.skip_to(start_);
    ThreadPool pool(options_.threads);
    ShardWriter train(manifest_.vocab_size, manifest_.tokenizer_identity), validation(manifest_.vocab_size, manifest_.tokenizer_identity);
    std::vector<Item> batch;
    while (fill(batch, stream)) {
      pool.parallel_for(static_cast<int64_t>(batch.size()), [&](int64_t i) { encode(batch[static_cast<size_t>(i)]); });
      for (Item& item : batch) {
        const bool tail_follows = &item != &batch.back() && (&item + 1)->after == item.after;
        (item.split == Split::train ? train : validation).add(item.tokens, static_cast<int64_t>(item.text.size()));
        if (train.tokens() + validation.tokens() >= options_.shard_tokens && !tail_follows) close_shards(train, validation, item.after);
      }
      if (options_.progress) options_.progress(stream.bytes_read(), stream.total_bytes(), done_tokens_ + train.tokens() + validation.tokens());
    }
    if (train.tokens() + validation.tokens() > 0) close_shards(train, validation, stream.position());
    result_.counts = stream.counts();
    finish();
    return std::move(result_);
  }

 private:
  struct Item {
    std::string text;
    bool conversation = false;
    Split split = Split::train;
    DocumentStream::Position after;  // of the stream behind this document
    std::vector<int32_t> tokens;
  };

  SplitMode choose_split() const {
    require_files(sources_, "whether documents are many or few is counted before they are read", "choose the split (hash, tail or none), or write a file first");
    DocumentStream stream(sources_, options_.documents);
    std::string text;
    for (double wanted = 5 / options_.validation_share; wanted > 0; --wanted)
      if (!stream.next(text)) return SplitMode::by_tail;
    return SplitMode::by_hash;
  }

  // The manifest's fixed part, and the fingerprint by which an interrupted run knows itself.
  void describe_run() {
    manifest_.tokenizer_identity = tokenizer_.identity();
    manifest_.vocab_size = tokenizer_.vocab_size();
    if (options_.add_bos) manifest_.bos_id = tokenizer_.bos_id();
    if (options_.add_eos) manifest_.eos_id = tokenizer_.eos_id();
    Json files = Json::array();
    for (const SourceFile& s : sources_) {
      files.push_back({s.path, s.bytes, s.modified});
      if (manifest_.sources.size() < static_cast<size_t>(limits::kManifestSources)) manifest_.sources.push_back({s.name, s.bytes});
      manifest_.source_bytes += s.bytes;
    }
    manifest_.source_count = static_cast<int64_t>(sources_.size());
    manifest_.options = {{"field", options_.documents.field},
                         {"chat_template", options_.documents.conversations ? hash_bytes(options_.documents.conversations->source) : ""},
                         {"separator", options_.documents.separator},
                         {"repair_utf8", options_.documents.invalid_utf8 == InvalidUtf8::repair},
                         {"split", name_of(mode_, kSplitModes)},
                         {"validation_share", mode_ == SplitMode::none ? 0.0 : options_.validation_share},
                         {"shard_tokens", options_.shard_tokens}};
    fingerprint_ = hash_bytes(Json{manifest_.to_json(), files}.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  bool load_progress() {
    const std::string path = join_path(work_, kProgress);
    if (options_.restart || !exists(path)) return false;
    const Json json = read_json(path, {.max_bytes = limits::kManifestBytes});
    const Fields f(json, path);
    if (f.string("fingerprint") != fingerprint_)
      throw UserError({work_, "", "an interrupted preparation of other data, options or tokenizer", "the same as now",
                       "repeat its command, or start over with --restart"});
    start_ = {f.integer("file", 0, static_cast<int64_t>(sources_.size())), f.integer("document", 0, INT64_MAX)};
    shard_ = f.integer("shard", 0, limits::kShards);
    const Manifest done = Manifest::from_json(f.raw("manifest"), path);
    manifest_.train = done.train;
    manifest_.validation = done.validation;
    for (const auto* shards : {&manifest_.train, &manifest_.validation})
      for (const ShardInfo& s : *shards) {
        const ShardFile file(join_path(work_, s.file));
        if (file_size(file.path()) != s.file_bytes)
          throw UserError({file.path(), "size", str(file_size(file.path()), " bytes"), str(s.file_bytes), "start over with --restart"});
        done_tokens_ += s.tokens;
      }
    return shard_ > 0;
  }

  void save_progress(DocumentStream::Position position) {
    const Json json = {{"fingerprint", fingerprint_}, {"file", position.file}, {"document", position.document},
                       {"shard", shard_}, {"manifest", manifest_.to_json()}};
    atomic_write(join_path(work_, kProgress), json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  // What a killed run left half-written, and what a restarted one no longer wants.
  void clean_work_folder() {
    std::set<std::string> keep = {kLock};
    if (result_.resumed) keep.insert(kProgress);
    if (result_.resumed)
      for (const auto* shards : {&manifest_.train, &manifest_.validation})
        for (const ShardInfo& s : *shards) keep.insert(s.file);
    std::vector<std::string> others;
    for (const auto& entry : fs::directory_iterator(work_))
      if (!keep.count(entry.path().filename().string())) others.push_back(entry.path().string());
    for (const std::string& path : others) remove_all(path);
  }

  bool fill(std::vector<Item>& batch, DocumentStream& stream) {
    batch.clear();
    int64_t bytes = 0;
    std::string text;
    while (bytes < options_.batch_bytes && stream.next(text)) {
      bytes += static_cast<int64_t>(text.size());
      const auto after = stream.position();
      const bool conversation = stream.is_conversation();
      if (mode_ == SplitMode::by_tail && !conversation) {
        const size_t cut = split_tail(text, options_.validation_share);
        batch.push_back({text.substr(0, cut), false, Split::train, after, {}});
        if (cut < text.size()) batch.push_back({text.substr(cut), false, Split::validation, after, {}});
      } else {
        const Split split = mode_ == SplitMode::none ? Split::train : split_by_hash(text, options_.validation_share);
        batch.push_back({std::move(text), conversation, split, after, {}});
        text.clear();
      }
    }
    return !batch.empty();
  }

  void encode(Item& item) const {
    if (item.conversation) return tokenizer_.encode_append(item.text, {.add_special_tokens = false, .allow_special = true}, item.tokens);
    if (manifest_.bos_id) item.tokens.push_back(*manifest_.bos_id);
    const size_t before = item.tokens.size();
    tokenizer_.encode_append(item.text, {}, item.tokens);
    if (item.tokens.size() == before) return item.tokens.clear();
    if (manifest_.eos_id) item.tokens.push_back(*manifest_.eos_id);
  }

  // Both splits close together, so that one position in the stream says where to go on.
  void close_shards(ShardWriter& train, ShardWriter& validation, DocumentStream::Position after) {
    if (shard_ == limits::kShards) throw UserError({folder_, "", str("more than ", limits::kShards, " shards"), "fewer", "raise --shard-tokens"});
    char number[16];
    std::snprintf(number, sizeof number, "-%05lld", static_cast<long long>(shard_));
    if (train.tokens() > 0) manifest_.train.push_back(train.write(work_, str("train", number, ".tokens")));
    if (validation.tokens() > 0) manifest_.validation.push_back(validation.write(work_, str("validation", number, ".tokens")));
    done_tokens_ = 0;
    for (const auto* shards : {&manifest_.train, &manifest_.validation})
      for (const ShardInfo& s : *shards) done_tokens_ += s.tokens;
    ++shard_;
    save_progress(after);
  }

  void finish() {
    for (const ShardInfo& s : manifest_.train) result_.train_tokens += s.tokens, result_.train_documents += s.documents;
    for (const ShardInfo& s : manifest_.validation) result_.validation_tokens += s.tokens, result_.validation_documents += s.documents;
    if (result_.train_tokens == 0)
      throw UserError({sources_.size() == 1 ? sources_[0].path : "the sources", "", str(result_.validation_documents, " documents, none of them for training"),
                       "text", result_.validation_documents > 0 ? "lower the validation share" : ""});
    atomic_write(join_path(work_, "tokenizer.json"), tokenizer_.json());
    atomic_write(join_path(work_, "manifest.json"), manifest_.to_json().dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
    rename_folder(work_, folder_);
    remove_all(join_path(folder_, kProgress));
    remove_all(join_path(folder_, kLock));
    result_.manifest = manifest_;

    const DocumentCounts& c = result_.counts;
    if (c.binary_files > 0) log_warning("passed over ", c.binary_files, " binary files, the first is ", c.first_binary);
    if (c.repaired > 0) log_warning("replaced ", c.repaired, " parts that were not UTF-8");
    if (result_.validation_tokens == 0 && mode_ != SplitMode::none)
      log_warning("no document fell to validation: raise the validation share above ", options_.validation_share);
  }

  std::string folder_, work_;
  const text::Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  std::vector<SourceFile> sources_;
  SplitMode mode_;
  Manifest manifest_;
  std::string fingerprint_;
  PrepareResult result_;
  DocumentStream::Position start_;
  int64_t shard_ = 0, done_tokens_ = 0;
};

}  // namespace

PrepareResult prepare(const std::vector<std::string>& inputs, const std::string& folder, const text::Tokenizer& tokenizer,
                      const PrepareOptions& options) {
  return Preparation(inputs, folder, tokenizer, options).run();
}

}  // namespace fathom::data
