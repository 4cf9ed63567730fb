// What a report reads of a run, and what it says about models: tolerant of absent figures, honest about differences.
#include "study/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sample.h"

namespace fathom::study {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

std::string make_run(const TemporaryFolder& folder, const std::string& metrics, const std::string& summary) {
  const std::string run = join_path(folder.path(), "run");
  make_folders(join_path(run, "model"));
  atomic_write(join_path(run, "model/model.safetensors"), "");
  if (!metrics.empty()) atomic_write(join_path(run, "metrics.jsonl"), metrics);
  if (!summary.empty()) atomic_write(join_path(run, "summary.json"), summary);
  return run;
}

TEST(Runs, MetricsAndSummary) {
  const TemporaryFolder folder;
  const RunRecord r = read_run(make_run(folder,
                                        "{\"type\":\"train\",\"step\":1,\"flops\":1e9,\"seconds\":1,\"loss\":8}\n"
                                        "{\"type\":\"train\",\"step\":2,\"flops\":2e9,\"seconds\":2,\"loss\":6,\"new_field\":[1]}\n"
                                        "{\"type\":\"eval\",\"step\":2,\"flops\":2e9,\"seconds\":2,\"loss\":7.5,\"loss_topk\":7.4}\n"
                                        "{\"type\":\"eval\",\"step\":3,\"loss\":null}\n"
                                        "{\"type\":\"warning\",\"step\":2,\"text\":\"block 1 collapsed\"}\n"
                                        "{\"type\":\"something else\",\"step\":2}\n"
                                        "{\"type\":\"final\",\"step\":4,\"loss\":5}\n"
                                        "{\"type\":\"train\",\"st",
                                        "{\"steps\":4,\"tokens\":1024,\"train_flops\":4e9,\"precision\":\"bf16\",\"other\":{}}") + "/");
  EXPECT_EQ(r.name, "run");
  EXPECT_EQ(r.train.loss.size(), 2u);
  EXPECT_NEAR(r.train.loss[1], 0.9 * 8 + 0.1 * 6, 1e-12);
  EXPECT_EQ(r.held_out.loss, (std::vector<double>{7.5}));  // the final loss is of other windows
  EXPECT_DOUBLE_EQ(r.held_out.flops[0], 2e9);
  const RunRecord no_eval = read_run(make_run(folder, "{\"type\":\"final\",\"step\":4,\"loss\":5}\n", "{\"steps\":4,\"tokens\":1024,\"train_flops\":4e9}"));
  EXPECT_EQ(no_eval.held_out.loss, (std::vector<double>{5}));
  EXPECT_TRUE(std::isnan(no_eval.held_out.seconds[0]));
  ASSERT_EQ(r.warnings.size(), 1u);
  EXPECT_EQ(r.warnings[0].text, "block 1 collapsed");
  EXPECT_EQ(r.warnings[0].step, 2);
  EXPECT_DOUBLE_EQ(r.flops, 4e9);
  EXPECT_TRUE(std::isnan(r.seconds));
  EXPECT_EQ(r.precision, "bf16");
}

TEST(Runs, TheDatasetThatItWasTrainedOn) {
  const TemporaryFolder folder;
  const std::string run = make_run(folder, "", "");
  EXPECT_EQ(read_run(run).dataset, "");
  atomic_write(join_path(run, "config.json"), "{\"data\": {\"dataset\": \"somewhere\"}} // a comment");
  EXPECT_EQ(read_run(run).dataset, "somewhere");
  make_folders(join_path(run, "data"));
  EXPECT_EQ(read_run(run).dataset, join_path(run, "data"));
}

TEST(Runs, ADatasetIsKnownByItsManifest) {
  const TemporaryFolder folder;
  const std::string run = make_run(folder, "", ""), copy = join_path(folder.path(), "copy");
  for (const std::string& dataset : {join_path(run, "data"), copy}) {
    make_folders(dataset);
    atomic_write(join_path(dataset, "manifest.json"), "{\"splits\": 1}");
  }
  EXPECT_TRUE(trained_on(read_run(run), join_path(run, "data")));
  EXPECT_TRUE(trained_on(read_run(run), copy));
  atomic_write(join_path(copy, "manifest.json"), "{\"splits\": 2}");
  EXPECT_FALSE(trained_on(read_run(run), copy));
  EXPECT_FALSE(trained_on(read_run(run), join_path(folder.path(), "book.txt")));
}

TEST(Runs, TheContextThatItWasTrainedIn) {
  const TemporaryFolder folder;
  const std::string run = make_run(folder, "", ""), model = join_path(run, "model");
  EXPECT_EQ(trained_context(model), std::nullopt);
  EXPECT_EQ(default_context({model}, {512}), 512);
  EXPECT_EQ(default_context({model}, {5000}), 1024);
  atomic_write(join_path(run, "config.json"), "{\"sequence_length\": 256}");
  EXPECT_EQ(trained_context(model), std::nullopt);  // not a run's: any project may have a config.json
  atomic_write(join_path(run, "metrics.jsonl"), "");
  EXPECT_EQ(trained_context(model + "/"), 256);
  EXPECT_EQ(trained_context(run), std::nullopt);  // RUN itself is no RUN/model
  EXPECT_EQ(default_context({model}, {512}), 256);
  EXPECT_EQ(default_context({model, folder.path()}, {512, 100}), 100);
  atomic_write(join_path(run, "config.json"), "{\"sequence_length\": \"long\"}");
  EXPECT_EQ(trained_context(model), std::nullopt);
}

TEST(Runs, WithoutRecordsEverythingIsUnknown) {
  const TemporaryFolder folder;
  const RunRecord r = read_run(make_run(folder, "", ""));
  EXPECT_TRUE(r.held_out.empty());
  EXPECT_TRUE(std::isnan(r.tokens));
}

std::string refusal(const std::string& path) {
  try {
    read_run(path);
  } catch (const UserError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Runs, Refusals) {
  const TemporaryFolder folder;
  EXPECT_NE(refusal(join_path(folder.path(), "none")).find("found no such file or folder"), std::string::npos);
  make_folders(join_path(folder.path(), "going"));
  atomic_write(join_path(folder.path(), "going/config.json"), "{}");
  EXPECT_EQ(refusal(join_path(folder.path(), "going")).find("finish it"), std::string::npos);  // a model's folder without weights, perhaps
  atomic_write(join_path(folder.path(), "going/metrics.jsonl"), "");
  EXPECT_NE(refusal(join_path(folder.path(), "going")).find("finish it with: fathom train --resume"), std::string::npos);
  const std::string run = make_run(folder, "{\"type\":\"train\"}\nnot json\n", "");
  EXPECT_NE(refusal(run).find("metrics.jsonl:2"), std::string::npos) << refusal(run);
  atomic_write(join_path(run, "metrics.jsonl"), "");
  atomic_write(join_path(run, "summary.json"), "[]");
  EXPECT_NE(refusal(run).find("expected an object"), std::string::npos) << refusal(run);
}

ReportModel figures(const std::string& name, double nats, double spread) {
  ReportModel m;
  m.run.name = name;
  for (int u = 0; u < 10; ++u) {
    const double wiggle = spread * (u % 2 ? 1 : -1);
    m.quality.units.push_back({100 * (nats + wiggle), 100, 400});
    m.quality.nll += 100 * (nats + wiggle);
    m.quality.tokens += 100;
    m.quality.bytes += 400;
  }
  return m;
}

TEST(Report, TheVerdictFollowsTheInterval) {
  Report r;
  r.models = {figures("mod", 3.0, 0), figures("short", 3.1, 0.001), figures("thin", 3.05, 0.001)};
  EXPECT_THAT(verdict(r), StartsWith("The loss is 1.6 % below that of the better twin, thin (−0.05"));
  r.models[0] = figures("mod", 3.1, 0);
  EXPECT_THAT(verdict(r), StartsWith("The loss is 1.6 % above that of the better twin, thin (+0.05"));
  r.models[2] = figures("thin", 3.09, 0.5);
  EXPECT_THAT(verdict(r), StartsWith("No clear difference from the better twin, thin (+0."));
  r.models.resize(2);
  EXPECT_THAT(verdict(r), StartsWith("No clear difference from its dense twin, short"));
  r.models.resize(1);
  EXPECT_EQ(verdict(r), "");
}

ReportModel routed(ReportModel m, infer::Rule rule = infer::Rule::causal) {
  m.quality.rule = rule;
  m.quality.blocks.push_back({.unit = {1, 0.25}, .capacity = 0.25, .realised = 0.25, .tokens = 1000, .ran = 250});
  return m;
}

TEST(Report, ARoutedModelIsNobodysTwin) {
  Report r;
  r.models = {routed(figures("mod", 3.0, 0)), routed(figures("control", 3.1, 0.001), infer::Rule::random)};
  EXPECT_THAT(verdict(r), HasSubstr(" that of the other model, control ("));
  EXPECT_THAT(report_page(r), HasSubstr("beside other models"));
  EXPECT_THAT(report_page(r), HasSubstr("model&#39;s own rule (the causal rule, or the random control)"));
  EXPECT_EQ(comparison(r)[8][0], "loss, model's own rule (nats/token)");
  std::swap(r.models[0], r.models[1]);
  r.models.resize(1);
  const std::string page = report_page(r);
  EXPECT_THAT(page, HasSubstr("under the random control"));
  EXPECT_THAT(page, Not(HasSubstr("recall")));  // nobody taught it
  EXPECT_EQ(comparison(r)[8][0], "loss, random control (nats/token)");
}

TEST(Report, DecodeSpeedStandsBesideEveryTwin) {
  Report r;
  r.models = {routed(figures("mod", 3.0, 0)), figures("short", 3.1, 0.001), figures("same", 3.2, 0.001)};
  r.models[2].role = "dense, same shape";
  for (size_t i = 0; i < 3; ++i) r.models[i].speed.tokens_per_second = std::vector<double>{1550, 1500, 1000}[i];
  EXPECT_THAT(comparison(r), Contains(std::vector<std::string>{"decode speed of mod over this", "–", "1.03", "1.55"}));
  EXPECT_THAT(report_page(r), HasSubstr("1.55 ×"));
  EXPECT_THAT(report_page(r), HasSubstr("of same, dense, same shape"));
}

TEST(Report, TheTextIsHeldOutOnlyIfItIs) {
  Report r;
  r.models = {figures("mod", 3.0, 0)};
  r.text = "book.txt";
  EXPECT_THAT(report_page(r), HasSubstr("on book.txt; whether a model was trained on it is not known"));
  EXPECT_THAT(report_page(r), Not(HasSubstr("no model was trained on")));
  EXPECT_THAT(report_page(r), Not(HasSubstr("held out, ")));
  r.held_out = true;
  EXPECT_THAT(report_page(r), HasSubstr("on text that no model was trained on: the validation split of book.txt (thresholds were calibrated on a part of it)"));
}

TEST(Report, CautionsNameWhatDiffers) {
  Report r;
  r.models = {figures("mod", 3.0, 0), figures("short", 3.1, 0.001), figures("thin", 3.1, 0.001)};
  for (ReportModel& m : r.models) m.run.flops = 1e15, m.run.precision = "f32";
  r.models[1].run.flops = 1.015e15;
  EXPECT_THAT(cautions(r), IsEmpty());
  r.models[2].run.flops = 1.05e15;
  EXPECT_THAT(cautions(r), ElementsAre("Not at equal training FLOPs: thin 1.05P (+5.0 %) against mod 1.00P."));
  r.models[2].run.flops = NAN;
  EXPECT_THAT(cautions(r), ElementsAre("Training FLOPs unknown, so perhaps not equal: thin."));
  r.models[2].run.flops = 1e15, r.models[1].run.precision = "bf16", r.models[2].run.precision = "";
  EXPECT_THAT(cautions(r), ElementsAre("Not trained in one precision: mod f32, short bf16, thin unknown."));
  EXPECT_THAT(report_page(r), HasSubstr("<strong>Not trained in one precision: mod f32"));
  EXPECT_EQ(report_json(r)["cautions"].size(), 1U);
  const auto rows = comparison(r);
  EXPECT_THAT(rows, Contains(std::vector<std::string>{"training precision", "f32", "bf16", "–"}));
}

TEST(Report, WhatTheTrainerWarnedOfIsACaution) {
  Report r;
  r.models = {figures("mod", 3.0, 0), figures("control", 3.1, 0.001)};
  for (ReportModel& m : r.models) m.run.flops = 1e15, m.run.precision = "f32";
  r.models[0].run.steps = 100;
  r.models[0].run.warnings = {{"block 1 has collapsed: position alone decides who runs it (91 % explained)", 10},
                              {"block 3 has collapsed: no token runs it (capacity 0.25)", 10},
                              {"block 1 has collapsed: position alone decides who runs it (97 % explained)", 20}};
  r.models[1].run.warnings = {{"something", NAN}};
  EXPECT_THAT(cautions(r), ElementsAre("While mod was trained: block 1 has collapsed: position alone decides who runs it (97 % explained); said 2 times, last after step 20 of 100.",
                                       "While mod was trained: block 3 has collapsed: no token runs it (capacity 0.25); after step 10 of 100.",
                                       "While control was trained: something."));
  EXPECT_THAT(report_page(r), HasSubstr("While mod was trained: block 3 has collapsed"));
}

TEST(Report, RolesComeFromTheConfigurations) {
  const model::ModelConfig mod = sample_config(300, true), dense = sample_config(300, false);
  RunRecord one, other;
  one.tokens = 1000, other.tokens = 800;
  EXPECT_EQ(role_of(mod, one, mod, one), "Mixture of Depths");
  EXPECT_EQ(role_of(mod, one, mod, other), "Mixture of Depths, same shape, fewer tokens");
  EXPECT_EQ(role_of(mod, one, dense, other), "dense, same shape, fewer tokens");
  other.tokens = 1010;
  EXPECT_EQ(role_of(mod, one, dense, other), "dense, same shape");  // not "fewer tokens" for its shape alone
  model::ModelConfig c = dense;
  c.num_hidden_layers = 3, c.hidden_size = 48;
  other.tokens = 2000;
  EXPECT_EQ(role_of(mod, one, c, other), "dense, fewer blocks, wider, more tokens");
  c = mod;
  c.routing.selection = routing::Selection::random;
  other.tokens = NAN;
  EXPECT_EQ(role_of(mod, one, c, other), "random routing (control), same shape");
}

TEST(Report, TheComparisonHasARowForEveryFigure) {
  Report r;
  r.models = {figures("mod", 3.0, 0), figures("short", 3.1, 0.001)};
  const auto rows = comparison(r);
  EXPECT_EQ(rows[0], (std::vector<std::string>{"", "mod", "short"}));
  for (const auto& row : rows) EXPECT_EQ(row.size(), 3u) << row[0];
  const auto find = [&](const std::string& label) {
    for (const auto& row : rows)
      if (row[0].starts_with(label)) return row;
    return std::vector<std::string>{};
  };
  EXPECT_EQ(find("training FLOPs")[1], "–");  // unknown, not 0
  EXPECT_EQ(find("loss, causal rule")[1], "3.0000 ± 0.0000");
  EXPECT_EQ(find("loss of mod minus this")[2].substr(0, 9), "−0.1000");
}

}  // namespace
}  // namespace fathom::study
