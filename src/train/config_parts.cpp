#include "train/config_parts.h"

#include <algorithm>

#include "core/limits.h"

namespace fathom::train {

using namespace limits;

double above_zero(const Fields& f, const std::string& key, double high, double fallback) {
  const double value = f.number(key, 0, high, fallback);
  if (!(value > 0)) f.wrong(key, str(value), str("a number above 0 and at most ", high));
  return value;
}

Span read_span(const Fields& f, const std::string& name, Span fallback) {
  const std::string steps = name + "_steps", share = name + "_share";
  if (f.has(steps) && f.has(share))
    f.wrong(steps, "both " + steps + " and " + share, "one of them", "remove one");
  if (f.has(steps)) return {f.integer(steps, 0, kSteps), 0};
  if (f.has(share)) return {{}, f.number(share, 0, 1)};
  return fallback;
}

void write_span(Json& json, const std::string& name, const Span& span) {
  if (span.steps) json[name + "_steps"] = *span.steps;
  else json[name + "_share"] = span.share;
}

static std::vector<std::string> read_paths(const Fields& f, const std::string& key) {
  if (!f.has(key)) return {};
  if (f.raw(key).is_string()) return {f.string(key)};
  return f.strings(key);
}

DataConfig read_data(const Fields& f) {
  const DataConfig d;
  DataConfig c;
  c.dataset = f.string("dataset", "");
  c.text = read_paths(f, "text");
  c.tokenizer = f.string("tokenizer", "");
  c.vocab_size = f.integer("vocab_size", 257, kVocabulary, d.vocab_size);
  c.field = f.string("field", d.field);
  c.validation_share = f.number("validation_share", 0, 0.5, d.validation_share);
  c.repair_utf8 = f.boolean("repair_utf8", d.repair_utf8);
  f.done();
  if (c.dataset.empty() == c.text.empty())
    f.wrong("dataset", c.dataset.empty() ? "neither \"dataset\" nor \"text\"" : "both \"dataset\" and \"text\"", "one of them",
            "\"dataset\" names a folder made by `fathom data prepare`, \"text\" files or folders to be prepared now");
  if (!c.dataset.empty() && !c.tokenizer.empty())
    f.wrong("tokenizer", "\"" + printable(c.tokenizer) + "\" beside \"dataset\"", "no such key",
            "a prepared dataset carries its tokenizer");
  if (!c.text.empty() && !(c.validation_share > 0))
    f.wrong("validation_share", str(c.validation_share), "a number above 0", "evaluation and calibration need held-out text");
  return c;
}

Json write_data(const DataConfig& c) {
  Json j = {{"tokenizer", c.tokenizer}, {"vocab_size", c.vocab_size}, {"field", c.field},
            {"validation_share", c.validation_share}, {"repair_utf8", c.repair_utf8}};
  if (c.dataset.empty()) j["text"] = c.text;
  else j = {{"dataset", c.dataset}};
  return j;
}

OptimizerConfig read_optimizer(const Fields& f, const OptimizerConfig& d) {
  OptimizerConfig c;
  c.lr = above_zero(f, "lr", kLearningRate, d.lr);
  c.beta1 = f.number("beta1", 0, 0.999999, d.beta1);
  c.beta2 = f.number("beta2", 0, 0.999999, d.beta2);
  c.eps = above_zero(f, "eps", 1, d.eps);
  c.weight_decay = f.number("weight_decay", 0, 10, d.weight_decay);
  c.clip = f.number("clip", 0, 1e9, d.clip);
  c.router_lr_scale = f.number("router_lr_scale", 0, 1e6, d.router_lr_scale);
  f.done();
  return c;
}

ScheduleConfig read_schedule(const Fields& f, const ScheduleConfig& d) {
  ScheduleConfig c;
  c.kind = f.choice<ScheduleKind>("kind", kScheduleNames, d.kind);
  c.warmup = read_span(f, "warmup", d.warmup);
  c.final_ratio = f.number("final_ratio", 0, 1, d.final_ratio);
  c.decay = read_span(f, "decay", d.decay);
  f.done();
  return c;
}

IntervalConfig read_interval(const Fields& f, const IntervalConfig& d) {
  IntervalConfig c;
  c.log_steps = f.integer("log_steps", 1, kSteps, d.log_steps);
  c.eval_steps = f.integer("eval_steps", 0, kSteps, d.eval_steps);
  c.eval_tokens = f.integer("eval_tokens", 1, kTrainTokens, d.eval_tokens);
  c.final_eval_tokens = f.integer("final_eval_tokens", 1, kTrainTokens, d.final_eval_tokens);
  c.checkpoint_steps = f.integer("checkpoint_steps", 0, kSteps, d.checkpoint_steps);
  c.checkpoint_seconds = f.number("checkpoint_seconds", 0, kIntervalSeconds, d.checkpoint_seconds);
  c.keep_last = f.integer("keep_last", 1, kCheckpointsKept, d.keep_last);
  f.done();
  return c;
}

Json write_optimizer(const OptimizerConfig& c) {
  return {{"lr", c.lr}, {"beta1", c.beta1}, {"beta2", c.beta2}, {"eps", c.eps}, {"weight_decay", c.weight_decay}, {"clip", c.clip}, {"router_lr_scale", c.router_lr_scale}};
}

Json write_schedule(const ScheduleConfig& c) {
  Json j = {{"kind", name_of(c.kind, kScheduleNames)}, {"final_ratio", c.final_ratio}};
  write_span(j, "warmup", c.warmup);
  write_span(j, "decay", c.decay);
  return j;
}

Json write_interval(const IntervalConfig& c) {
  return {{"log_steps", c.log_steps}, {"eval_steps", c.eval_steps}, {"eval_tokens", c.eval_tokens}, {"final_eval_tokens", c.final_eval_tokens},
          {"checkpoint_steps", c.checkpoint_steps}, {"checkpoint_seconds", c.checkpoint_seconds}, {"keep_last", c.keep_last}};
}

}  // namespace fathom::train
