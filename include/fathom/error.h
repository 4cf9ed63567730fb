// What goes wrong. Every function of the library throws, and names what it throws:
//   fathom::Error         a fault of the input: a file, an option, a request
//   std::bad_alloc        no memory
//   std::logic_error      a fault of the library or of the calling program; please report the former
// Nothing in the library calls exit or abort, and nothing prints but remarks (set_log).
#pragma once
#include <functional>
#include <stdexcept>
#include <string>

#include "fathom/version.h"

namespace fathom {

// what() is one line: WHERE: FIELD: found FOUND, expected EXPECTED; HINT. Its parts are here too, and empty where they say nothing.
class FATHOM_API Error : public std::runtime_error {
 public:
  Error(const std::string& message, std::string where = {}, std::string field = {}, std::string found = {}, std::string expected = {}, std::string hint = {});
  ~Error() override;

  const std::string& where() const { return where_; }        // the file, or the part of a request, that the fault lies in
  const std::string& field() const { return field_; }        // the key, tensor, line or byte offset in it
  const std::string& found() const { return found_; }
  const std::string& expected() const { return expected_; }
  const std::string& hint() const { return hint_; }          // what to do

 private:
  std::string where_, field_, found_, expected_, hint_;
};

// Takes the library's remarks (a file holds something that is left aside, say), one line each, instead of standard error. Null
// sets standard error again. One call at a time, from whichever thread has something to remark; it must not call set_log.
FATHOM_API void set_log(std::function<void(const std::string& line)> log);

}  // namespace fathom
