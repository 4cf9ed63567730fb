// What a message tells its reader to set. A room names the thing; what it is called is up to who reads: a flag at the command line, a
// field of the public interface in a program.
#pragma once
#include <concepts>
#include <optional>
#include <string>
#include <utility>

namespace fathom {

enum class Setting {
  kv_memory,  // limit of the memory for keys and values
  kv_type,    // how they are held
  save,       // what writes a saved cache
};
enum class Reader { command_line, program };

std::string name_of(Setting setting, Reader reader);

// What to do about an error, in words; a setting among them, perhaps.
class Hint {
 public:
  Hint() = default;
  template <std::convertible_to<std::string> Words>
  Hint(Words&& words) : before_(std::forward<Words>(words)) {}
  Hint(std::string before, Setting setting, std::string after) : before_(std::move(before)), setting_(setting), after_(std::move(after)) {}

  std::string text(Reader reader = Reader::command_line) const { return setting_ ? before_ + name_of(*setting_, reader) + after_ : before_; }

 private:
  std::string before_;
  std::optional<Setting> setting_;
  std::string after_;
};

}  // namespace fathom
