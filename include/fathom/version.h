// Which Fathom this is. Versions are MAJOR.MINOR.PATCH: until 1.0.0 a new MINOR may change what programs compile or link
// against, a new PATCH does not.
#pragma once
#include <string>

#define FATHOM_VERSION_MAJOR 0
#define FATHOM_VERSION_MINOR 1
#define FATHOM_VERSION_PATCH 0

// What the library shows; everything else in it is hidden.
#define FATHOM_API __attribute__((visibility("default")))

namespace fathom {

// Of the library that runs, which may be newer than the headers: "0.1.0".
FATHOM_API std::string version();

}  // namespace fathom
