// What a UserError (or another error, by its type) says, or that there was none.
#pragma once
#include <string>

#include "core/error.h"

namespace fathom::test {

template <class Wanted = UserError, class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Wanted& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace fathom::test
