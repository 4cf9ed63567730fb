#include "train/run.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/file.h"
#include "core/human.h"
#include "core/log.h"
#include "core/random.h"
#include "model/cost.h"
#include "nn/memory.h"
#include "train/finish.h"
#include "train/requirements.h"
#include "train/schedule.h"

namespace fathom::train {
namespace {

constexpr int64_t kSkipsBeforeStop = 10;  // steps in a row without an update, since something was not finite

double seconds_since(std::chrono::steady_clock::time_point then) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count(); }

// One step's update of a running threshold: the quantile of this step's scores, averaged over about
// 1 / (1 − decay) steps, and over fewer while there are few.
void follow(float& running, float found, double decay, int64_t updates) {
  if (updates == 0 || !std::isfinite(running)) {
    running = found;
    return;
  }
  const double keep = std::min(decay, (1.0 + static_cast<double>(updates)) / (10.0 + static_cast<double>(updates)));
  running = static_cast<float>(keep * running + (1 - keep) * found);
}

}  // namespace

Run::Run(const TrainConfig& config, const RunOptions& options)
    : config_(config), options_(options), corpus_((clean_leftovers(options.run), open_corpus(config, options.run, options.stop))) {
  const std::string& run = options.run;
  config_.model = effective_model(config, corpus_.tokenizer, corpus_.train->manifest(), join_path(run, "config.json"));
  require_held_out(*corpus_.validation, config.sequence_length);
  const std::vector<Found> found = find_checkpoints(run);
  std::optional<Checkpoint> last;
  if (!found.empty()) last = read_checkpoint(found.back().path);

  now_.identity.config = config.to_json();
  now_.identity.tokenizer = corpus_.tokenizer.identity();
  now_.identity.dataset = corpus_.fingerprint;
  now_.identity.threads = config.threads;
  if (last) check_identity(*last);
  computing_ = settle_computing(config.precision, config.f32_route, last ? &last->identity : nullptr, now_.identity, run);

  require_memory(config_, join_path(run, "config.json"));
  network_ = std::make_unique<nn::Transformer>(config_.model);
  optimizer_ = std::make_unique<AdamW>(network_->parameters(), config_.optimizer);
  const size_t R = config_.model.routing.units.size();
  if (last) {
    Identity identity = now_.identity;
    now_ = *last;
    now_.identity = identity;
    load_tensors(found.back().path, now_, *optimizer_, R);
    check_progression(found.back().path);
    now_.progression.validation_loss.reset();
    log_info("resuming after step ", now_.progression.step, " of ", now_.progression.total);
  } else {
    network_->init(config_.seed);
    now_.progression.total = total_steps(config_);
    now_.progression.loader.seed = config_.seed;
    // No threshold is known before the first step: all tokens run.
    now_.quantiles.raw.assign(R, -std::numeric_limits<float>::infinity());
    now_.quantiles.decision = now_.quantiles.raw;
  }
  loader_ = std::make_unique<Loader>(corpus_.train, config_.batch_size, config_.sequence_length, now_.progression.loader);
  metrics_ = std::make_unique<Metrics>(run, now_.progression.step);
  evaluator_ = std::make_unique<Evaluator>(*network_, corpus_.validation, corpus_.tokenizer, config_, computing_.compute);
}

void Run::check_identity(const Checkpoint& last) const {
  require_same(TrainConfig::from_json(last.identity.config, join_path(options_.run, "checkpoints")),
               TrainConfig::from_json(now_.identity.config, options_.run), options_.run);
  require_same_data(last.identity, corpus_, options_.run, "its last checkpoint");
}

// What follows from the configuration and the step must be so in the checkpoint too, or the run would end elsewhere.
void Run::check_progression(const std::string& checkpoint) const {
  const Progression& p = now_.progression;
  const auto hold = [&](const char* field, auto found, auto expected) {
    if (found != expected)
      throw UserError({join_path(checkpoint, "checkpoint.json"), str("progression.", field), str(found), str(expected, ", by config.json and step ", p.step),
                       "the file was changed; remove the folder to resume from an earlier checkpoint"});
  };
  hold("total", p.total, total_steps(config_));  // first: it bounds the step, and with it the epochs to go through
  const int64_t rows = p.step * config_.batch_size * config_.accumulation;
  const LoaderState loader = state_after(*corpus_.train, config_.sequence_length, config_.seed, rows);
  hold("tokens", p.tokens, rows * config_.sequence_length);
  hold("loader.seed", p.loader.seed, loader.seed);
  hold("loader.epoch", p.loader.epoch, loader.epoch);
  hold("loader.position", p.loader.position, loader.position);
}

