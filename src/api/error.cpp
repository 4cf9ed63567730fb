#include "fathom/error.h"

#include <utility>

#include "api/internals.h"
#include "core/log.h"

#define FATHOM_TEXT(x) #x
#define FATHOM_NUMBER(x) FATHOM_TEXT(x)

namespace fathom {

std::string version() { return FATHOM_NUMBER(FATHOM_VERSION_MAJOR) "." FATHOM_NUMBER(FATHOM_VERSION_MINOR) "." FATHOM_NUMBER(FATHOM_VERSION_PATCH); }

Error::Error(const std::string& message, std::string where, std::string field, std::string found, std::string expected, std::string hint)
    : std::runtime_error(message), where_(std::move(where)), field_(std::move(field)), found_(std::move(found)), expected_(std::move(expected)),
      hint_(std::move(hint)) {}

Error::~Error() = default;

Error public_error(const UserError& e) {
  const ErrorParts& p = e.parts();
  return Error(e.message(Reader::program), p.where, p.field, p.found, p.expected, p.hint.text(Reader::program));
}

void set_log(std::function<void(const std::string& line)> log) { set_log_sink(std::move(log)); }

}  // namespace fathom
