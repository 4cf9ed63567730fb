// Tasks by the engine: sums equal those of whole texts read one by one, to the bit and however items are batched; costs and statistics equal those by hand; an
// interrupted evaluation goes on to the same results.
#include "study/task_eval.h"

#include <fstream>
#include <set>

#include "bounds.h"
#include "infer/score.h"
#include "sample.h"
#include "study/task_progress.h"

namespace fathom::study {
namespace {

Task sample_task(bool continuations = false) {
  Task task{.name = "tides", .path = "tides.jsonl", .hash = "0", .continuations = continuations, .items = {}};
  const std::vector<std::string> words = {"calm", "gone", "the tide", "fair upon the straits", "é", "glimmering and vast, out in"};
  for (size_t i = 0; i < 12; ++i) {
    TaskItem item{.context = kText.substr(i * 7, 4 + i * 5 % 40), .choices = {}, .answer = 0};
    const size_t choices = continuations ? 1 : 2 + i % 4;
    for (size_t c = 0; c < choices; ++c) item.choices.push_back(words[(i + c) % words.size()]);
    item.answer = static_cast<int64_t>(i % choices);
    task.items.push_back(item);
  }
  // A long one, of which a model of 64 tokens does not read all.
  task.items.push_back({.context = kText.substr(0, 320), .choices = {"calm", "fair upon the straits"}, .answer = 1});
  if (continuations) task.items.back() = {.context = kText.substr(0, 320), .choices = {"calm"}, .answer = 0};
  return task;
}

TEST(TaskEval, SumsAreThoseOfWholeTextsReadAlone) {
  const TemporaryFolder folder;
  for (const bool routed : {false, true}) {
    const Subject s = sample_subject(folder, routed ? "mod" : "dense", routed, 3);
    const model::ModelConfig& config = s.engine->config();
    const infer::ScoreOptions options{.policy = policy_of(s, infer::Rule::causal, {})};
    for (const bool continuations : {false, true}) {
      const Task task = sample_task(continuations);
      const TaskResult result = evaluate_task(s, task);
      const TaskEncoder encoder(*s.tokenizer, config.max_position_embeddings);
      EXPECT_EQ(result.cut, 1);
      EXPECT_EQ(result.read, std::ssize(task.items));
      for (size_t i = 0; i < task.items.size(); ++i) {
        const ItemResult& r = result.items[i];
        const TaskRequest request = encoder.request(task.items[i], "t");
        int64_t rows = std::ssize(request.shared), blocks = 0, total = 0, dense_blocks = 0, dense_total = 0;
        for (size_t c = 0; c < task.items[i].choices.size(); ++c) {
          std::vector<int32_t> text = request.shared;
          const TaskRequest::Choice& choice = request.choices[c];
          text.insert(text.end(), choice.tokens.begin(), choice.tokens.end());
          const int64_t tokens = std::ssize(text), scored = choice.scored();
          // With the last target as one token more, where the model has room for it: its row decides nothing before it.
          const bool room = tokens < config.max_position_embeddings;
          if (room) text.push_back(choice.targets.back());
          infer::DocumentScore alone = infer::score_document(*s.engine, text, options);
          for (auto* rows_of : {&alone.decisions.run}) for (auto& run : *rows_of) run.resize(static_cast<size_t>(tokens));
          if (room) {
            double sum = 0;
            bool greedy = true;
            for (int64_t t = tokens - scored; t < tokens; ++t)
              sum -= alone.nll[static_cast<size_t>(t)], greedy &= alone.best[static_cast<size_t>(t)] == text[static_cast<size_t>(t) + 1];
            EXPECT_EQ(r.log_likelihood[c], sum) << i << " " << c;
            if (continuations) { EXPECT_EQ(r.greedy, greedy) << i; }
          }
          rows += std::ssize(choice.tokens);
          const model::ForwardCost spent = model::forward_cost(config, tokens, alone.decisions, scored), dense = model::dense_cost(config, tokens, scored);
          blocks += spent.blocks_total(), total += spent.total(), dense_blocks += dense.blocks_total(), dense_total += dense.total();
        }
        if (!request.shared.empty()) {  // was read once
          const int64_t shared = std::ssize(request.shared), more = std::ssize(request.choices) - 1;
          const infer::DocumentScore alone = infer::score_document(*s.engine, request.shared, options);
          const int64_t spent = model::forward_cost(config, shared, alone.decisions, 0).total(), dense = model::dense_cost(config, shared, 0).total();
          blocks -= more * spent, total -= more * spent, dense_blocks -= more * dense, dense_total -= more * dense;
        }
        EXPECT_EQ(r.rows, rows) << i;
        EXPECT_EQ(r.blocks, blocks) << i;
        EXPECT_EQ(r.total, total) << i;
        EXPECT_EQ(r.dense_blocks, dense_blocks) << i;
        EXPECT_EQ(r.dense_total, dense_total) << i;
        EXPECT_EQ(r.cut, request.cut) << i;
      }
      if (!routed) EXPECT_EQ(result.block_fraction(), 1);
      else EXPECT_LT(result.block_fraction(), 0.95);
    }
  }
}

TEST(TaskEval, ItemsAreTheSameToTheBitHoweverTheyAreBatched) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 3);
  const Task task = sample_task();
  const TaskResult whole = evaluate_task(s, task, {.rows_per_step = 4096});
  for (const int64_t rows : {1, 2, 7, 64}) EXPECT_EQ(evaluate_task(s, task, {.rows_per_step = rows}).items, whole.items) << rows;
  // In memory for the greatest item alone, and on several threads.
  Subject tight = s;
  tight.engine = std::make_shared<infer::Engine>(infer::Weights::load(*s.folder, 1), infer::EngineOptions{.threads = 3, .kv_bytes = 6 * s.engine->kv_bytes_for(64)});
  EXPECT_EQ(evaluate_task(tight, task).items, whole.items);
  EXPECT_LE(tight.engine->pool().peak_pages() * tight.engine->pool().page_bytes(), 6 * s.engine->kv_bytes_for(64));
  EXPECT_EQ(tight.engine->pool().pages_in_use(), 0);
  // Alone.
  Task one = task;
  one.items = {task.items[4]};
  EXPECT_EQ(evaluate_task(s, one).items[0], whole.items[4]);
  tight.engine = std::make_shared<infer::Engine>(infer::Weights::load(*s.folder, 1), infer::EngineOptions{.threads = 1, .kv_bytes = s.engine->kv_bytes_for(64)});
  EXPECT_THAT(error_message([&] { evaluate_task(tight, task); }), ::testing::HasSubstr("--kv-memory"));
}