Json Run::train() {
  Progression& p = now_.progression;
  const model::Parameters parameters = model::parameters(config_.model);
  const double step_tokens = static_cast<double>(config_.batch_size * config_.accumulation * config_.sequence_length);
  log_info(human_count(static_cast<double>(parameters.total())), " parameters, ", p.total, p.total == 1 ? " step of " : " steps of ", human_count(step_tokens), " tokens, ",
           human_count(run_flops(config_, p.total)), "FLOP in all");
  if (config_.budget == Budget::flops && run_flops(config_, 1) > 2 * config_.amount)
    log_warning("budget: flops: ", human_count(config_.amount), " is less than half a step costs; one step is made");
  progress_ = std::make_unique<Progress>("train", "tokens", static_cast<int64_t>(step_tokens) * p.total, p.tokens);
  saved_at_ = Clock::now();
  logged_ = p;

  while (p.step < p.total) {
    step();
    const IntervalConfig& every = config_.interval;
    const bool end = p.step == p.total;
    p.validation_loss.reset();
    const int64_t best_before = p.best_step;
    if (every.eval_steps > 0 && (p.step % every.eval_steps == 0 || end)) evaluate();
    const bool stop = options_.stop && options_.stop();
    const bool due = (every.checkpoint_steps > 0 && p.step % every.checkpoint_steps == 0) ||
                     (every.checkpoint_seconds > 0 && seconds_since(saved_at_) >= every.checkpoint_seconds);
    if (due || stop || end || p.best_step != best_before) save();
    if (stop && !end) {
      progress_->finish();
      throw Interrupted(str("stopped after step ", p.step, " of ", p.total, ", saved; go on with: fathom train --resume ", options_.run));
    }
  }
  progress_->finish();
  return finish();
}

void Run::step() {
  const Clock::time_point begin = Clock::now();
  Progression& p = now_.progression;
  const std::vector<double> capacity = capacities_at(config_, p.step, p.total);
  nn::ForwardOptions options;
  options.pick = nn::pick_of(config_.model.routing.selection);
  options.thresholds = now_.quantiles.raw;
  options.capacity = capacity;
  options.score_noise = config_.router.noise;
  options.straight_through_tau = config_.router.straight_through_tau;
  options.aux = config_.losses;
  options.compute = computing_.compute;

  // The mean is over all targets of the step: each part counts by how many it has.
  std::vector<Batch> batches;
  double targets = 0;
  for (int64_t i = 0; i < config_.accumulation; ++i) {
    batches.push_back(loader_->next());
    targets += static_cast<double>(std::count_if(batches.back().target.begin(), batches.back().target.end(), [](int32_t t) { return t != kIgnore; }));
  }
  double loss = 0;
  std::vector<nn::ForwardResult> results;
  for (const Batch& batch : batches) {
    options.noise_seed = mix64(mix64(config_.seed ^ 0x6e6f697365ULL) + static_cast<uint64_t>(p.step * config_.accumulation) + results.size());
    options.first_row = (p.step * config_.accumulation + static_cast<int64_t>(results.size())) * config_.batch_size;
    nn::ForwardResult result = network_->forward(to_tensors(batch), options);
    const double share = targets > 0 ? static_cast<double>(result.target_count) / targets : 0;
    loss += share * result.loss.item<double>();
    (config_.accumulation == 1 ? result.total : result.total * share).backward();
    // Results are kept for the log, their graphs are not: each would hold its micro-batch's activations until the step's end.
    result.total.reset();
    result.loss = result.loss.detach();
    for (auto& [name, value] : result.aux) value = value.detach();
    p.flops += spent_flops(config_.model, batch, result.routed);
    results.push_back(std::move(result));
  }

  const double lr = config_.optimizer.lr * learning_rate_factor(config_.schedule, p.step, p.total);
  const double norm = optimizer_->gradient_norm();
  ++p.step;
  p.tokens += config_.batch_size * config_.accumulation * config_.sequence_length;
  p.loader = loader_->state();
  if (std::isfinite(loss) && std::isfinite(norm)) {
    optimizer_->step(lr, norm);
    p.skipped_in_a_row = 0;
    p.loss_sum += loss;
    ++p.loss_count;
    update_quantiles(batches, results, capacity);
  } else {
    optimizer_->drop_gradients();
    const std::string what = str("step ", p.step, ": ", std::isfinite(loss) ? "a gradient" : "the loss", " is not finite; the step changes nothing");
    log_warning(what);
    metrics_->write({{"type", "warning"}, {"step", p.step}, {"text", what}});
    if (++p.skipped_in_a_row >= kSkipsBeforeStop)
      throw UserError({options_.run, str("step ", p.step), str(kSkipsBeforeStop, " steps in a row whose loss or gradient was not finite"),
                       "a finite loss", "lower optimizer.lr, lengthen the warm-up or check the data; earlier checkpoints are intact"});
  }
  p.seconds += seconds_since(begin);
  log(batches, results, capacity, lr, norm);
  progress_->update(p.tokens, str("loss ", fixed(loss, 3), flops_per_second_ > 0 ? "  " + human_count(flops_per_second_) + "FLOP/s (" +
                                  fixed(100 * flops_per_second_ / reach(), 0) + " % of matmul)" : ""));
  if (options_.after_step) options_.after_step(p.step, loss, *network_);
}

