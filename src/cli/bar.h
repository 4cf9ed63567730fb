// Progress of a command that Ctrl-C can stop.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "cli/flags.h"
#include "cli/interrupt.h"
#include "core/progress.h"

namespace fathom::cli {

// The bar of what goes on now: one at a time, none with --quiet. Whoever works reports to it and is stopped by Ctrl-C there.
class Stage {
 public:
  explicit Stage(bool quiet) : quiet_(quiet) {}
  void begin(const std::string& what, const std::string& unit, int64_t total) {
    end();
    if (!quiet_) bar_ = std::make_unique<Progress>(what, unit, total);
  }
  void update(int64_t done, const std::string& note = "") {
    stop_if_interrupted();
    if (bar_) bar_->update(done, note);
  }
  void end() {
    if (bar_) bar_->finish();
    bar_.reset();
  }

 private:
  bool quiet_;
  std::unique_ptr<Progress> bar_;
};

// The same of a command that does one thing.
class Bar {
 public:
  Bar(const Arguments& args, const std::string& label, const std::string& unit, int64_t total) : stage_(args.boolean("quiet")) { stage_.begin(label, unit, total); }
  void update(int64_t done, const std::string& note = "") { stage_.update(done, note); }
  void finish() { stage_.end(); }

 private:
  Stage stage_;
};

}  // namespace fathom::cli
