// The parts of a configuration file that a run of training and one of tuning have in common.
#pragma once
#include <string>

#include "train/config.h"

namespace fathom::train {

// The object under `key`, or an empty one: every part of the file may be left out.
class Part {
 public:
  Part(const Fields& parent, const std::string& key)
      : empty_(Json::object()), fields_(parent.has(key) ? parent.object(key) : Fields(empty_, parent.where(), parent.path(key))) {}
  const Fields* operator->() const { return &fields_; }
  const Fields& operator*() const { return fields_; }

 private:
  Json empty_;
  Fields fields_;
};

double above_zero(const Fields& f, const std::string& key, double high, double fallback);

// "NAME_steps" or "NAME_share".
Span read_span(const Fields& f, const std::string& name, Span fallback);
void write_span(Json& json, const std::string& name, const Span& span);

// UserError by field: both a dataset and text, or neither; keys that are not known. A part that the file leaves out is `d`.
DataConfig read_data(const Fields& f);
OptimizerConfig read_optimizer(const Fields& f, const OptimizerConfig& d = {});
ScheduleConfig read_schedule(const Fields& f, const ScheduleConfig& d = {});
IntervalConfig read_interval(const Fields& f, const IntervalConfig& d = {});
Json write_data(const DataConfig& c);
Json write_optimizer(const OptimizerConfig& c);
Json write_schedule(const ScheduleConfig& c);
Json write_interval(const IntervalConfig& c);

}  // namespace fathom::train
