#include "cli/interrupt.h"

#include <csignal>

#include "core/error.h"

namespace fathom::cli {
namespace {

volatile std::sig_atomic_t stopped = 0;  // the signal

void on_signal(int signal) {
  if (stopped != SIGTERM) stopped = signal;
  std::signal(signal, SIG_DFL);  // a second Ctrl-C ends a command that does not get to ask
}

}  // namespace

// Not std::signal: it sets SA_RESTART, and a read that waits for a pipe would go on waiting.
void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void forget_interrupt() {
  if (stopped == SIGTERM) return;
  stopped = 0;
  catch_interrupts();
}

bool interrupted() { return stopped != 0; }

bool terminated() { return stopped == SIGTERM; }

void stop_if_interrupted() {
  if (interrupted()) throw Interrupted("interrupted");
}

}  // namespace fathom::cli
