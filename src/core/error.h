// The three kinds of failure of the library, never mixed:
//   UserError    a user's or a file's fault; says where, what was found, what was expected, what to do
//   Interrupted  the user pressed Ctrl-C; work was saved and the message says how to go on
//   FATHOM_ASSERT  a programmer's fault that no input can reach; throws std::logic_error
// Nothing in the library calls exit or abort.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/setting.h"

namespace fathom {

// Joins its arguments as operator<< prints them (floats with 9 significant digits).
template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  out.precision(9);
  (static_cast<void>(out << args), ...);
  return out.str();
}

// The parts of a message; empty parts are left out. Printed as
//   WHERE: FIELD: found FOUND, expected EXPECTED; HINT
struct ErrorParts {
  std::string where;     // file, flag, or URL that the fault lies in
  std::string field;     // the key, tensor, line or byte offset in it
  std::string found;     // what is there
  std::string expected;  // what should be there
  Hint hint = {};        // what to do
};

class UserError : public std::runtime_error {
 public:
  explicit UserError(ErrorParts parts);
  explicit UserError(const std::string& message) : std::runtime_error(message) {}
  const ErrorParts& parts() const { return parts_; }
  // what() for the other reader: what() itself names settings as the command line does.
  std::string message(Reader reader) const;

 private:
  ErrorParts parts_;
};

// A wrong command line (exit code 2 instead of 1).
class UsageError final : public UserError {
 public:
  using UserError::UserError;
};

class Interrupted final : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] void assertion_failed(const char* condition, const char* file, int line, const std::string& note);

// At most `limit` bytes of text from a file or a request, safe to print: control bytes and broken UTF-8 become \xNN.
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace fathom

#define FATHOM_ASSERT(condition, ...)                                                                     \
  do {                                                                                                    \
    if (!(condition)) [[unlikely]] ::fathom::assertion_failed(#condition, __FILE__, __LINE__, ::fathom::str(__VA_ARGS__)); \
  } while (0)
