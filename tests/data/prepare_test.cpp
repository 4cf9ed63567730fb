#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "core/log.h"
#include "core/random.h"
#include "data/prepare.h"
#include "helpers.h"

namespace fathom::data {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::map<std::string, std::string> folder_contents(const std::string& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    out[entry.path().filename().string()] = read_file(entry.path().string(), 1 << 30);
  return out;
}

class Prepare : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::quiet);
    Random random(5);
    for (int file = 0; file < 6; ++file) {
      std::string text;
      for (int document = 0; document < 30; ++document) {
        for (uint64_t word = 5 + random.below(60); word > 0; --word) text += str("w", random.below(30), word % 9 ? " " : "\n");
        text += "\n<|endoftext|>\n";
      }
      f_.put(str("in/", file, ".txt", file % 2 ? ".zst" : ""), file % 2 ? zstd(text) : text);
    }
    f_.put("in/picture.bin", std::string(100, '\0'));
    options_.validation_share = 0.1;
    options_.shard_tokens = 4000;
  }
  void TearDown() override { set_log_level(LogLevel::info); }
  PrepareResult run(const std::string& out, const PrepareOptions& options) { return prepare({f_("in")}, f_(out), tokenizer_, options); }

  Files f_;
  text::Tokenizer tokenizer_ = small_tokenizer();
  PrepareOptions options_;
};

TEST_F(Prepare, ConversationsStandAsTheTemplateHasThem) {
  f_.put("chat.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n{\"text\": \"<s>hi\"}\n");
  options_.split = SplitMode::none;
  options_.documents.conversations = small_format();
  prepare({f_("chat.jsonl")}, f_("chat"), tokenizer_, options_);
  const auto dataset = Dataset::open(f_("chat"), "train");
  ASSERT_EQ(dataset->documents(), 2);
  const auto document = [&](int64_t d) {
    std::vector<int32_t> ids(static_cast<size_t>(dataset->document_begin(d + 1) - dataset->document_begin(d)));
    dataset->read(dataset->document_begin(d), ids);
    return ids;
  };
  const int32_t begin = *tokenizer_.token_to_id("<s>"), end = *tokenizer_.token_to_id("<|endoftext|>");
  std::vector<int32_t> chat = tokenizer_.encode("user: hi");
  chat.insert(chat.begin(), begin), chat.push_back(end);
  EXPECT_EQ(document(0), chat) << "once each, whatever else stands around documents";
  const std::vector<int32_t> plain = document(1);
  EXPECT_GT(std::ssize(plain), 4) << "in a text they are letters";
  EXPECT_EQ(tokenizer_.decode(plain), "<s>hi");
  options_.documents.conversations->source = "another";
  EXPECT_NE(prepare({f_("chat.jsonl")}, f_("again"), tokenizer_, options_).manifest.to_json(), dataset->manifest().to_json());
}

