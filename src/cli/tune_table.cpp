#include "cli/train_table.h"

namespace fathom::cli {

Flag chat_share_flag() { return number_flag("chat-share", "X", "share of self that is conversations, where the model has a chat template").range(0, 1).otherwise("0.25"); }

Command tune_table() {
  Command c;
  c.name = "tune";
  c.summary = "Tune a converted model's routers, light paths and adapters towards its dense teacher";
  c.details =
      "Stages follow each other: `routers` trains routers and light paths and leaves the backbone as it is, so that dial 1 stays the dense model to the bit; `adapters` trains low-rank adapters beside "
      "projections with them; `everything` trains every weight. The loss is the divergence from the teacher's next-token probabilities, the text's own loss, and one budget on FLOPs for all blocks together, at "
      "block fractions that take turns over the range of --target: one model serves them all by its dial.\n\n"
      "The run folder gets checkpoints, metrics.jsonl and TensorBoard event files of every stage, and at the end model/, artifact/ (what was tuned and nothing else) and summary.json. Ctrl-C finishes "
      "the step, saves and ends with code 130; --resume goes on and computes the same bits as an uninterrupted run.";
  c.positionals.push_back({"MODEL", "the folder of a converted model (fathom convert); with --resume it is left out", false, false});
  c.flag(path_flag("out", "RUN", "folder of the new run").noted("runs/ and the name of MODEL"));
  c.flag(path_flag("resume", "RUN", "go on with this run from its last checkpoint"));
  c.flag(path_flag("data", "TEXT", "text to tune on: a file, a folder, a dataset of fathom data prepare, or self: text that the teacher writes").many());
  c.flag(path_flag("teacher", "SRC", "the dense model that MODEL was made of, a folder or a .gguf file").noted("none: the text alone teaches"));
  c.flag(text_flag("target", "X", "block fraction to tune for, or a range of them: 0.7, 0.65-0.85; a range up to 1 keeps dial 1 near what it was").otherwise("0.65-1"));
  c.flag(count_flag("tokens", "N", "tokens of all stages together").range(1, 1e12).otherwise("500k"));
  c.group("Stages");
  c.flag(text_flag("stages", "LIST", "of routers, adapters, everything; the last two only at the end").otherwise("adapters"));
  c.flag(number_flag("first-share", "X", "share of the tokens that the first of two stages gets").range(0.01, 0.99).otherwise("0.3"));
  c.flag(integer_flag("lora-rank", "R", "rank of adapters").range(1, 4096).otherwise("16"));
  c.flag(number_flag("lora-alpha", "X", "adapters count alpha / rank times").range(kAboveZero, 1e4).otherwise("32"));
  c.flag(text_flag("lora-targets", "LIST", "projections with adapters: of q, k, v, o, gate, up, down").otherwise("q,k,v,o,gate,up,down"));
  c.group("Losses");
  c.flag(number_flag("kl", "X", "weight of the divergence from the teacher").range(0, 1e6).otherwise("1"));
  c.flag(number_flag("lm", "X", "weight of the text's own loss").range(0, 1e6).otherwise("0.1"));
  c.flag(number_flag("budget", "X", "weight of the distance of the block fraction from its target").range(0, 1e6).otherwise("12"));
  c.flag(number_flag("unit-budget", "X", "weight of the same block by block, towards the shares that MODEL's dial has there").range(0, 1e6).otherwise("0"));
  c.flag(integer_flag("teacher-top", "K", "how many of the teacher's log-probabilities count; 0: all of its logits").range(0, 1 << 24).otherwise("64"));
  c.flag(path_flag("teacher-cache", "FOLDER", "keep what the teacher said here, for other runs on the same rows; its likeliest tokens, not the logits of --teacher-top 0"));
  c.flag(boolean_flag("other-teacher", "the teacher may be of another shape, if it has the same tokenizer"));
  c.group("Optimizer");
  c.flag(number_flag("lr", "X", "learning rate of light paths, and of all weights in `everything`").range(0, 10).otherwise("3e-4"));
  c.flag(number_flag("router-lr", "X", "of routers").range(0, 10).otherwise("3e-4"));
  c.flag(number_flag("bias-lr", "X", "of their biases").range(0, 10).otherwise("3e-3"));
  c.flag(number_flag("adapter-lr", "X", "of adapters").range(0, 10).otherwise("1e-3"));
  c.flag(number_flag("noise", "X", "scale of the noise on scores at the start of a stage; none in its last fifth").range(0, 1e3).otherwise("0.5"));
  c.flag(text_flag("picks", "WAY", "which tokens of a step run in full: those above the dial's thresholds, or of every row as many as its shares say").one_of({"threshold", "topk"}).otherwise("threshold"));
  c.flag(number_flag("tau", "X", "how far from its threshold a score still feels it").range(1e-3, 1e3).otherwise("1"));
  c.flag(integer_flag("context", "T", "tokens of a row").range(2, 1 << 20).otherwise("512"));
  c.flag(integer_flag("batch-size", "B", "rows of one forward").range(1, 4096).otherwise("2"));
  c.flag(integer_flag("accumulation", "N", "forwards of one step").range(1, 4096).otherwise("1"));
  c.flag(integer_flag("seed", "N", "of the order of rows, noise and adapters").range(0, INT64_MAX).otherwise("0"));
  c.group("Text");
  c.flag(path_flag("other", "TEXT", "other text, or self, of which the model is to keep less: its losses count less, its tokens as much in the budget, so that depth goes to the text of --data").many());
  c.flag(number_flag("other-share", "X", "share of the rows that are of --other").range(0.01, 0.99).otherwise("0.5"));
  c.flag(number_flag("other-weight", "X", "weight of their losses beside those of --data").range(0, 1e6).otherwise("0.1"));
  c.flag(count_flag("self-tokens", "N", "tokens that the teacher writes for self").noted("as many as are tuned on"));
  c.flag(chat_share_flag());
  c.flag(number_flag("validation-share", "X", "share of the text that is held out").range(1e-4, 0.5).otherwise("0.02"));
  c.flag(text_flag("field", "NAME", "field of .jsonl lines that holds the text").otherwise("text"));
  c.flag(boolean_flag("repair-utf8", "replace broken UTF-8 instead of refusing it"));
  c.group("Run");
  c.flag(integer_flag("eval-steps", "N", "look at the held-out text every so many steps; 0: at the start and the end of a stage").range(0, 1 << 30).otherwise("0"));
  c.flag(count_flag("eval-tokens", "N", "of held-out text that is looked at").range(1, 1e9).otherwise("8192"));
  c.flag(integer_flag("checkpoint-steps", "N", "save every so many steps; 0: by seconds only").range(0, 1 << 30).otherwise("0"));
  c.flag(number_flag("checkpoint-seconds", "X", "save every so many seconds; 0: by steps only").range(0, 1e9).otherwise("300"));
  c.flag(text_flag("type", "TYPE", "of matrices that tuning changed: q8_0, q4_1, bf16, f32, …").noted("MODEL's, Q8_0 where that has fewer than eight bits"));
  c.flag(text_flag("adapters", "HOW", "in the result: merged into the weights, or separate beside them, which then stay as they are stored").one_of({"auto", "merged", "separate"}).otherwise("auto").noted("auto: separate where the weights have fewer than eight bits, there is a teacher and no --type"));
  c.flag(text_flag("precision", "TYPE", "what products are computed in").one_of({"auto", "bf16", "f32"}).otherwise("auto"));
  c.flag(text_flag("f32-route", "NAME", "what computes f32 products").one_of({"auto", "mkl", "onednn"}).otherwise("auto"));
  c.flag(integer_flag("threads", "N", "0: all cores that this process may use").range(0, 4096).otherwise("0"));
  c.group("Output");
  c.flag(boolean_flag("json", "print the summary as JSON"));
  c.flag(boolean_flag("quiet", "print warnings and the summary only"));
  c.examples = {"fathom tune models/smol-mod --teacher models/SmolLM2-135M-Instruct.Q4_1.gguf --data book.txt --out runs/smol", "fathom tune models/smol-mod --teacher models/smol --data self --stages routers --target 0.7",
                "fathom tune --resume runs/smol"};
  return c;
}

}  // namespace fathom::cli
