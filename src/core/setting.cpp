#include "core/setting.h"

#include "core/error.h"

namespace fathom {

std::string name_of(Setting setting, Reader reader) {
  const bool flag = reader == Reader::command_line;
  switch (setting) {
    case Setting::kv_memory: return flag ? "--kv-memory" : "EngineOptions::kv_bytes";
    case Setting::kv_type: return flag ? "--kv-type" : "EngineOptions::kv_type";
    case Setting::save: return flag ? "/save of fathom chat" : "Engine::save";
  }
  FATHOM_ASSERT(false, "a setting without a name");
}

}  // namespace fathom
