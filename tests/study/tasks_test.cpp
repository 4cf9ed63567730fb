// Task files and how their items are cut into tokens: the four forms, every refusal, and lm-evaluation-harness's rules for a pair.
#include "study/tasks.h"

#include <bzlib.h>
#include <zstd.h>

#include "bounds.h"
#include "core/json.h"
#include "sample.h"
#include "study/task_progress.h"

namespace fathom::study {
namespace {

class TaskFiles : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    const std::string path = join_path(folder_.path(), name);
    atomic_write(path, text);
    return path;
  }
  std::string refusal(const std::string& text) {
    const std::string path = write("bad.jsonl", text);
    std::string message = error_message([&] { read_task(path); });
    if (message.starts_with(path)) message.erase(0, path.size());
    return message;
  }
  TemporaryFolder folder_;
};

TEST_F(TaskFiles, Continuations) {
  const Task task = read_task(write("words.jsonl", "{\"context\": \"The sea is\", \"continuation\": \"calm\"}\n\n{\"continuation\": \"full\", \"context\": \"\", \"more\": 1}"));
  EXPECT_EQ(task.name, "words");
  EXPECT_TRUE(task.continuations);
  ASSERT_EQ(task.items.size(), 2u);
  EXPECT_EQ(task.items[0].context, "The sea is");
  EXPECT_EQ(task.items[0].choices, std::vector<std::string>{"calm"});
  EXPECT_EQ(task.items[1].context, "");
}

TEST_F(TaskFiles, ChoicesAreReadAsTheyStandAndQuestionsGetTheirAnswerLine) {
  const Task choices = read_task(write("a.jsonl", "{\"context\": \"The sea:\", \"choices\": [\"a\", \" b \", \"c\"], \"answer\": 2}"));
  EXPECT_FALSE(choices.continuations);
  EXPECT_EQ(choices.items[0].context, "The sea:");
  EXPECT_EQ(choices.items[0].choices, (std::vector<std::string>{"a", " b ", "c"}));
  EXPECT_EQ(choices.items[0].answer, 2);
  const Task questions = read_task(write("b.jsonl", "{\"query\": \"Question: Why?\", \"choices\": [\"a\", \"b\"], \"gold\": 1}\n"
                                                    "{\"query\": \"Question: Why?\\n\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n"));
  for (const TaskItem& item : questions.items) EXPECT_EQ(item.context, "Question: Why?\nAnswer:");
  EXPECT_EQ(questions.items[0].answer, 1);
}

TEST_F(TaskFiles, SixLinesAnItem) {
  const std::string text = "Tides: The tide is full. the moon\n2\nlies fair.\nis gone.\ngleams.\nis \"vast\".\nSea: A\n0\nb\nc\nd\ne\n";
  for (const std::string ending : {"\n", ""}) {
    const Task task = read_task(write("tides.txt", text.substr(0, text.size() - 1) + ending));
    ASSERT_EQ(task.items.size(), 2u);
    EXPECT_EQ(task.items[0].context, "Tides: The tide is full. the moon");
    EXPECT_EQ(task.items[0].answer, 2);
    EXPECT_EQ(task.items[0].choices[3], "is \"vast\".");
    EXPECT_EQ(task.items[1].choices, (std::vector<std::string>{"b", "c", "d", "e"}));
  }
}

TEST_F(TaskFiles, PackedOnesAreTheSame) {
  const std::string text = "{\"context\": \"a\", \"continuation\": \"b\"}\n";
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  const Task plain = read_task(write("lambada_openai.jsonl", text)), task = read_task(write("words.jsonl.zst", packed));
  EXPECT_EQ(task.name, "words");
  EXPECT_EQ(task.hash, plain.hash);
  EXPECT_EQ(task.items.size(), 1u);
  EXPECT_EQ(read_known_task("lambada", folder_.path()).name, "lambada");
  EXPECT_THAT(error_message([&] { read_known_task("piqa", folder_.path()); }), ::testing::HasSubstr("found no piqa.jsonl for the task piqa, expected the file of the task, or its .zst or .bz2"));
  write("piqa.jsonl.zst", packed);
  EXPECT_EQ(read_known_task("piqa", folder_.path()).items.size(), 1u);
  std::string six = "Tides: the moon\n0\nb\nc\nd\ne\n", bzip2(1000, '\0');
  unsigned size = static_cast<unsigned>(bzip2.size());
  ASSERT_EQ(BZ2_bzBuffToBuffCompress(bzip2.data(), &size, six.data(), static_cast<unsigned>(six.size()), 9, 0, 0), BZ_OK);
  write("hellaswag_val_full.txt.bz2", bzip2.substr(0, size));
  EXPECT_EQ(read_known_task("hellaswag", folder_.path()).items.at(0).choices, (std::vector<std::string>{"b", "c", "d", "e"}));
  EXPECT_EQ(read_task(join_path(folder_.path(), "hellaswag_val_full.txt.bz2")).name, "hellaswag_val_full");
}