TEST(TaskEval, AnotherDialAnswersAtItsOwnCost) {
  const TemporaryFolder folder;
  const Subject s = sample_subject(folder, "mod", true, 3);
  const TaskResult low = evaluate_task(s, sample_task(), {.dial = 0.6}), full = evaluate_task(s, sample_task(), {.dial = 1.0});
  EXPECT_LT(low.block_fraction(), full.block_fraction());
  EXPECT_GE(full.block_fraction(), 1);  // routers
  EXPECT_EQ(full.dial, 1);
}

TEST(TaskEval, DamagedWeightsAreNamed) {
  const TemporaryFolder folder;
  const std::string json = sample_tokenizer();
  const model::ModelConfig c = sample_config(text::Tokenizer::from_json(json, "sample").vocab_size(), false);
  const Subject s = Subject::open(test::write_sample(folder, "bad", c, json, false, 1, [](model::Weights& w) { w.at("model.norm.weight").assign(24, 3e38F); }), {.threads = 1});
  EXPECT_THAT(error_message([&] { evaluate_task(s, sample_task()); }), ::testing::HasSubstr("tides.jsonl: item 1: found a loss that is not finite"));
}

// A model whose blocks add nothing, so that what it says next depends on the last token alone: `chain`, one token after the other.
Subject chain_subject(const TemporaryFolder& folder, const std::vector<int32_t>& chain) {
  const std::string json = sample_tokenizer();
  const model::ModelConfig c = sample_config(text::Tokenizer::from_json(json, "sample").vocab_size(), false);
  const auto damage = [&](model::Weights& w) {
    for (auto& [name, values] : w)
      if (name.find("o_proj") != std::string::npos || name.find("down_proj") != std::string::npos || name == "model.embed_tokens.weight" || name == "lm_head.weight")
        std::ranges::fill(values, 0.0F);
    for (size_t i = 0; i + 1 < chain.size(); ++i) {
      w.at("model.embed_tokens.weight").at(static_cast<size_t>(chain[i] * c.hidden_size) + i) = 1;
      w.at("lm_head.weight").at(static_cast<size_t>(chain[i + 1] * c.hidden_size) + i) = 10;
    }
  };
  return Subject::open(test::write_sample(folder, "chain", c, json, false, 1, damage), {.threads = 1});
}