TEST_F(Prepare, KeepsEveryDocumentOnceAndWhole) {
  const PrepareResult r = run("out", options_);
  EXPECT_FALSE(r.resumed);
  EXPECT_EQ(r.counts.documents, 180);
  EXPECT_EQ(r.counts.binary_files, 1);
  EXPECT_EQ(r.train_documents + r.validation_documents, 180);
  EXPECT_GT(r.validation_documents, 3);
  EXPECT_GT(r.manifest.train.size(), 3u);
  EXPECT_EQ(r.manifest.source_count, 7);
  EXPECT_EQ(read_file(f_("out/tokenizer.json"), 1 << 20), tokenizer_.json());
  ASSERT_TRUE(tokenizer_.eos_id());

  std::map<std::string, std::vector<std::string>> texts;
  for (const char* split : {"train", "validation"}) {
    const auto set = Dataset::open(f_("out"), split);
    set->verify();
    set->require_tokenizer(tokenizer_.identity(), "the test");
    int64_t bytes = 0;
    for (int64_t d = 0; d < set->documents(); ++d) {
      std::vector<int32_t> ids(static_cast<size_t>(set->document_begin(d + 1) - set->document_begin(d)));
      set->read(set->document_begin(d), ids);
      EXPECT_EQ(ids.front(), *tokenizer_.bos_id());
      EXPECT_EQ(ids.back(), *tokenizer_.eos_id());
      texts[split].push_back(tokenizer_.decode(std::span(ids).subspan(1, ids.size() - 2)));
      bytes += static_cast<int64_t>(texts[split].back().size());
    }
    EXPECT_EQ(bytes, set->text_bytes());
  }
  std::vector<std::string> train, validation;
  for (const std::string& d : documents_of({f_("in")})) (split_by_hash(d, 0.1) == Split::train ? train : validation).push_back(d);
  EXPECT_EQ(texts["train"], train);
  EXPECT_EQ(texts["validation"], validation);
  for (const auto& [name, content] : folder_contents(f_("out"))) EXPECT_NE(name[0], '.') << name;
  EXPECT_EQ(folder_contents(f_.path() + "/out").count("manifest.json"), 1u);
  EXPECT_FALSE(exists(f_(".out.partial")));
}

// The first of two passes would drain it.
TEST_F(Prepare, APipeNeedsASplitThatIsChosen) {
  const std::string pipe = f_("pipe.txt");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const auto prepare_pipe = [&] { return prepare({pipe}, f_("piped"), tokenizer_, options_); };
  options_.split = SplitMode::automatic;
  EXPECT_THAT(message([&] { prepare_pipe(); }), AllOf(HasSubstr(pipe), HasSubstr("a pipe, which can be read once"), HasSubstr("choose the split")));
  options_.split = SplitMode::by_tail;
  options_.validation_share = 0.25;
  std::thread writer([&] { std::ofstream(pipe) << std::string(400, 'a') << "\n"; });
  const PrepareResult r = prepare_pipe();
  writer.join();
  EXPECT_GT(r.train_tokens, 0);
  EXPECT_GT(r.validation_tokens, 0);
}

TEST_F(Prepare, ThreadsChangeNothing) {
  run("one", options_);
  options_.threads = 4;
  run("four", options_);
  EXPECT_EQ(folder_contents(f_("one")), folder_contents(f_("four")));
}

TEST_F(Prepare, AnInterruptedRunGoesOnAndEndsTheSame) {
  run("whole", options_);
  const auto want = folder_contents(f_("whole"));
  options_.batch_bytes = 700;
  for (int stop = 1; stop < 30; stop += 4) {
    SCOPED_TRACE(stop);
    // Interrupted again and again, each time after `stop` batches, until it is through.
    int runs = 0;
    for (bool done = false; !done; ++runs) {
      ASSERT_LT(runs, 200);
      int batches = 0;
      PrepareOptions options = options_;
      options.progress = [&](int64_t read, int64_t total, int64_t tokens) {
        EXPECT_LE(read, total);
        EXPECT_GT(tokens, 0);
        if (++batches == stop + 20 * runs) throw Interrupted("test");
      };
      try {
        const PrepareResult r = run("out", options);
        EXPECT_EQ(r.train_documents + r.validation_documents, 180);
        done = true;
      } catch (const Interrupted&) {
        EXPECT_FALSE(exists(f_("out")));
        f_.put(".out.partial/.train-00002.tokens.tmp-1-1", "half a shard");
        f_.put(".out.partial/train-00099.tokens", "a shard that nobody lists");
      }
    }
    EXPECT_GT(runs, 1);
    EXPECT_EQ(folder_contents(f_("out")), want);
    remove_all(f_("out"));
  }
}

