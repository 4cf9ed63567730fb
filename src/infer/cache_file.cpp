#include "infer/cache_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <utility>

#include "core/file.h"
#include "core/human.h"
#include "core/limits.h"
#include "infer/job.h"

namespace fathom::infer {
namespace {

static_assert(std::endian::native == std::endian::little, "the file's numbers are little-endian");

constexpr char kMagic[8] = {'F', 'A', 'T', 'H', 'O', 'M', 'K', 'V'};
constexpr uint32_t kVersion = 2, kFirstVersion = 1;  // 1: codes of q8_0 lay in another order; all else is the same
constexpr int64_t kFront = 16, kChecksum = 32, kAlignment = 64;  // magic, version, size of the header; hexadecimal digits; of the pages

int64_t up(int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }
int64_t pages_of(int64_t slots) { return (slots + kPagePositions - 1) / kPagePositions; }

const std::vector<std::pair<const char*, Rule>> kRules = {{"causal", Rule::causal}, {"random", Rule::random}};

// Of the parts behind the header, one after the other.
struct Sizes {
  int64_t ids, run, score, thresholds, pages;
  int64_t before_pages() const { return ids + run + score + thresholds; }
};

Sizes sizes_of(int64_t tokens, int64_t position, int64_t units, int64_t cuts, int64_t causal, std::span<const int64_t> lengths, int64_t page_bytes) {
  int64_t pages = 0;
  for (const int64_t length : lengths) pages += pages_of(length);
  return {tokens * 4, position * units, position * units * 4, causal * cuts * 4, pages * page_bytes};
}

// Writes and hashes.
class Writer {
 public:
  explicit Writer(const std::string& path) : file_(path) {}
  void add(const void* bytes, int64_t count) {
    if (count == 0) return;
    file_.write(bytes, static_cast<size_t>(count));
    hash_.update(bytes, static_cast<size_t>(count));
  }
  template <class T>
  void add(const std::vector<T>& values) {
    add(values.data(), std::ssize(values) * static_cast<int64_t>(sizeof(T)));
  }
  void align() {
    const char zeros[kAlignment] = {};
    add(zeros, up(file_.size()) - file_.size());
  }
  void finish() {
    file_.write(hash_.hex());
    file_.commit();
  }

 private:
  AtomicFile file_;
  Hasher hash_;
};

// Takes the parts of a file whose size is known to be right.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  std::vector<T> take(int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    const auto size = values.size() * sizeof(T);
    if (size > 0) std::memcpy(values.data(), bytes_.data() + at_, size);
    at_ += size;
    return values;
  }
  const std::byte* next(int64_t count) { return bytes_.data() + std::exchange(at_, at_ + static_cast<size_t>(count)); }
  void align() { at_ = static_cast<size_t>(up(static_cast<int64_t>(at_))); }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

bool is_cache_file(const std::string& path) {
  const MappedFile file(path);
  return file.bytes().size() >= sizeof kMagic && std::memcmp(file.bytes().data(), kMagic, sizeof kMagic) == 0;
}

Json header_of(const std::string& model, const kernels::KvPage& layout, const CachedText& text) {
  const Sequence& sequence = text.read.sequence;
  Json lengths = Json::array(), policies = Json::array();
  for (int64_t block = 0; block < sequence.blocks(); ++block) lengths.push_back(sequence.length(block));
  for (const PolicyFrom& part : text.policies) {
    FATHOM_ASSERT(part.policy.rule == Rule::causal || part.policy.rule == Rule::random, "a policy that looks ahead");
    Json j = {{"position", part.position}, {"rule", name_of(part.policy.rule, kRules)}};
    if (part.policy.rule == Rule::random) j["capacity"] = part.policy.capacity, j["seed"] = part.policy.seed;
    policies.push_back(j);
  }
  return {{"model", model}, {"kv_type", name_of(layout.type, kKvTypeNames)}, {"kv_heads", layout.kv_heads}, {"head_dim", layout.head_dim},
          {"tokens", text.ids.size()}, {"position", sequence.position()}, {"lengths", lengths}, {"units", text.read.decisions.run.size()},
          {"policies", policies}, {"note", text.note}};
}

}  // namespace