TEST(TaskEval, AContinuationIsRightWhenTheModelSaysEachOfItsTokens) {
  const text::Tokenizer t = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  const TaskEncoder::Pair pair = TaskEncoder(t, 64).pair("The sea is", " gone now");
  std::vector<int32_t> chain = {pair.context.back()};
  chain.insert(chain.end(), pair.continuation.begin(), pair.continuation.end());
  ASSERT_GE(chain.size(), 3u);
  ASSERT_EQ(std::set(chain.begin(), chain.end()).size(), chain.size()) << "each token is followed by one";
  const TemporaryFolder folder;
  const Task task{.name = "t", .path = "t", .hash = "", .continuations = true,
                  .items = {{.context = "The sea is", .choices = {"gone now"}}, {.context = "The sea was", .choices = {"gone now"}}, {.context = "The sea is", .choices = {"gone now."}}}};
  EXPECT_EQ(evaluate_task(chain_subject(folder, chain), task, {.rows_per_step = 3}).right, (std::vector<bool>{true, false, false}));
}

Task two_choices(const std::string& a, const std::string& b) {
  return {.name = "t", .path = "t", .hash = "", .items = {{.context = "c", .choices = {a, b}, .answer = 1}}};
}

TEST(TaskEval, AnAnswerIsTheFirstOfTheGreatest) {
  const Task task = two_choices("aaaa", "bb");
  EXPECT_TRUE(answered(task, 0, {.log_likelihood = {-3, -2}}));
  EXPECT_FALSE(answered(task, 0, {.log_likelihood = {-2, -3}}));
  EXPECT_FALSE(answered(task, 0, {.log_likelihood = {-2, -2}}));
  EXPECT_FALSE(answered(task, 0, {.log_likelihood = {-3, -2}}, true));  // −0.75, −1 a character
  EXPECT_TRUE(answered(task, 0, {.log_likelihood = {-5, -2}}, true));
  // Characters, not bytes: "éé" has two of four bytes.
  EXPECT_FALSE(answered(two_choices("aaa", "éé"), 0, {.log_likelihood = {-3, -2.5}}, true));
}

TEST(TaskEval, StatisticsByHand) {
  TaskResult r{.name = "t", .file = "t", .hash = "", .items = {}, .right = {true, false, true, true}, .right_by_length = {false, false, false, true}};
  EXPECT_DOUBLE_EQ(r.accuracy().value, 0.75);
  EXPECT_DOUBLE_EQ(r.accuracy().error, 0.25);  // √(0.75 / 3 / 4)
  EXPECT_DOUBLE_EQ(r.accuracy_by_length().value, 0.25);
  r.continuations = true;
  for (const double ll : {-1.0, -2.0, -4.0, -5.0}) r.items.push_back({.log_likelihood = {ll}, .blocks = 3, .total = 10, .dense_blocks = 4, .dense_total = 16});
  EXPECT_DOUBLE_EQ(r.perplexity().value, std::exp(3.0));
  EXPECT_DOUBLE_EQ(r.perplexity().error, std::exp(3.0) * std::sqrt(10.0 / 3 / 4));
  EXPECT_DOUBLE_EQ(r.block_fraction(), 0.75);
  EXPECT_DOUBLE_EQ(r.total_fraction(), 0.625);
  EXPECT_TRUE(std::isnan(TaskResult{.name = "", .file = "", .hash = "", .items = {}, .right = {true}, .right_by_length = {}}.accuracy().error));

  // Differences 1, 0, −1, 1: mean 0.25, sum of squares 2.75, t(3) = 3.182.
  const TaskDifference d = task_difference({true, true, false, true}, {false, true, true, false});
  EXPECT_DOUBLE_EQ(d.value.value, 0.25);
  EXPECT_NEAR(d.value.half, 3.182 * std::sqrt(2.75 / 3 / 4), 1e-12);
  EXPECT_EQ(d.gained, 2);
  EXPECT_EQ(d.lost, 1);
}

struct Stopped {};

class Resumed : public ::testing::Test {
 protected:
  Json subjects(std::optional<double> dial = {}) const { return Json::array({task_subject_json(subject_, dial)}); }

  // As `fathom eval --tasks` does; stops after so many items.
  TaskResult run(const Task& task, int64_t stop_after = INT64_MAX) {
    TaskProgress kept(path_, subjects(), {&task, 1});
    TaskOptions options{.rows_per_step = 40};
    options.known = [&](size_t item) { return kept.known(0, 0, item); };
    options.done = [&](size_t item, const ItemResult& result, int64_t) {
      kept.add(0, 0, item, result);
      if (--stop_after == 0) throw Stopped();
    };
    return evaluate_task(subject_, task, options);
  }
  std::string refusal(const Json& of, const Task& task) {
    return error_message([&] { TaskProgress(path_, of, {&task, 1}); });
  }

  TemporaryFolder folder_;
  std::string path_ = join_path(folder_.path(), "kept.jsonl");
  Subject subject_ = sample_subject(folder_, "mod", true, 3);
};

