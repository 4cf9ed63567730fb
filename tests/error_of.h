// What a UserError says, or that there was none.
#pragma once
#include <string>

#include "core/error.h"

namespace fathom::test {

template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace fathom::test