void save_cache(const std::string& path, const std::string& model, const Engine& engine, const CachedText& text) {
  const Sequence& sequence = text.read.sequence;
  const kernels::KvPage& layout = engine.pool().layout();
  if (exists(path) && (is_folder(path) || !is_cache_file(path)))
    throw UserError({path, "", is_folder(path) ? "a folder" : "a file that is no saved cache", "a new name, or a saved cache to replace", ""});
  const std::string header = header_of(model, layout, text).dump(-1, ' ', false, Json::error_handler_t::replace);
  if (std::ssize(header) > limits::kCacheHeaderBytes)
    throw UserError({path, "", str("a header of ", header.size(), " bytes"), str("at most ", limits::kCacheHeaderBytes), "the conversation is too long to be saved"});

  Writer file(path);
  const uint32_t front[2] = {kVersion, static_cast<uint32_t>(header.size())};
  file.add(kMagic, sizeof kMagic);
  file.add(front, sizeof front);
  file.add(header.data(), std::ssize(header));
  file.align();
  file.add(text.ids);
  for (const auto& run : text.read.decisions.run) file.add(run);
  for (const auto& score : text.read.decisions.score) file.add(score);
  for (const PolicyFrom& part : text.policies)
    if (part.policy.rule == Rule::causal) file.add(part.policy.thresholds);
  file.align();
  std::vector<uint8_t> page(static_cast<size_t>(layout.bytes()));
  for (int64_t block = 0; block < sequence.blocks(); ++block)
    for (int64_t index = 0; index < pages_of(sequence.length(block)); ++index) {
      std::copy_n(sequence.page(block, static_cast<size_t>(index)), page.size(), page.data());
      // What lies behind the last slot is somebody else's, or nobody's.
      kernels::clear_slots(layout, std::min(kPagePositions, sequence.length(block) - index * kPagePositions), page.data());
      file.add(page);
    }
  file.finish();
}