TEST_F(Prepare, KilledAtAnyMoment) {
  options_.shard_tokens = 300;  // many shards, so that kills fall into writing
  options_.batch_bytes = 700;
  const auto begin = std::chrono::steady_clock::now();
  run("whole", options_);
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin).count();
  const auto want = folder_contents(f_("whole"));
  Random random(11);
  int kills = 0;
  for (int i = 0; i < 12; ++i) {
    remove_all(f_("out"));
    while (!exists(f_("out"))) {
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        try {
          run("out", options_);
        } catch (...) {
          ::_exit(1);
        }
        ::_exit(0);
      }
      ::usleep(static_cast<useconds_t>(random.below(static_cast<uint64_t>(took) + 1)));
      ::kill(child, SIGKILL);
      int status = 0;
      ::waitpid(child, &status, 0);
      ASSERT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << "the run failed by itself";
      kills += WIFSIGNALED(status);
    }
    auto got = folder_contents(f_("out"));
    got.erase(".progress.json");  // killed between the last two steps; nobody reads them
    got.erase(".lock");
    EXPECT_EQ(got, want);
  }
  EXPECT_GT(kills, 5);
}

TEST_F(Prepare, AFullDiskIsNamedAndLosesNothing) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // No file may pass 6,000 bytes: a shard of 4,000 tokens does.
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{6000, 6000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string m = message([&] { run("out", options_); });
    ::_exit(m.find("train-00000.tokens: cannot write: File too large") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_FALSE(exists(f_("out")));
  for (const auto& [name, content] : folder_contents(f_(".out.partial"))) EXPECT_TRUE(name == ".progress.json" || name == ".lock") << name;
  run("whole", options_);
  run("out", options_);
  EXPECT_EQ(folder_contents(f_("out")), folder_contents(f_("whole")));
}

TEST_F(Prepare, AnInterruptedRunOfOtherThingsIsNotMixedIn) {
  options_.batch_bytes = 700;
  const auto interrupt = [&] {
    PrepareOptions options = options_;
    int batches = 0;
    options.progress = [&](int64_t, int64_t, int64_t) {
      if (++batches == 20) throw Interrupted("test");
    };
    EXPECT_THROW(run("out", options), Interrupted);
  };
  interrupt();
  const std::string refusal = "found an interrupted preparation of other data, options or tokenizer, expected the same as now";
  PrepareOptions other = options_;
  other.validation_share = 0.2;
  EXPECT_THAT(message([&] { run("out", other); }), HasSubstr(refusal));
  const text::Tokenizer tokenizer = small_tokenizer(1);
  EXPECT_THAT(message([&] { prepare({f_("in")}, f_("out"), tokenizer, options_); }), HasSubstr(refusal));
  EXPECT_THAT(message([&] { prepare({f_("in/0.txt")}, f_("out"), tokenizer_, options_); }), HasSubstr(refusal));
  other.restart = true;
  run("out", other);
  run("fresh", [&] { auto o = other; o.restart = false; return o; }());
  EXPECT_EQ(folder_contents(f_("out")), folder_contents(f_("fresh")));
}

TEST_F(Prepare, ASingleDocumentGivesItsTail) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += str("line ", i, " of one long document\n");
  f_.put("one.txt", text);
  const PrepareResult r = prepare({f_("one.txt")}, f_("out"), tokenizer_, options_);
  EXPECT_EQ(r.train_documents, 1);
  EXPECT_EQ(r.validation_documents, 1);
  EXPECT_EQ(r.manifest.options["split"], "tail");
  const auto train = Dataset::open(f_("out")), validation = Dataset::open(f_("out"), "validation");
  EXPECT_EQ(train->text_bytes() + validation->text_bytes(), static_cast<int64_t>(text.size()));
  EXPECT_NEAR(static_cast<double>(validation->text_bytes()), 0.1 * static_cast<double>(text.size()), 40);
  options_.split = SplitMode::none;
  EXPECT_EQ(run("none", options_).validation_tokens, 0);
  options_.split = SplitMode::automatic, options_.validation_share = 0;
  run("no-share", options_);
  EXPECT_EQ(folder_contents(f_("no-share")), folder_contents(f_("none")));
}