void Run::update_quantiles(const std::vector<Batch>& batches, const std::vector<nn::ForwardResult>& results, const std::vector<double>& capacity) {
  Quantiles& q = now_.quantiles;
  // The raw one is what selection compares, noise and all, or it would not meet the capacity; the causal rule knows no noise.
  const bool same = config_.model.routing.rule != routing::CausalRule::predictor && config_.router.noise == 0;
  std::vector<at::Tensor> forced;
  for (const Batch& batch : batches) forced.push_back(forced_tokens(batch, config_.model.routing.forced_positions));
  for (size_t r = 0; r < capacity.size(); ++r) {
    const auto quantile = [&](at::Tensor nn::RoutedResult::*score) {
      std::vector<float> all;
      for (size_t part = 0; part < results.size(); ++part) {
        at::Tensor t = (results[part].routed[r].*score).to(at::kFloat);
        // Tokens at forced positions run whatever they score, and count inside the capacity.
        if (forced[part].defined()) t = t.masked_fill(forced[part], std::numeric_limits<float>::infinity());
        t = t.contiguous();
        all.insert(all.end(), t.const_data_ptr<float>(), t.const_data_ptr<float>() + t.numel());
      }
      return routing::threshold_for(all, capacity[r]);
    };
    const float raw = quantile(&nn::RoutedResult::selecting);
    follow(q.raw[r], raw, config_.router.quantile_decay, q.updates);
    follow(q.decision[r], same ? raw : quantile(&nn::RoutedResult::decision), config_.router.quantile_decay, q.updates);
  }
  if (!capacity.empty()) ++q.updates;
}

void Run::evaluate() {
  Progression& p = now_.progression;
  const Evaluation e = evaluator_->evaluate(config_.interval.eval_tokens);
  nn::release_kept_memory();  // its sizes are not those of a step
  Json line = e.to_json();
  line.update({{"type", "eval"}, {"step", p.step}, {"tokens", p.tokens}, {"flops", p.flops}, {"seconds", p.seconds}});
  metrics_->write(line);
  const std::vector<double> capacity = config_.model.routing.capacities();
  warn_of(e.health, capacity);
  log_info("step ", p.step, ": held-out loss ", fixed(e.loss, 4), capacity.empty() ? "" : " under the causal rule, " + fixed(e.loss_topk, 4) + " under top-k");
  p.validation_loss = e.loss;
  if (std::isfinite(e.loss) && (!p.best_loss || e.loss < *p.best_loss)) {
    p.best_loss = e.loss;
    p.best_step = p.step;
  }
}

void Run::save() {
  metrics_->flush();
  save_checkpoint(options_.run, now_, *optimizer_);
  prune_checkpoints(options_.run, config_.interval.keep_last);
  saved_at_ = Clock::now();
}

Json Run::finish() {
  const Progression& p = now_.progression;
  Json figures = finish_model(*network_, corpus_, config_, computing_.compute, join_path(options_.run, "model"), [&] {
    if (options_.stop && options_.stop())
      throw Interrupted(str("stopped before the model was written; go on with: fathom train --resume ", options_.run));
  });
  Json line = figures;
  line.erase("dial");
  line.update({{"type", "final"}, {"step", p.step}, {"tokens", p.tokens}, {"flops", p.flops}, {"seconds", p.seconds}});
  metrics_->write(line);
  metrics_->flush();
  const Json summary = {{"steps", p.step}, {"tokens", p.tokens}, {"train_flops", p.flops}, {"planned_flops", run_flops(config_, p.total)}, {"train_seconds", p.seconds},
                        {"model", join_path(options_.run, "model")}, {"config", config_.to_json()}, {"figures", figures},
                        {"best", {{"step", p.best_step}, {"loss", p.best_loss ? Json(*p.best_loss) : Json(nullptr)}}},
                        {"precision", now_.identity.precision}, {"f32_route", now_.identity.f32_route},
                        {"threads", now_.identity.threads}, {"machine", now_.identity.machine}};
  atomic_write(join_path(options_.run, "summary.json"), summary.dump(2) + "\n");
  return summary;
}

}  // namespace fathom::train
