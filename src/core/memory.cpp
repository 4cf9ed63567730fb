#include "core/memory.h"

#include <fstream>
#include <string>

namespace fathom {

ProcessMemory process_memory() {
  ProcessMemory out;
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (int64_t* const to = word == "VmRSS:" ? &out.resident : word == "VmHWM:" ? &out.peak : nullptr)
      if (status >> *to) *to *= 1024;
  return out;
}

}  // namespace fathom