TEST_F(TaskFiles, BadOnesAreRefusedByLine) {
  EXPECT_EQ(refusal(""), ": found no item, expected at least one");
  EXPECT_EQ(refusal(" \n\n"), ": found no item, expected at least one");
  const std::string good = "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0}\n";
  EXPECT_EQ(refusal(good + "{\"context\": \"a\", \"continuation\": \"b\"}"),
            ": line 2: found an item of another form than those before, expected one form in a file; put them into files of their own");
  EXPECT_THAT(refusal(good + "{\"context\": \"a\", "), ::testing::StartsWith(": line 2"));
  EXPECT_THAT(refusal(good + "[1]"), ::testing::StartsWith(": line 2: "));
  EXPECT_THAT(refusal("{\"context\": \"a\"}"), ::testing::StartsWith(": line 1: choices: "));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"continuation\": \"\"}"), ::testing::HasSubstr("line 1: continuation: found an empty text"));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"continuation\": 3}"), ::testing::HasSubstr("line 1: continuation: found the number 3"));
  EXPECT_THAT(refusal("{\"choices\": [\"b\", \"c\"], \"answer\": 0}"), ::testing::HasSubstr("line 1: context: "));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"choices\": [\"b\"], \"answer\": 0}"), ::testing::HasSubstr("line 1: choices: found 1 text, expected 2 to 1024"));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"choices\": [\"b\", \"\"], \"answer\": 0}"), ::testing::HasSubstr("line 1: choices[1]: found an empty text"));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"choices\": [\"b\", 1], \"answer\": 0}"), ::testing::HasSubstr("line 1: choices[1]: "));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}"), ::testing::HasSubstr("line 1: answer: found the number 2"));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"choices\": [\"b\", \"c\"]}"), ::testing::HasSubstr("line 1: answer: "));
  EXPECT_THAT(refusal("{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0}"), ::testing::HasSubstr("line 1: gold: "));
  EXPECT_THAT(refusal("Sea: A\nfour\nb\nc\nd\ne\n"), ::testing::StartsWith(": line 2: found \"four\", expected the answer's index, 0 to 3"));
  EXPECT_THAT(refusal("Sea: A\n4\nb\nc\nd\ne\n"), ::testing::StartsWith(": line 2: found \"4\""));
  EXPECT_THAT(refusal("Sea: A\n1\nb\n\nd\ne\n"), ::testing::StartsWith(": line 4: found an empty line"));
  EXPECT_THAT(refusal("Sea: A\n1\nb\nc\nd\n"), ::testing::StartsWith(": line 5: found the end of the file after 5 of an item's lines"));
  EXPECT_THAT(refusal("Sea: \xff\n1\nb\nc\nd\ne\n"), ::testing::StartsWith(": byte 5: found bytes that are not UTF-8"));
  EXPECT_THAT(error_message([&] { read_task(folder_.path()); }), ::testing::HasSubstr("found a folder, expected a task file"));
  EXPECT_THAT(error_message([&] { read_task(join_path(folder_.path(), "none")); }), ::testing::HasSubstr("none: cannot open"));
}

