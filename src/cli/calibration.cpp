#include "cli/calibration.h"

#include "cli/bar.h"
#include "cli/common.h"

namespace fathom::cli {

void calibration_flags(Command& c) {
  c.flag(path_flag("calibrate-on", "PATH", "other text to calibrate on").many());
  c.flag(count_flag("calibration-tokens", "N", "tokens to calibrate on, in windows spread evenly over the text; 0 is all").range(0, 1e15).otherwise("32768"));
}

Texts load_texts(const Arguments& args, const model::ModelFolder& model, bool calibrate, int64_t context) {
  Texts texts{.data = {}, .other = {}, .context = context};
  const bool shared = calibrate && !args.given("calibrate-on");
  const text::Tokenizer tokenizer = model.tokenizer();
  const auto load = [&](const char* flag, int64_t limit) {
    return study::load_held_out(args.texts(flag), tokenizer, study::document_ends(model.config(), tokenizer), held_out_options(args, model, context, limit));
  };
  const auto use = [&](const std::vector<study::Window>& windows, const std::string& name) {
    for (const study::Window& w : windows) texts.calibration.push_back(w.tokens);
    texts.calibration_name = name;
  };
  if (args.given("data")) texts.data = load("data", shared ? 0 : args.integer("limit"));
  if (shared) {
    use(study::spread_windows(study::take_half(*texts.data), args.integer("calibration-tokens")), texts.data->name + ", every second window");
    texts.data->windows = study::spread_windows(texts.data->windows, args.integer("limit"));
    texts.data->predicted = study::predicted_tokens(texts.data->windows);
  } else if (calibrate) {
    texts.other = load("calibrate-on", args.integer("calibration-tokens"));
    use(texts.other->windows, texts.other->name);
  }
  return texts;
}

routing::DialTable calibrate(const Arguments& args, std::shared_ptr<const infer::Weights> weights, const routing::DialTable& grid, const convert::CalibrationText& text, bool shift) {
  Bar bar(args, "calibrating", "dials", static_cast<int64_t>(grid.points.size()));
  const auto table = convert::calibrate_dial(std::move(weights), grid, text,
                                             {.threads = threads_of(args), .shift = shift, .progress = [&](size_t done, size_t) { bar.update(static_cast<int64_t>(done)); }, .check = stop_if_interrupted});
  bar.finish();
  return table;
}

}  // namespace fathom::cli
