// Adapters as PEFT, the library of adapters for `transformers`, reads them: PeftModel.from_pretrained(model, FOLDER).
#pragma once
#include <string>

#include "convert/tuned.h"

namespace fathom::convert {

// The adapters of `tuned` and their scale, which then has none.
Tuned take_adapters(Tuned& tuned);
// adapter_config.json and adapter_model.safetensors (F16, as in an artifact) of `adapters`, which holds nothing else.
void write_peft(const std::string& folder, const Tuned& adapters);

}  // namespace fathom::convert