TEST_F(Prepare, ALongTextIsEncodedInPiecesAndGivesTheTailOfEach) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += str("line ", i, " of one long document\n");
  f_.put("one.txt", text);
  options_.documents.piece_bytes = static_cast<int64_t>(text.size() / 8);
  const PrepareResult r = prepare({f_("one.txt")}, f_("out"), tokenizer_, options_);
  EXPECT_EQ(r.manifest.options["split"], "tail");
  EXPECT_EQ(r.train_documents, 8);
  EXPECT_EQ(r.validation_documents, 8);
  const auto train = Dataset::open(f_("out")), validation = Dataset::open(f_("out"), "validation");
  EXPECT_EQ(train->text_bytes() + validation->text_bytes(), static_cast<int64_t>(text.size()));
  EXPECT_NEAR(static_cast<double>(validation->text_bytes()), 0.1 * static_cast<double>(text.size()), 8 * 40);
}

TEST_F(Prepare, FewDocumentsGiveTheirTails) {
  std::string text;
  for (int document = 0; document < 20; ++document) {
    for (int i = 0; i < 50; ++i) text += str("line ", i, " of document ", document, "\n");
    text += "<|endoftext|>\n";
  }
  f_.put("few.txt", text);
  options_.shard_tokens = 300;  // a document's two parts stay in one pair of shards
  const PrepareResult r = prepare({f_("few.txt")}, f_("out"), tokenizer_, options_);
  EXPECT_EQ(r.manifest.options["split"], "tail") << "2 documents of 20 could be none";
  EXPECT_EQ(r.train_documents, 20);
  EXPECT_EQ(r.validation_documents, 20);
  EXPECT_EQ(r.manifest.train.size(), 20u);
  EXPECT_EQ(r.manifest.validation.size(), 20u);
  options_.split = SplitMode::by_hash;
  const PrepareResult whole = prepare({f_("few.txt")}, f_("hash"), tokenizer_, options_);
  EXPECT_EQ(whole.train_documents + whole.validation_documents, 20);
}

TEST_F(Prepare, WithoutSpecialTokensAround) {
  options_.add_bos = options_.add_eos = false;
  const PrepareResult r = run("out", options_);
  EXPECT_FALSE(r.manifest.bos_id || r.manifest.eos_id);
  const auto set = Dataset::open(f_("out"));
  std::vector<int32_t> first(static_cast<size_t>(set->document_begin(1)));
  set->read(0, first);
  EXPECT_NE(first.front(), *tokenizer_.eos_id());
}

TEST_F(Prepare, RefusesWhatCannotWork) {
  make_folders(f_("out"));
  EXPECT_THAT(message([&] { run("out", options_); }), HasSubstr("out: found an existing path, expected a new folder"));
  EXPECT_THAT(message([&] { prepare({f_("nothing")}, f_("new"), tokenizer_, options_); }), HasSubstr("nothing: found No such file or directory, expected a file or a folder"));
  f_.put("blank.txt", "\n \n");
  EXPECT_THAT(message([&] { prepare({f_("blank.txt")}, f_("new"), tokenizer_, options_); }), HasSubstr("blank.txt: found 0 documents, none of them for training, expected text"));
  make_folders(f_("bare"));
  EXPECT_THAT(message([&] { prepare({f_("bare")}, f_("new"), tokenizer_, options_); }), HasSubstr("bare: found a folder without files"));
  options_.validation_share = 1;
  EXPECT_THAT(message([&] { run("new", options_); }), HasSubstr("validation share: found 1, expected more than 0 and less than 1"));
  EXPECT_FALSE(exists(f_("new")));
}

TEST_F(Prepare, OneRunAtATime) {
  options_.progress = [&](int64_t, int64_t, int64_t) {
    EXPECT_THAT(message([&] { PrepareOptions o; run("out", o); }), HasSubstr("out: found another run that prepares it now"));
  };
  run("out", options_);
}

}  // namespace
}  // namespace fathom::data
