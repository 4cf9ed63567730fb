// Lines of standard input. Ctrl-C ends the wait for one, which std::getline would hide.
#pragma once
#include <string>

namespace fathom::cli {

class Lines {
 public:
  enum class Got { line, end, interrupt };
  // Without its end of line; the last one may have none. UserError: a read that fails, a line beyond limits::kPromptBytes.
  Got next(std::string& line);

 private:
  std::string held_;
  bool ended_ = false;
};

}  // namespace fathom::cli