TEST(Limits, TaskFiles) {
  const TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "t.jsonl"), begin = "{\"context\": \"", end = "\", \"continuation\": \"b\"}";
  const auto sized = [&](int64_t bytes) {
    atomic_write(path, begin + std::string(static_cast<size_t>(bytes) - begin.size() - end.size(), 'a') + end);
    EXPECT_EQ(read_task(path).items.size(), 1u);
  };
  expect_bound("kTaskBytes", [&] { sized(limits::kTaskBytes); }, [&] { sized(limits::kTaskBytes + 1); }, "more than 67108864 bytes");
  const auto choices = [&](int64_t count) {
    atomic_write(path, Json{{"context", "a"}, {"choices", std::vector<std::string>(static_cast<size_t>(count), "b")}, {"answer", 0}}.dump());
    read_task(path);
  };
  expect_bound("kTaskChoices", [&] { choices(limits::kTaskChoices); }, [&] { choices(limits::kTaskChoices + 1); }, "found 1025 texts, expected 2 to 1024");
  const std::string kept = join_path(folder.path(), "kept.jsonl");  // refused by its size, before it is read
  expect_bound("kTaskResultsBytes", [&] { TaskProgress(hollow_file(kept, 1 << 10), Json::array(), {}); },
               [&] { TaskProgress(hollow_file(kept, limits::kTaskResultsBytes + 1), Json::array(), {}); }, str("at most ", limits::kTaskResultsBytes));
}

