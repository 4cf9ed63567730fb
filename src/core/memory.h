// What this process takes of the machine's memory.
#pragma once
#include <cstdint>

namespace fathom {

struct ProcessMemory {
  int64_t resident = 0, peak = 0;  // bytes, now and at most so far; 0 where the system does not say
};
ProcessMemory process_memory();

}  // namespace fathom
