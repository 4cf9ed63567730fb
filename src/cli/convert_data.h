// The text that `fathom convert` fits on: files, and what the source writes itself.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/flags.h"
#include "core/work_folder.h"
#include "infer/weights.h"
#include "model/folder.h"
#include "study/held_out.h"

namespace fathom::cli {

struct ConvertData {
  std::vector<std::vector<int32_t>> made;  // --data self
  std::optional<study::HeldOut> held;
  std::vector<std::span<const int32_t>> windows;  // of both
  std::string name;
  std::string hash() const;                // of the windows
};

// That of --data, --tokens in windows of `context`; the word self among other texts is half of the tokens, and is kept in `work` as it is written.
ConvertData load_convert_data(const Arguments& args, const model::ModelFolder& source, std::shared_ptr<const infer::Weights> weights, int64_t context, const WorkFolder& work);

}  // namespace fathom::cli
