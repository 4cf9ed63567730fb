#include "convert/export.h"

#include "cli/bar.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/output.h"
#include "cli/program.h"
#include "model/cost.h"
#include "study/evaluate.h"

namespace fathom::cli {
namespace {

int run(const Arguments& args) {
  apply_quiet(args);
  apply_colour(args);
  catch_interrupts();
  const bool gguf = args.text("to") == "gguf";
  if (gguf && args.given("type")) args.wrong("type", args.text("type"), "no type for a GGUF file: its tensors stay as they are", "fathom quantize makes other types");
  const bool separate = args.text("adapters") == "separate";
  if (gguf && args.given("from")) args.wrong("from", args.text("from"), "no artifact for a GGUF file, which can hold a dense model", "fathom export MODEL OUT --to hf --from ARTIFACT");
  if (separate && !args.given("from")) args.wrong("adapters", "separate without --from", "the artifact that holds the adapters", "a model's own are merged: fathom export SOURCE OUT --to hf --from RUN/artifact --adapters separate");
  const auto model = model::ModelFolder::open(study::model_folder_of(args.positional("MODEL")));
  const std::string out_path = args.positional("OUT");
  Bar bar(args, "writing", "weights", model::parameters(model->config()).total());
  convert::ExportOptions options;
  options.threads = threads_of(args);
  options.overwrite = args.boolean("overwrite");
  options.progress = [&](int64_t done, int64_t) { bar.update(done); };
  for (const auto& [name, type] : {std::pair("f32", formats::GgmlType::F32), {"f16", formats::GgmlType::F16}, {"bf16", formats::GgmlType::BF16}})
    if (args.text("type") == name) options.type = type;
  options.separate_adapters = separate;
  bool routed = !model->config().routing.dense();
  if (args.given("from")) {
    const convert::Artifact artifact = convert::read_artifact(args.text("from"));
    routed = !artifact.config.routing.dense();
    convert::export_hf(*model, artifact, out_path, options);
  } else if (gguf) {
    convert::export_gguf(*model, out_path, options);
  } else {
    convert::export_hf(*model, out_path, options);
  }
  bar.finish();
  out(model->path() + " → " + out_path + "\n");
  if (routed) out("  in Python: model = AutoModelForCausalLM.from_pretrained(\"" + out_path + "\", trust_remote_code=True)\n");
  if (separate) out("  and then:  model = peft.PeftModel.from_pretrained(model, \"" + out_path + "/adapter\")\n");
  return kExitDone;
}

}  // namespace

Command export_command() {
  Command c{.name = "export", .summary = "Write a model for transformers, or a dense one as a GGUF file"};
  c.details = "hf: a folder that transformers loads. A routed model has its own code beside it, modeling_fathom.py, which decides by the same causal rule and generates with a cache; "
              "model.set_dial(0.75) is its dial. gguf: one file with the tensors as they are, for llama.cpp and others, which know no routing. Quantised matrices become f32 in a folder.";
  c.positional("MODEL", "a model folder, the folder of a run, or a .gguf file");
  c.positional("OUT", "the folder or the .gguf file to write");
  c.flag(text_flag("to", "FORM", "for whom").one_of({"hf", "gguf"}).needed());
  c.flag(path_flag("from", "ARTIFACT", "with hf: lay routers, light paths and adapters that fathom tune made over MODEL, their source"));
  c.flag(text_flag("adapters", "HOW", "of --from: merged into the weights, or separate, as PEFT reads them, in the folder `adapter` of OUT").one_of({"merged", "separate"}).otherwise("merged"));
  c.flag(text_flag("type", "TYPE", "type of a folder's matrices").one_of({"f32", "bf16", "f16"}).noted("the model's, where it is one of them, else f32"));
  c.flag(boolean_flag("overwrite", "replace OUT if it exists"));
  c.flag(threads_flag()).flag(quiet_flag()).flag(colour_flag());
  c.examples = {"fathom export runs/mod runs/mod-hf --to hf", "fathom export model.gguf smol-hf --to hf --from runs/smol/artifact --adapters separate", "fathom export runs/dense dense.gguf --to gguf"};
  c.run = run;
  return c;
}

}  // namespace fathom::cli