std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The sample's tokenizer with what its post-processor puts around a text.
text::Tokenizer with_ends(const std::string& before, const std::string& after) {
  Json json = Json::parse(sample_tokenizer());
  Json single = Json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}), special = Json::object();
  const auto piece = [&](const std::string& token) {
    special[token] = {{"id", token}, {"ids", {json["model"]["vocab"][token]}}, {"tokens", {token}}};
    return Json{{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  };
  if (!before.empty()) single.insert(single.begin(), piece(before));
  if (!after.empty()) single.push_back(piece(after));
  json["post_processor"] = {{"type", "TemplateProcessing"}, {"single", single}, {"pair", Json::array()}, {"special_tokens", special}};
  return text::Tokenizer::from_json(json.dump(), "sample");
}

TEST(TaskEncoder, WhiteSpaceAtTheContextsEndGoesToTheContinuation) {
  const text::Tokenizer t = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  const TaskEncoder encoder(t, 64);
  const TaskEncoder::Pair plain = encoder.pair("The sea is", " calm");
  EXPECT_EQ(plain.context, t.encode("The sea is"));
  EXPECT_EQ(joined(plain.context, plain.continuation), t.encode("The sea is calm"));
  for (const std::string space : {" ", "\n", " \n\t", "\u00a0", "\u2003", "\x1f"}) {
    const TaskEncoder::Pair moved = encoder.pair("The sea is" + space, "calm");
    EXPECT_EQ(moved.context, plain.context) << space;
    EXPECT_EQ(joined(moved.context, moved.continuation), t.encode("The sea is" + space + "calm")) << space;
  }
  // Of a whole that is cut differently at the seam, the context's own number of tokens comes off.
  const TaskEncoder::Pair seam = encoder.pair("The se", "a is");
  EXPECT_EQ(seam.context, t.encode("The se"));
  const std::vector<int32_t> whole = t.encode("The sea is");
  EXPECT_NE(joined(seam.context, seam.continuation), whole) << "a merge over the seam, or this shows nothing";
  EXPECT_EQ(seam.continuation, std::vector<int32_t>(whole.begin() + std::ssize(seam.context), whole.end()));
}

TEST(TaskEncoder, AContextBeginsAsTheTokenizerBeginsATextAndNothingEndsIt) {
  const text::Tokenizer plain = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  const std::vector<int32_t> sea = plain.encode("The sea"), calm = plain.encode(" is");
  const int32_t dot = *plain.token_to_id("."), bang = *plain.token_to_id("!"), end = *plain.token_to_id("<|endoftext|>");
  for (const auto& [before, after] : {std::pair<std::string, std::string>{".", ""}, {"", "!"}, {".", "!"}, {"", ""}}) {
    const TaskEncoder encoder(with_ends(before, after), 64);
    const std::vector<int32_t> begin = before.empty() ? std::vector<int32_t>{} : std::vector<int32_t>{dot};
    const TaskEncoder::Pair p = encoder.pair("The sea", " is");
    EXPECT_EQ(p.context, joined(begin, sea)) << before << after;
    EXPECT_EQ(p.continuation, calm) << before << after;
    // Nothing before it: what begins a document, else what ends one. A continuation that begins so itself gives up its first token.
    EXPECT_EQ(encoder.pair("", " is").continuation, calm);
    const std::vector<int32_t> first = encoder.pair("", " is").context;
    ASSERT_EQ(first.size(), 1u);
    if (!before.empty()) {
      EXPECT_EQ(first[0], dot);
      EXPECT_EQ(encoder.pair(".", " is").context, begin) << "said by the text itself";
      EXPECT_EQ(encoder.pair("", ". is").continuation, calm);
    } else {
      EXPECT_EQ(first[0], after.empty() ? end : bang);
    }
  }
}

TEST(TaskEncoder, ChoicesShareTheContextButItsLastToken) {
  const text::Tokenizer t = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  const TaskItem item{.context = "The sea is", .choices = {"calm", "gone is the light"}, .answer = 0};
  const TaskRequest request = TaskEncoder(t, 64).request(item, "t");
  std::vector<int32_t> context = t.encode("The sea is");
  EXPECT_FALSE(request.cut);
  EXPECT_EQ(joined(request.shared, {context.back()}), context);
  for (size_t c = 0; c < 2; ++c) {
    const std::vector<int32_t> continuation = TaskEncoder(t, 64).pair(item.context, " " + item.choices[c]).continuation;
    EXPECT_EQ(request.choices[c].targets, continuation);
    EXPECT_EQ(joined(request.choices[c].tokens, {continuation.back()}), joined({context.back()}, continuation));
    EXPECT_EQ(request.choices[c].scored(), std::ssize(continuation));
  }
}

TEST(TaskEncoder, ATextPastTheModelsContextLosesItsBeginning) {
  const text::Tokenizer t = text::Tokenizer::from_json(sample_tokenizer(), "sample");
  const TaskItem item{.context = "The tide is full, the moon lies fair", .choices = {"calm", "gone is the light"}, .answer = 0};
  const TaskEncoder wide(t, 64);
  const TaskEncoder::Pair shorter = wide.pair(item.context, " calm"), longer = wide.pair(item.context, " gone is the light");
  const int64_t whole = std::ssize(longer.context) + std::ssize(longer.continuation);
  EXPECT_FALSE(TaskEncoder(t, whole - 1).request(item, "t").cut);  // the last token is not read
  const int64_t context = whole - 2;
  const TaskRequest cut = TaskEncoder(t, context).request(item, "t");
  EXPECT_TRUE(cut.cut);
  EXPECT_TRUE(cut.shared.empty());
  for (size_t c = 0; c < 2; ++c) {
    const TaskEncoder::Pair& p = c == 0 ? shorter : longer;
    std::vector<int32_t> read = joined(p.context, p.continuation);
    read.pop_back();
    read.erase(read.begin(), read.begin() + std::max<int64_t>(0, std::ssize(read) - context));
    EXPECT_EQ(cut.choices[c].tokens, read);
    std::vector<int32_t> targets(read.size() - p.continuation.size(), -1);
    EXPECT_EQ(cut.choices[c].targets, joined(targets, p.continuation));
    EXPECT_EQ(cut.choices[c].scored(), std::ssize(p.continuation));
  }
  EXPECT_EQ(std::ssize(TaskEncoder(t, std::ssize(longer.continuation)).request(item, "t").choices[1].tokens), std::ssize(longer.continuation));
  EXPECT_EQ(error_message([&] { TaskEncoder(t, std::ssize(longer.continuation) - 1).request(item, "file: item 7"); }),
            str("file: item 7: choice 1: found ", longer.continuation.size(), " tokens, expected at most ", longer.continuation.size() - 1, ", what the model reads at once; leave the item out"));
  EXPECT_THAT(error_message([&] { wide.request({.context = " \n", .choices = {"a"}, .answer = 0}, "file: item 7"); }), ::testing::HasSubstr("file: item 7: context: found no token"));
}

}  // namespace
}  // namespace fathom::study
