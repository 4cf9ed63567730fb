// The commands of `fathom`, one file each. main.cpp puts them into one program.
#pragma once
#include <string>

#include "cli/flags.h"

namespace fathom::cli {

Command tokenizer_train_command();
Command tokenizer_encode_command();
Command tokenizer_decode_command();
Command data_prepare_command();
Command data_verify_command();
Command train_command();
Command tune_command();
Command eval_command();
Command generate_command();
Command chat_command();
Command depthmap_command();
Command info_command();
Command report_command();
Command sensitivity_command();
Command convert_command();
Command dial_command();
Command quantize_command();
Command export_command();
Command bench_machine_command();
Command bench_command();

}  // namespace fathom::cli
