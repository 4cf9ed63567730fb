#include "train/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "core/limits.h"
#include "core/log.h"
#include "formats/safetensors.h"
#include "nn/matmul.h"

namespace fathom::train {
namespace {

namespace fs = std::filesystem;

std::string folder_of(const std::string& run) {
  const std::string folder = join_path(run, "checkpoints");
  if (exists(folder) && !is_folder(folder)) throw UserError({folder, "", "a file", "the folder of the run's checkpoints", "move it away"});
  return folder;
}
std::string state_path(const std::string& path) { return join_path(path, "state.safetensors"); }

std::string hash_file(const std::string& path) {
  const MappedFile map(path);
  Hasher hasher;
  hasher.update(map.bytes().data(), map.bytes().size());
  return hasher.hex();
}

// The tensors of a checkpoint in their order: parameters, moments, quantiles.
struct Entry {
  std::string name;
  at::Tensor tensor;  // f32, contiguous
};

std::vector<Entry> entries_of(const AdamW& optimizer) {
  std::vector<Entry> out;
  const auto& parameters = optimizer.parameters();
  const auto& moments = optimizer.moments();
  for (const nn::Parameter& p : parameters) out.push_back({"weight." + p.name, p.tensor.detach()});
  for (size_t i = 0; i < parameters.size(); ++i) {
    out.push_back({"adam.first." + parameters[i].name, moments[i].first});
    out.push_back({"adam.second." + parameters[i].name, moments[i].second});
    out.push_back({"adam.steps." + parameters[i].name, moments[i].steps});
  }
  return out;
}

std::span<const std::byte> bytes_of(const void* data, size_t count) { return {static_cast<const std::byte*>(data), count}; }

void write_state(const std::string& path, const Checkpoint& checkpoint, const AdamW& optimizer) {
  std::vector<formats::TensorEntry> table;
  const std::vector<Entry> entries = entries_of(optimizer);
  for (const Entry& e : entries) {
    FATHOM_ASSERT(e.tensor.scalar_type() == at::kFloat && e.tensor.is_contiguous(), e.name);
    table.push_back({e.name, formats::Dtype::F32, e.tensor.sizes().vec()});
  }
  const auto& [raw, decision, updates] = checkpoint.quantiles;
  table.push_back({"quantile.raw", formats::Dtype::F32, {static_cast<int64_t>(raw.size())}});
  table.push_back({"quantile.decision", formats::Dtype::F32, {static_cast<int64_t>(decision.size())}});
  formats::SafetensorsWriter writer(path, table);
  for (const Entry& e : entries) writer.append(bytes_of(e.tensor.const_data_ptr<float>(), static_cast<size_t>(e.tensor.numel()) * 4));
  for (const std::vector<float>* q : {&raw, &decision})
    if (!q->empty()) writer.append(bytes_of(q->data(), q->size() * 4));
  writer.commit();
}

Json optional(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json progression_json(const Progression& p) {
  return {{"step", p.step}, {"total", p.total}, {"tokens", p.tokens}, {"flops", p.flops}, {"seconds", p.seconds},
          {"loader", p.loader.to_json()}, {"skipped_in_a_row", p.skipped_in_a_row}, {"loss_sum", p.loss_sum}, {"loss_count", p.loss_count},
          {"validation_loss", optional(p.validation_loss)}, {"best_loss", optional(p.best_loss)}, {"best_step", p.best_step}};
}

std::optional<double> read_optional(const Fields& f, const std::string& key) {
  if (!f.has(key)) return {};
  return f.number(key, -1e30, 1e30);
}

Progression read_progression(const Fields& f) {
  Progression p;
  p.total = f.integer("total", 1, limits::kSteps);
  p.step = f.integer("step", 1, p.total);
  p.tokens = f.integer("tokens", 0, limits::kTrainTokens);
  p.flops = f.number("flops", 0, limits::kTrainFlops);
  p.seconds = f.number("seconds", 0, 1e18);
  p.loader = LoaderState::from_json(f.object("loader"));
  p.skipped_in_a_row = f.integer("skipped_in_a_row", 0, limits::kSteps);
  p.loss_sum = f.number("loss_sum", -1e30, 1e30);
  p.loss_count = f.integer("loss_count", 0, limits::kSteps);
  p.validation_loss = read_optional(f, "validation_loss");
  p.best_loss = read_optional(f, "best_loss");
  p.best_step = f.integer("best_step", 0, limits::kSteps);
  f.done();
  return p;
}

Json identity_json(const Identity& i) {
  return {{"config", i.config}, {"tokenizer", i.tokenizer}, {"dataset", i.dataset}, {"precision", i.precision},
          {"f32_route", i.f32_route}, {"threads", i.threads}, {"machine", i.machine}};
}

Identity read_identity(const Fields& f) {
  Identity i;
  i.config = f.raw("config");
  i.tokenizer = f.string("tokenizer");
  i.dataset = f.string("dataset");
  i.precision = nn::name_of(f.choice<nn::Compute>("precision", {{"f32", nn::Compute::f32}, {"bf16", nn::Compute::bf16}}));
  i.f32_route = nn::name_of(f.choice<nn::F32Route>("f32_route", {{"mkl", nn::F32Route::mkl}, {"onednn", nn::F32Route::onednn}}));
  i.threads = f.integer("threads", 1, limits::kThreads);
  i.machine = f.string("machine");
  f.done();
  return i;
}

// A tensor of the checkpoint as a view, checked against what the network has.
at::Tensor view(const formats::SafetensorsFile& file, const std::string& name, const std::vector<int64_t>& shape) {
  const formats::TensorView& t = file.at(name);
  const std::span<const float> values = t.f32_view();
  if (t.dtype != formats::Dtype::F32 || t.shape != shape || static_cast<int64_t>(values.size()) != t.elements())
    throw UserError({file.where(), name, str(formats::dtype_name(t.dtype), " of another shape"), "F32 in the shape of the run's model", ""});
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat);
}

std::vector<float> read_quantile(const formats::SafetensorsFile& file, const std::string& name, size_t routed_blocks) {
  const formats::TensorView& t = file.at(name);
  if (t.dtype != formats::Dtype::F32 || t.shape != std::vector<int64_t>{static_cast<int64_t>(routed_blocks)})
    throw UserError({file.where(), name, str(t.elements(), " of ", formats::dtype_name(t.dtype)),
                     str("a list of F32, one per routed block: ", routed_blocks), "resume from an earlier checkpoint: remove this one"});
  return t.to_f32();
}

void check_hash(const std::string& path) {
  const Json json = read_json(join_path(path, "checkpoint.json"));
  const std::string expected = Fields(json, join_path(path, "checkpoint.json")).string("state_hash");
  const std::string found = hash_file(state_path(path));
  if (found != expected)
    throw UserError({state_path(path), "hash", found, str(expected, ", as checkpoint.json says"),
                     "the file is damaged; remove the folder to resume from an earlier checkpoint"});
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%09lld", static_cast<long long>(step));
  return name;
}

void save_checkpoint(const std::string& run, const Checkpoint& checkpoint, const AdamW& optimizer) {
  make_folders(folder_of(run));
  const std::string path = join_path(folder_of(run), checkpoint_name(checkpoint.progression.step));
  if (exists(path)) return;
  atomic_folder(path, [&](const std::string& folder) {
    write_state(state_path(folder), checkpoint, optimizer);
    const Json json = {{"version", kCheckpointVersion},
                       {"progression", progression_json(checkpoint.progression)},
                       {"identity", identity_json(checkpoint.identity)},
                       {"quantile_updates", checkpoint.quantiles.updates},
                       {"state_hash", hash_file(state_path(folder))}};
    atomic_write(join_path(folder, "checkpoint.json"), json.dump(2) + "\n");
  });
}

std::vector<Found> find_checkpoints(const std::string& run) {
  std::vector<Found> out;
  if (!exists(folder_of(run))) return out;
  for (const std::string& name : list_folder(folder_of(run))) {
    if (!name.starts_with("step-")) continue;
    const std::string path = join_path(folder_of(run), name);
    const Progression p = read_checkpoint(path).progression;
    if (checkpoint_name(p.step) != name)
      throw UserError({join_path(path, "checkpoint.json"), "progression.step", str(p.step), "the step that the folder's name says", ""});
    out.push_back({path, p.step, p.validation_loss});
  }
  std::sort(out.begin(), out.end(), [](const Found& a, const Found& b) { return a.step < b.step; });
  return out;
}

Checkpoint read_checkpoint(const std::string& path) {
  const std::string file = join_path(path, "checkpoint.json");
  const Json json = read_json(file);
  const Fields f(json, file);
  const int64_t version = f.integer("version", 0, INT32_MAX);
  if (version != kCheckpointVersion)
    f.wrong("version", str(version), str(kCheckpointVersion), "the checkpoint was written by another version of the program");
  Checkpoint c;
  c.progression = read_progression(f.object("progression"));
  c.identity = read_identity(f.object("identity"));
  c.quantiles.updates = f.integer("quantile_updates", 0, limits::kSteps);
  f.string("state_hash");
  f.done();
  return c;
}

void load_tensors(const std::string& path, Checkpoint& checkpoint, AdamW& optimizer, size_t routed_blocks) {
  check_hash(path);
  const at::NoGradGuard no_grad;
  const formats::SafetensorsFile file(state_path(path));
  for (const Entry& e : entries_of(optimizer)) {
    at::Tensor target = e.tensor;
    target.copy_(view(file, e.name, target.sizes().vec()));
  }
  checkpoint.quantiles.raw = read_quantile(file, "quantile.raw", routed_blocks);
  checkpoint.quantiles.decision = read_quantile(file, "quantile.decision", routed_blocks);
}

void load_weights(const std::string& path, nn::Transformer& network) {
  check_hash(path);
  const at::NoGradGuard no_grad;
  const formats::SafetensorsFile file(state_path(path));
  for (const nn::Parameter& p : network.parameters()) {
    at::Tensor target = p.tensor.detach();
    target.copy_(view(file, "weight." + p.name, target.sizes().vec()));
  }
}

void prune_checkpoints(const std::string& run, int64_t keep) {
  const std::vector<Found> all = find_checkpoints(run);
  const Found* best = nullptr;
  for (const Found& f : all)
    if (f.validation_loss && (!best || *f.validation_loss < *best->validation_loss)) best = &f;
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) {
    if (&all[i] == best) continue;
    // Renamed first: a folder that is removed file by file would look like a checkpoint when the process is killed.
    const fs::path path(all[i].path);
    const fs::path hidden = path.parent_path() / ("." + path.filename().string() + ".tmp-removed");
    remove_all(hidden.string());
    std::error_code error;
    fs::rename(path, hidden, error);
    if (error) throw UserError({path.string(), "", "cannot remove: " + error.message(), "", ""});
    remove_all(hidden.string());
  }
}

void require_same_data(const Identity& trained, const Corpus& corpus, const std::string& where, const std::string& whose) {
  const auto hold = [&](const char* field, const std::string& found, const std::string& expected) {
    if (found != expected)
      throw UserError({where, field, found, expected + ", as in " + whose, "the data was prepared anew: put the old back, or start a new run"});
  };
  hold("tokenizer", corpus.tokenizer.identity(), trained.tokenizer);
  hold("dataset", corpus.fingerprint, trained.dataset);
}

void clean_leftovers(const std::string& run) {
  // `.NAME.tmp-PID-N` (core/file) and `.NAME.tmp-removed` (above) of what a run writes; anything else hidden is not ours.
  const auto ours = [](const std::string& name) {
    const size_t mark = name.rfind(".tmp-");
    if (!name.starts_with(".") || mark == std::string::npos) return false;
    const std::string of = name.substr(1, mark - 1), tail = name.substr(mark + 5);
    const auto& written = {"config.json", "metrics.jsonl", "model", "summary.json", "tokenizer.json"};
    return (of.starts_with("step-") || std::find(written.begin(), written.end(), of) != written.end()) &&
           (tail == "removed" || tail.find_first_not_of("0123456789-") == std::string::npos);
  };
  for (const std::string& folder : {run, folder_of(run)}) {
    if (!exists(folder)) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder))
      if (ours(entry.path().filename().string())) remove_all(entry.path().string());
  }
}

FileLock lock_run(const std::string& run) {
  return {join_path(run, ".lock"), UserError({run, "", "another process works in this run folder", "one at a time", "wait for it or choose another folder"})};
}

}  // namespace fathom::train