CachedText load_cache(const std::string& path, const std::string& model, Engine& engine, const std::function<void()>& sound) {
  const model::ModelConfig& config = engine.config();
  const kernels::KvPage& layout = engine.pool().layout();
  const auto refuse = [&](const std::string& field, const std::string& found, const std::string& expected, const Hint& hint = {}) {
    throw UserError({path, field, found, expected, hint});
  };
  const MappedFile map(path);
  const std::span<const std::byte> bytes = map.bytes();
  const int64_t size = std::ssize(bytes);
  if (size < static_cast<int64_t>(sizeof kMagic) || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0)
    refuse("", "no saved cache", "a file that begins with FATHOMKV", {"", Setting::save, " writes one"});
  const std::string damaged = "save it again: the file is damaged";
  if (size < kFront + kChecksum) refuse("", str(size, " bytes"), str("at least ", kFront + kChecksum), damaged);
  uint32_t front[2];
  std::memcpy(front, bytes.data() + sizeof kMagic, sizeof front);
  if (front[0] < kFirstVersion || front[0] > kVersion) refuse("version", str(front[0]), str(kFirstVersion, " or ", kVersion), "it was written by a later version of fathom: use that, or read the conversation again");
  const int64_t header_bytes = front[1];
  if (header_bytes > limits::kCacheHeaderBytes) refuse("header", str(header_bytes, " bytes"), str("at most ", limits::kCacheHeaderBytes), damaged);
  if (kFront + header_bytes + kChecksum > size) refuse("header", str(header_bytes, " bytes"), str("at most ", size - kFront - kChecksum, ", the file's"), damaged);
  const auto text_at = [&](int64_t at, int64_t count) { return std::string_view(reinterpret_cast<const char*>(bytes.data()) + at, static_cast<size_t>(count)); };
  if (hash_bytes(text_at(0, size - kChecksum)) != text_at(size - kChecksum, kChecksum)) refuse("checksum", "another", "that of the bytes before it", damaged);

  const Json header = parse_json(text_at(kFront, header_bytes), path, {.max_bytes = limits::kCacheHeaderBytes});
  const Fields f(header, path);
  const std::string type = f.string("kv_type"), engine_type = name_of(layout.type, kKvTypeNames);
  if (f.string("model") != model) refuse("model", "another model or tokenizer", "the one that is open", "it was saved with another, or the model's files have changed since");
  if (type != engine_type)
    refuse("kv_type", printable(type), engine_type, std::ranges::any_of(kKvTypeNames, [&](const auto& t) { return type == t.first; }) ? Hint("give ", Setting::kv_type, " " + type) : Hint(damaged));
  if (front[0] == 1 && layout.type == KvType::q8_0) refuse("version", "1", "2 for kv_type q8_0", "its keys and values lie in another order now: read the conversation again");
  f.integer("kv_heads", layout.kv_heads, layout.kv_heads);
  f.integer("head_dim", layout.head_dim, layout.head_dim);
  const auto units = std::ssize(config.routing.units), cuts = static_cast<int64_t>(config.routing.cuts());
  f.integer("units", units, units);
  const int64_t tokens = f.integer("tokens", 0, config.max_position_embeddings), position = f.integer("position", 0, tokens);
  const std::vector<int64_t> lengths = f.integers("lengths", 0, position);
  if (std::ssize(lengths) != config.num_hidden_layers) f.wrong("lengths", str(lengths.size(), " numbers"), str(config.num_hidden_layers, ", one per block"));
  Json note = f.raw("note");  // before the sequence is there: GCC 12 destroys a member twice when a later one throws
  CachedText out{.ids = {}, .policies = {}, .read = {.sequence = engine.new_sequence(), .decisions = {}}, .note = std::move(note)};

  const Json& policies = f.raw("policies");
  if (!policies.is_array() || (std::ssize(policies) > tokens) || (policies.empty() && tokens > 0))
    f.wrong("policies", describe(policies), str("an array of 1 to ", tokens));
  int64_t causal = 0;
  for (size_t i = 0; i < policies.size(); ++i) {
    const Fields p(policies[i], path, str("policies[", i, "]"));
    const int64_t least = i == 0 ? 0 : out.policies.back().position + 1;
    PolicyFrom part{.position = p.integer("position", least, i == 0 ? 0 : tokens), .policy = {}};
    part.policy.rule = p.choice<Rule>("rule", kRules);
    if (part.policy.rule == Rule::random) {
      part.policy.capacity = p.numbers("capacity", 0, 1);
      if (std::ssize(part.policy.capacity) != cuts) p.wrong("capacity", str(part.policy.capacity.size(), " numbers"), str(cuts));
      if (const Json& seed = p.raw("seed"); seed.is_number_unsigned()) part.policy.seed = seed.get<uint64_t>();
      else p.wrong("seed", describe(seed), "a whole number");
    }
    causal += part.policy.rule == Rule::causal;
    p.done();
    out.policies.push_back(std::move(part));
  }
  f.done();

  const Sizes sizes = sizes_of(tokens, position, units, cuts, causal, lengths, layout.bytes());
  const int64_t begin = up(kFront + header_bytes), expected = up(begin + sizes.before_pages()) + sizes.pages + kChecksum;
  if (size != expected) refuse("", str(size, " bytes"), str(expected, ", by its header"), damaged);
  Reader reader(bytes);
  reader.next(begin);
  out.ids = reader.take<int32_t>(tokens);
  for (const int32_t id : out.ids)
    if (id < 0 || id >= config.vocab_size) refuse("tokens", str("id ", id), str("0 to ", config.vocab_size - 1), damaged);
  for (int64_t u = 0; u < units; ++u) {
    out.read.decisions.run.push_back(reader.take<uint8_t>(position));
    if (std::ranges::any_of(out.read.decisions.run.back(), [](uint8_t path) { return path > static_cast<uint8_t>(routing::Path::light); }))
      refuse("decisions", "a byte above 2", "0, 1 or 2", damaged);
  }
  for (int64_t u = 0; u < units; ++u) out.read.decisions.score.push_back(reader.take<float>(position));
  for (PolicyFrom& part : out.policies)
    if (part.policy.rule == Rule::causal) part.policy.thresholds = reader.take<float>(cuts);
  if (slots_at(out.read.decisions, position, config) != lengths) refuse("lengths", "others", "as many slots as tokens ran each block", damaged);
  reader.align();
  if (sizes.pages > engine.pool().byte_limit())
    refuse("", "keys and values of " + human_bytes(static_cast<double>(sizes.pages)), "at most the limit of " + human_bytes(static_cast<double>(engine.pool().byte_limit())),
           {"give ", Setting::kv_memory, str(" ", sizes.pages, " or more")});
  if (sound) sound();
  out.read.sequence.restore(position, lengths, [&](int64_t, size_t, uint8_t* page) { std::memcpy(page, reader.next(layout.bytes()), static_cast<size_t>(layout.bytes())); });
  return out;
}

}  // namespace fathom::infer
