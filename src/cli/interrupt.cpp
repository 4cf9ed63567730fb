#include "cli/interrupt.h"

#include <csignal>

#include "core/error.h"

namespace fathom::cli {
namespace {

volatile std::sig_atomic_t stopped = 0;

void on_signal(int signal) {
  stopped = 1;
  std::signal(signal, SIG_DFL);  // a second Ctrl-C ends a command that does not get to ask
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool interrupted() { return stopped != 0; }

void stop_if_interrupted() {
  if (interrupted()) throw Interrupted("interrupted");
}

}  // namespace fathom::cli
