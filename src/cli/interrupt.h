// Ctrl-C: the first one asks the running command to stop at the next good place, the second ends the process at once.
#pragma once

namespace fathom::cli {

void catch_interrupts();   // from here on SIGINT and SIGTERM set the mark; commands that never ask leave it as it is
bool interrupted();
bool terminated();         // by SIGTERM: the program is to end, also where Ctrl-C only stops what it does
void forget_interrupt();   // the mark of Ctrl-C is gone, and the next one is a first one again
void stop_if_interrupted();  // throws fathom::Interrupted

}  // namespace fathom::cli
