#include "tune/stage.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "core/random.h"
#include "nn/memory.h"
#include "train/evaluate.h"
#include "train/schedule.h"

namespace fathom::tune {
namespace {

constexpr int64_t kSkipsBeforeStop = 10;   // steps in a row without an update, since something was not finite
constexpr double kNoiseUntil = 0.8;        // of a stage
constexpr double kAlmostAll = 0.999, kAlmostNone = 0.001;

nn::Trainable trainable(const TuneConfig& config, const StageConfig& stage) {
  nn::Trainable t;
  t.everything = stage.what == What::everything;
  t.routers = t.light = true;
  if (stage.what == What::adapters) t.lora = config.lora;
  return t;
}

double lr_of(const StageConfig& stage, const nn::Parameter& p) {
  if (p.adapter) return stage.adapter_lr;
  if (p.router) return p.matrix ? stage.router_lr : stage.bias_lr;
  return stage.lr;
}

double elements(const std::vector<nn::Parameter>& parameters) {
  double sum = 0;
  for (const nn::Parameter& p : parameters) sum += static_cast<double>(p.tensor.numel());
  return sum;
}

// Of the student's own dial; 0 for a cut that it opens or shuts for all tokens, or that was not calibrated: convert's routers have their thresholds behind
// their bias, and nothing is learned at infinity.
std::vector<float> thresholds_for(const model::ModelFolder& student, double dial) {
  const size_t cuts = student.config().routing.cuts();
  if (dial >= 1) return std::vector<float>(cuts, -std::numeric_limits<float>::infinity());
  std::vector<float> out = student.dial() ? student.dial()->thresholds(dial) : std::vector<float>(cuts, 0.0f);
  for (float& t : out)
    if (!std::isfinite(t)) t = 0;
  return out;
}

// Of the tokens of a step, those that run in full by their position in their text.
double forced_share(const std::vector<Rows::Some>& parts, int64_t positions) {
  double forced = 0, all = 0;
  for (const Rows::Some& part : parts)
    for (int64_t row = 0; row < part.batch.rows; ++row)
      for (int64_t t = 0; t < part.batch.tokens; ++t) {
        forced += t - part.batch.document_start[static_cast<size_t>(row * part.batch.tokens + t)] < positions;
        ++all;
      }
  return forced / all;
}

// Of tokens that reach each cut at that dial; the configuration's where none was calibrated.
std::vector<double> shares_for(const model::ModelFolder& student, double dial) { return student.dial() ? student.dial()->at(dial).capacity : student.config().routing.capacities(); }

// Keys whose values differ, but for those that change nothing in what is computed.
void require_same(const Json& before, const Json& now, const std::string& where) {
  Json then = TuneConfig::once();
  then.update(before);
  for (const auto& [key, value] : now.items()) {
    if (key == "interval" || key == "threads" || key == "teacher_cache" || key == "data") continue;  // threads and data are checked by what they are
    const Json was = then.value(key, Json());
    if (was != value) throw UserError({where, key, value.dump(), was.is_null() ? "what its last checkpoint has" : was.dump() + ", as in its last checkpoint", "start a new run for other settings"});
  }
}

}  // namespace

std::string stage_folder(const Shared& shared, size_t stage) { return join_path(shared.run, str(stage + 1, "-", name_of(shared.config.stages.at(stage).what, kWhatNames))); }

Stage::Stage(const Shared& shared, size_t index, const std::vector<convert::Tuned>& before)
    : shared_(shared), stage_(shared.config.stages.at(index)), folder_(stage_folder(shared, index)) {
  const TuneConfig& config = shared.config;
  make_folders(folder_);
  train::clean_leftovers(folder_);
  const std::vector<train::Found> found = train::find_checkpoints(folder_);
  std::optional<train::Checkpoint> last;
  if (!found.empty()) last = train::read_checkpoint(found.back().path);
  now_.identity.config = config.to_json();
  now_.identity.config["source"] = shared.identity;
  now_.identity.tokenizer = shared.corpus.tokenizer.identity();
  now_.identity.dataset = shared.corpus.fingerprint;
  now_.identity.threads = config.threads;
  if (last) {
    require_same(last->identity.config, now_.identity.config, shared.run);
    train::require_same_data(last->identity, shared.corpus, shared.run, "its last checkpoint");
  }
  computing_ = train::settle_computing(config.precision, config.f32_route, last ? &last->identity : nullptr, now_.identity, shared.run);

  network_ = std::make_unique<nn::Transformer>(shared.student->config(), at::kFloat, trainable(config, stage_));
  network_->load(*shared.student);
  for (const convert::Tuned& tuned : before)
    for (const auto& [name, tensor] : tuned.tensors) network_->load(name, tensor.to_f32());
  network_->init_adapters(config.seed);
  optimizer_ = std::make_unique<train::AdamW>(network_->parameters(), config.optimizer, [this](const nn::Parameter& p) { return lr_of(stage_, p); });

  for (size_t i = 0; i < index; ++i) first_row_ += config.steps(i) * config.rows_per_step();
  if (last) {
    train::Identity identity = now_.identity;
    now_ = *last;
    now_.identity = identity;
    train::load_tensors(found.back().path, now_, *optimizer_, 0);
    const int64_t rows = first_row_ + now_.progression.step * config.rows_per_step();
    if (now_.progression.total != config.steps(index) || now_.progression.loader != Rows::state_after(config, shared.corpus, rows))
      throw UserError({join_path(found.back().path, "checkpoint.json"), "progression", "another place in the run", "that of config.json and its step", "the file was changed; remove the folder to resume from an earlier checkpoint"});
    log_info("resuming stage ", index + 1, " after step ", now_.progression.step, " of ", now_.progression.total);
  } else {
    now_.progression.total = config.steps(index);
    now_.progression.loader = Rows::state_after(config, shared.corpus, first_row_);
  }
  rows_ = std::make_unique<Rows>(config, shared.corpus, shared.other, first_row_ + now_.progression.step * config.rows_per_step());
  metrics_ = std::make_unique<train::Metrics>(folder_, now_.progression.step);
  measure_ = std::make_unique<Measure>(*network_, *shared.corpus.validation, config.interval.eval_tokens, config.sequence_length, std::min<int64_t>(config.batch_size, 2), computing_.compute, shared.teacher);
}

double Stage::noise() const {
  const double done = static_cast<double>(now_.progression.step) / static_cast<double>(now_.progression.total);
  return stage_.noise * std::max(0.0, 1 - done / kNoiseUntil);
}

convert::Tuned Stage::train() {
  train::Progression& p = now_.progression;
  const TuneConfig& config = shared_.config;
  const int64_t step_tokens = config.rows_per_step() * config.sequence_length;
  log_info("stage ", name_of(stage_.what, kWhatNames), ": ", human_count(elements(network_->parameters())), " parameters to train in a model of ", human_count(elements(network_->tensors())), ", ", p.total,
           p.total == 1 ? " step of " : " steps of ", grouped(step_tokens), " tokens");
  if (p.step == 0) evaluate();
  progress_ = std::make_unique<Progress>("tune", "tokens", step_tokens * p.total, p.tokens);
  saved_at_ = Clock::now();
  logged_ = p;
  while (p.step < p.total) {
    step();
    const train::IntervalConfig& every = config.interval;
    const bool end = p.step == p.total;
    if (end || (every.eval_steps > 0 && p.step % every.eval_steps == 0)) evaluate();
    const bool stop = shared_.stop && shared_.stop();
    const bool due = (every.checkpoint_steps > 0 && p.step % every.checkpoint_steps == 0) ||
                     (every.checkpoint_seconds > 0 && std::chrono::duration<double>(Clock::now() - saved_at_).count() >= every.checkpoint_seconds);
    if (due || stop || end) save();
    if (stop && !end) {
      progress_->finish();
      throw Interrupted(str("stopped after step ", p.step, " of ", p.total, ", saved; go on with: fathom tune --resume ", shared_.run));
    }
  }
  progress_->finish();
  if (standings_.empty()) evaluate();  // a resume of a stage that had ended
  return tuned();
}

void Stage::step() {
  const Clock::time_point begin = Clock::now();
  train::Progression& p = now_.progression;
  const TuneConfig& config = shared_.config;
  const model::ModelConfig& model = network_->config();
  const bool decides = model.routing.decides();
  const double target = config.target(p.step);
  nn::ForwardOptions options;
  options.pick = decides ? nn::Pick::straight_through : nn::Pick::causal;
  options.compute = computing_.compute;
  options.loss_weight = config.loss_weight;
  options.straight_through_tau = config.tau;
  if (decides) {
    options.thresholds = thresholds_for(*shared_.student, target);
    options.score_noise = noise();
    nn::Budget& budget = options.budget.emplace();
    budget.target = target;
    budget.context = config.sequence_length;
    const std::vector<double> shares = shares_for(*shared_.student, target);
    if (config.picks == Picks::topk) {
      options.capacity = shares;
    } else {
      budget.shares = shares;
      if (config.budget_weight > 0) options.aux[nn::kBudget] = config.budget_weight;
      if (config.unit_budget_weight > 0) options.aux[nn::kUnitBudget] = config.unit_budget_weight;
    }
  }
  if (shared_.teacher && config.kl_weight > 0) options.aux[nn::kDistillation] = config.kl_weight;

  // The mean is over all targets of the step: each part counts by how many it has.
  std::vector<Rows::Some> parts;
  double targets = 0;
  for (int64_t i = 0; i < config.accumulation; ++i) {
    parts.push_back(rows_->next());
    targets += parts.back().targets;
  }
  double loss = 0;
  std::vector<nn::ForwardResult> results;
  for (const auto& [batch, weights, counted] : parts) {
    const int64_t part = p.step * config.accumulation + static_cast<int64_t>(results.size());
    options.noise_seed = mix64(mix64(config.seed ^ 0x74756e65ULL) + static_cast<uint64_t>(first_row_ + part));
    if (options.aux.contains(nn::kDistillation)) options.teacher = shared_.teacher->rows(batch, first_row_ + part * config.batch_size);
    options.target_weights = weights;
    nn::ForwardResult result = network_->forward(train::to_tensors(batch), options);
    const double share = targets > 0 ? counted / targets : 0;
    loss += share * result.total.item<double>();
    (config.accumulation == 1 ? result.total : result.total * share).backward();
    result.total.reset();
    result.loss = result.loss.detach();
    for (auto& [name, value] : result.aux) value = value.detach();
    results.push_back(std::move(result));
  }
  const double norm = optimizer_->gradient_norm(), rate = train::learning_rate_factor(config.schedule, p.step, p.total);
  ++p.step;
  p.tokens += config.rows_per_step() * config.sequence_length;
  p.loader = Rows::state_after(config, shared_.corpus, first_row_ + p.step * config.rows_per_step());
  if (std::isfinite(loss) && std::isfinite(norm)) {
    optimizer_->step(config.optimizer.lr * rate, norm);
    p.skipped_in_a_row = 0;
    p.loss_sum += loss;
    ++p.loss_count;
  } else {
    optimizer_->drop_gradients();
    warn(str("step ", p.step), str("step ", p.step, ": ", std::isfinite(loss) ? "a gradient" : "the loss", " is not finite; the step changes nothing"));
    if (++p.skipped_in_a_row >= kSkipsBeforeStop)
      throw UserError({folder_, str("step ", p.step), str(kSkipsBeforeStop, " steps in a row whose loss or gradient was not finite"), "a finite loss", "lower the learning rates; earlier checkpoints are intact"});
  }
  p.seconds += std::chrono::duration<double>(Clock::now() - begin).count();
  log(results, target, norm);
  // A router may collapse hours before the next look at held-out text.
  if (decides && config.picks == Picks::threshold && p.step % config.interval.log_steps == 0 && target <= (config.lowest + config.highest) / 2) {
    std::vector<std::vector<double>> looks;
    for (const nn::ForwardResult& r : results) looks.push_back(r.shares);
    const std::string when = str("in step ", p.step, ", whose target is ", percent(target, 0));
    warn_of_collapse(looks, forced_share(parts, model.routing.forced_positions), when, when);
  }
  std::string note = str("loss ", fixed(results.front().loss.item<double>(), 3));
  if (const auto kl = results.front().aux.find(nn::kDistillation); kl != results.front().aux.end()) note += str(", KL ", fixed(kl->second.item<double>(), 3));
  if (results.front().block_fraction) note += str(" at ", percent(*results.front().block_fraction, 0), " of the blocks for ", percent(target, 0));
  progress_->update(p.tokens, note);
  if (shared_.after_step) shared_.after_step(static_cast<size_t>(&stage_ - shared_.config.stages.data()), p.step, *network_);
}

void Stage::warn(const std::string& key, const std::string& text) {
  metrics_->write({{"type", "warning"}, {"step", now_.progression.step}, {"text", text}});
  if (warned_.insert(key).second) log_warning(text);  // in the file every time, at the terminal once
}

void Stage::log(const std::vector<nn::ForwardResult>& results, double target, double norm) {
  const train::Progression& p = now_.progression;
  if (p.step % shared_.config.interval.log_steps != 0 && p.step != p.total) return;
  const auto mean = [&](const auto& of) {
    double sum = 0;
    for (const nn::ForwardResult& r : results) sum += of(r) / static_cast<double>(results.size());
    return sum;
  };
  Json line = {{"type", "train"}, {"step", p.step}, {"tokens", p.tokens}, {"seconds", p.seconds}, {"loss", mean([](const auto& r) { return r.loss.template item<double>(); })},
               {"total", p.loss_count > 0 ? Json(p.loss_sum / static_cast<double>(p.loss_count)) : Json(nullptr)}, {"gradient_norm", norm},
               {"lr", train::learning_rate_factor(shared_.config.schedule, p.step - 1, p.total)},
               {"tokens_per_second", static_cast<double>(p.tokens - logged_.tokens) / std::max(p.seconds - logged_.seconds, 1e-9)}};
  for (const auto& [name, value] : results.front().aux) line["aux"][name] = mean([&](const auto& r) { return r.aux.at(name).template item<double>(); });
  if (results.front().block_fraction) {
    line["target"] = target;
    line["block_fraction"] = mean([](const auto& r) { return *r.block_fraction; });
  }
  std::vector<double> share(results.front().shares.size());
  for (size_t cut = 0; cut < share.size(); ++cut) share[cut] = mean([&](const auto& r) { return r.shares[cut]; });
  if (!share.empty()) line["share"] = share;
  metrics_->write(line);
  now_.progression.loss_sum = 0;
  now_.progression.loss_count = 0;
  logged_ = p;
}

void Stage::evaluate() {
  const TuneConfig& config = shared_.config;
  const routing::RoutingConfig& routing = network_->config().routing;
  std::vector<double> dials = {config.lowest, (config.lowest + config.highest) / 2, config.highest};
  dials.erase(std::unique(dials.begin(), dials.end()), dials.end());
  if (!routing.decides()) dials = {1.0};
  standings_.clear();
  for (const double dial : dials) standings_.push_back(measure_->at(dial, thresholds_for(*shared_.student, dial)));
  nn::release_kept_memory();  // its sizes are not those of a step
  Json line = {{"type", "eval"}, {"step", now_.progression.step}, {"tokens", now_.progression.tokens}, {"targets", measure_->targets()}, {"dials", Json::array()}};
  if (shared_.teacher) line["teacher_loss"] = measure_->teacher_loss();
  for (const Standing& s : standings_) {
    line["dials"].push_back(s.to_json());
    log_info("step ", now_.progression.step, ", ", describe(s, measure_->teacher_loss()));
  }
  if (routing.decides()) {
    const Standing& middle = standings_[standings_.size() / 2];
    std::string shares;
    for (size_t u = 0; u < routing.units.size(); ++u)
      if (!routing.units[u].is_static()) shares += str(shares.empty() ? "" : ", ", routing.units[u].label(), " ", percent(middle.shares[routing.first_cut(u) + routing.units[u].cuts() - 1], 0));
    log_info("  in full at ", fixed(middle.dial, 2), ", by block: ", shares);
  }
  metrics_->write(line);
  std::vector<std::vector<double>> looks;
  for (const Standing& s : standings_)
    if (s.dial < 1) looks.push_back(s.shares);  // at 1 every token runs everything
  warn_of_collapse(looks, measure_->forced_share(), "at every target below 1", "at any target below 1");
}

void Stage::warn_of_collapse(const std::vector<std::vector<double>>& looks, double forced, const std::string& at_every, const std::string& at_any) {
  const routing::RoutingConfig& routing = network_->config().routing;
  if (!routing.decides() || looks.empty()) return;
  for (size_t u = 0; u < routing.units.size(); ++u) {
    const routing::RoutedUnit& unit = routing.units[u];
    if (unit.is_static()) continue;
    for (size_t cut = 0; cut < unit.cuts(); ++cut) {
      const auto all = [&](auto is) { return std::ranges::all_of(looks, [&](const std::vector<double>& shares) { return is(shares[routing.first_cut(u) + cut]); }); };
      const std::string key = str(u, ".", cut), way = cut + 1 == unit.cuts() ? "runs it in full" : "runs it or takes its light path";
      if (all([](double share) { return share > kAlmostAll; })) warn("all " + key, str(unit.name(), ": every token ", way, " ", at_every));
      if (all([&](double share) { return share < forced + kAlmostNone; })) warn("none " + key, str(unit.name(), ": no token ", way, " ", at_any));
    }
  }
}

std::vector<double> Stage::shares_at_middle() {
  if (!network_->config().routing.decides()) return {};
  const double middle = (shared_.config.lowest + shared_.config.highest) / 2;
  return shared_.config.picks == Picks::topk ? shares_for(*shared_.student, middle) : measure_->shares_at(middle, thresholds_for(*shared_.student, middle));
}

void Stage::save() {
  metrics_->flush();
  train::save_checkpoint(folder_, now_, *optimizer_);
  train::prune_checkpoints(folder_, shared_.config.interval.keep_last);
  saved_at_ = Clock::now();
}

convert::Tuned Stage::tuned() const {
  convert::Tuned out;
  for (const nn::Parameter& p : network_->parameters()) {
    out.tensors.emplace(p.name, model::stored_f32(p.name, p.tensor.sizes().vec(), network_->read(p.name)));
  }
  if (stage_.what == What::adapters) out.adapter_scale = shared_.config.lora.alpha / static_cast<double>(shared_.config.lora.rank);
  return out;
}

}  // namespace fathom::tune