TEST_F(Resumed, AnInterruptedRunGoesOnToTheSameResults) {
  for (const bool continuations : {false, true}) {
    std::filesystem::remove(path_);
    const Task task = sample_task(continuations);
    EXPECT_THROW(run(task, 3), Stopped);
    EXPECT_THROW(run(task, 4), Stopped);
    std::ofstream(path_, std::ios::app) << "{\"subject\": 0, \"task\": 0, \"it";  // a write that was cut off
    const TaskResult result = run(task);
    EXPECT_EQ(result.read, std::ssize(task.items) - 7);
    EXPECT_EQ(result.items, evaluate_task(subject_, task).items);
    const TaskResult again = run(task);
    EXPECT_EQ(again.read, 0);
    EXPECT_EQ(again.items, result.items);
    EXPECT_EQ(TaskProgress(path_, subjects(), {&task, 1}).known(0, 0), std::ssize(task.items));
    // Fewer items of the same file, and all of them again.
    Task few = task;
    few.items.resize(5);
    EXPECT_EQ(run(few).read, 0);
    EXPECT_EQ(run(task).items, result.items);
  }
}

TEST_F(Resumed, ResultsOfSomethingElseAreRefusedByName) {
  const Task task = sample_task();
  EXPECT_THROW(run(task, 3), Stopped);
  const Subject other = sample_subject(folder_, "other", true, 4);
  EXPECT_THAT(refusal(Json::array({task_subject_json(other, {})}), task), ::testing::HasSubstr("kept.jsonl: subjects[0].fingerprint: found "));
  EXPECT_THAT(refusal(subjects(0.6), task), ::testing::HasSubstr("subjects[0].dial: found 0.7, expected 0.6, as it is now; these are results of something else"));
  Json thresholds = subjects();
  thresholds[0]["thresholds"][1] = 9.5;
  EXPECT_THAT(refusal(thresholds, task), ::testing::HasSubstr("subjects[0].thresholds[1]: found "));
  Json both = subjects();
  both.push_back(both[0]);
  EXPECT_THAT(refusal(both, task), ::testing::HasSubstr("kept.jsonl: subjects: found "));
  Task changed = task;
  changed.hash = "1";
  EXPECT_THAT(refusal(subjects(), changed), ::testing::HasSubstr("tasks[0].hash: found \"0\", expected \"1\""));
  Subject rounded = subject_;
  rounded.engine = std::make_shared<infer::Engine>(infer::Weights::load(*subject_.folder, 1), infer::EngineOptions{.threads = 1, .kv_type = KvType::f16});
  EXPECT_THAT(refusal(Json::array({task_subject_json(rounded, {})}), task), ::testing::HasSubstr("subjects[0].kv_type: found \"f32\", expected \"f16\""));
}

TEST_F(Resumed, BadFilesAreRefusedByLine) {
  const Task task = sample_task();
  EXPECT_THROW(run(task, 3), Stopped);
  const std::string good = read_file(path_, 1 << 20), header = good.substr(0, good.find('\n') + 1);
  const auto with = [&](const std::string& lines) {
    atomic_write(path_, lines);
    return refusal(subjects(), task);
  };
  EXPECT_THAT(with("{}\n"), ::testing::HasSubstr("line 1: found an object"));
  EXPECT_THAT(with("some text\n"), ::testing::HasSubstr("line 1"));
  EXPECT_THAT(with(header + "{}\n"), ::testing::HasSubstr("line 2: subject: "));
  EXPECT_THAT(with(header + "{\"subject\": 1, \"task\": 0, \"item\": 0}\n"), ::testing::HasSubstr("line 2: subject: found the number 1"));
  EXPECT_THAT(with(header + "{\"subject\": 0, \"task\": 1, \"item\": 0}\n"), ::testing::HasSubstr("line 2: task: found the number 1"));
  ItemResult r{.log_likelihood = {-1, -2, -3}};
  const auto line = [&](const Json& result) { return Json{{"subject", 0}, {"task", 0}, {"item", 0}, {"result", result}}.dump() + "\n"; };
  EXPECT_THAT(with(header + line(r.to_json())), ::testing::HasSubstr("line 2: log_likelihood: found 3 numbers, expected 2, one for each choice"));
  r.log_likelihood = {-1, 2};
  EXPECT_THAT(with(header + line(r.to_json())), ::testing::HasSubstr("line 2: log_likelihood[1]: found the number 2"));
  EXPECT_EQ(with(header + "half a li"), "no error");
  EXPECT_EQ(with("half a header"), "no error");
  EXPECT_EQ(read_file(path_, 1 << 20), header);  // begun anew
  EXPECT_EQ(with(""), "no error");
}

}  // namespace
}  // namespace fathom::study
