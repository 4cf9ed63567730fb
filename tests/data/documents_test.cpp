#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/random.h"
#include "helpers.h"

namespace fathom::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Documents, FilesSeparatorsAndLines) {
  Files f;
  EXPECT_THAT(documents_of({f.put("a.txt", "one\ntwo")}), ElementsAre("one\ntwo"));
  EXPECT_THAT(documents_of({f.put("b.txt", "one\n<|endoftext|>\ntwo\r\n<|endoftext|>\r\n \n<|endoftext|>\nx <|endoftext|>\n<|endoftext|>")}),
              ElementsAre("one\n", "two\r\n", "x <|endoftext|>\n"))
      << "a separator is a whole line, and a blank document is passed over";
  EXPECT_THAT(documents_of({f("b.txt")}, {.separator = ""}).size(), 1u);
  EXPECT_THAT(documents_of({f("b.txt")}, {.separator = "two"}), ElementsAre("one\n<|endoftext|>\n", "<|endoftext|>\r\n \n<|endoftext|>\nx <|endoftext|>\n<|endoftext|>"));
  EXPECT_THAT(documents_of({f.put("bom.txt", "\xef\xbb\xbfone")}), ElementsAre("one"));
  EXPECT_THAT(documents_of({f.put("empty.txt", "")}), ElementsAre());
}

TEST(Documents, Jsonl) {
  Files f;
  const std::string lines = "{\"id\": [1, {\"text\": 5}], \"text\": \"on\\u00e9\\n\"}\n\n{\"text\": \"\"}\r\n{\"other\": null, \"text\": \"two\", \"n\": 1e3}";
  EXPECT_THAT(documents_of({f.put("a.jsonl", lines)}), ElementsAre("oné\n", "two"));
  EXPECT_THAT(documents_of({f.put("a.jsonl.zst", zstd(lines))}), ElementsAre("oné\n", "two"));
  EXPECT_THAT(documents_of({f.put("a.jsonl.bz2", bzip2(lines))}), ElementsAre("oné\n", "two"));
  EXPECT_THAT(documents_of({f.put("b.jsonl", "{\"body\": \"x\"}")}, {.field = "body"}), ElementsAre("x"));
  EXPECT_THAT(message([&] { documents_of({f("b.jsonl")}); }), HasSubstr("b.jsonl: line 1, text: found no such key, expected the document's text; name the field with --field; here are: body"));
}

TEST(Documents, Conversations) {
  Files f;
  f.put("a.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\", \"id\": 3}, {\"content\": \"ho\\n\", \"role\": \"assistant\"}], \"source\": 1}\n"
                   "{\"text\": \"plain <s>\"}\n{\"messages\": 3, \"text\": \"its text counts\"}\n{\"messages\": [{\"role\": \"nobody\", \"content\": \"\"}]}");
  DocumentStream stream({f("a.jsonl")}, {.conversations = small_format()});
  std::string text;
  EXPECT_TRUE(stream.next(text) && text == "<s>user: hi<|endoftext|><s>assistant: ho\n<|endoftext|>" && stream.is_conversation()) << text;
  EXPECT_TRUE(stream.next(text) && text == "plain <s>" && !stream.is_conversation()) << text;
  EXPECT_TRUE(stream.next(text) && text == "its text counts" && !stream.is_conversation()) << text;
  EXPECT_THAT(message([&] { stream.next(text); }), HasSubstr("a.jsonl: line 4, messages: found a conversation that the chat template refuses, expected one that it takes; template: found nobody"));
  EXPECT_THAT(message([&] { documents_of({f("a.jsonl")}); }), HasSubstr("a.jsonl: line 1, messages: found a conversation, expected a text; conversations need a model's chat template"));
  const auto refusal = [&](const std::string& messages) {
    f.put("bad.jsonl", "\n{\"messages\": " + messages + "}");
    return message([&] { documents_of({f("bad.jsonl")}, {.conversations = small_format()}); });
  };
  EXPECT_THAT(refusal("[]"), HasSubstr("bad.jsonl: line 2, messages: found an empty array, expected an array of messages"));
  EXPECT_THAT(refusal("\"hi\""), HasSubstr("bad.jsonl: line 2, messages: found the string \"hi\""));
  EXPECT_THAT(refusal("[{\"role\": \"user\"}]"), HasSubstr("messages[0].content"));
  EXPECT_THAT(refusal("[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": 4, \"content\": \"b\"}]"), HasSubstr("messages[1].role: found the number 4"));
  EXPECT_THAT(refusal("[3]"), HasSubstr("messages[0]"));
}

TEST(Documents, PackedInAnyShape) {
  Files f;
  Random random(1);
  std::string text;
  while (text.size() < 3'000'000) {
    for (uint64_t i = random.below(200); i > 0; --i) text += static_cast<char>('a' + random.below(26));
    text += random.below(50) == 0 ? "\n<|endoftext|>\n" : "\n";
  }
  const auto plain = documents_of({f.put("a.txt", text)});
  EXPECT_GT(plain.size(), 100u);
  EXPECT_EQ(documents_of({f.put("a.txt.zst", zstd(text))}), plain);
  const std::string half = text.substr(0, 1'234'567);
  EXPECT_EQ(documents_of({f.put("b.txt.zst", zstd(half) + zstd("") + zstd(text.substr(half.size())))}), plain) << "several frames";
  EXPECT_EQ(documents_of({f.put("c.txt.zst", zstd(text, 27))}), plain) << "the widest window";
  EXPECT_EQ(documents_of({f.put("a.txt.bz2", bzip2(text))}), plain);
  EXPECT_EQ(documents_of({f.put("b.txt.bz2", bzip2(half) + bzip2("") + bzip2(text.substr(half.size())))}), plain) << "several streams, as parallel packers write them";
}

TEST(Documents, FoldersAreWalkedInOrder) {
  Files f;
  f.put("d/b.txt", "b");
  f.put("d/a/z.py", "z");
  f.put("d/a.txt", "a");
  f.put("d/a/deep/x.md.zst", zstd("x"));
  f.put("d/.hidden", "hidden");
  f.put("d/.git/config", "hidden");
  f.put("d/image.bin", std::string("\x89PNG\0\1", 6));
  f.put("d/noise.dat", "\xff\xfe\xfd\xfc\xfb\xfa text");
  f.put("elsewhere/y.txt", "y");
  ASSERT_EQ(::symlink("..", f("d/a/loop").c_str()), 0);
  ASSERT_EQ(::symlink("nowhere", f("d/broken").c_str()), 0);
  ASSERT_EQ(::symlink(f("elsewhere").c_str(), f("d/linked").c_str()), 0);
  DocumentStream stream({f("d"), f("d/b.txt")});
  EXPECT_THAT(all_documents(stream), ElementsAre("x", "z", "a", "b", "y", "b"));
  EXPECT_EQ(stream.counts().binary_files, 2);
  EXPECT_EQ(stream.counts().first_binary, "image.bin");
  EXPECT_EQ(stream.counts().documents, 6);
  EXPECT_EQ(stream.counts().bytes, 6);
  EXPECT_EQ(stream.bytes_read(), stream.total_bytes());
  EXPECT_EQ(stream.sources()[0].name, "a/deep/x.md.zst");
  EXPECT_EQ(stream.sources().back().name, "b.txt");
}

TEST(Documents, TextInOtherEncodingsOfAFolderIsNoBinary) {
  Files f;
  f.put("d/latin.py", "# a file with one latin-1 letter \xe9, else ASCII\n");
  EXPECT_THAT(message([&] { documents_of({f("d")}); }), HasSubstr("latin.py: byte 33: found \"\\xe9, else A"));
  EXPECT_THAT(documents_of({f("d")}, {.invalid_utf8 = InvalidUtf8::repair}), ElementsAre("# a file with one latin-1 letter \xef\xbf\xbd, else ASCII\n"));
}

TEST(Documents, RepairsAndCounts) {
  Files f;
  f.put("a.txt", "\xffone\xe2\x82\n<|endoftext|>\nok\n");
  DocumentStream stream({f("a.txt")}, {.invalid_utf8 = InvalidUtf8::repair});
  EXPECT_THAT(all_documents(stream), ElementsAre("\xef\xbf\xbdone\xef\xbf\xbd\n", "ok\n"));
  EXPECT_EQ(stream.counts().repaired, 2);
}

TEST(Documents, OffsetOfTheFirstBadByte) {
  Files f;
  // In the second document, past several chunks of the reader.
  const std::string text = std::string(700'000, 'x') + "\n<|endoftext|>\nab\xc3(";
  for (const auto& [name, content] : {std::pair<const char*, std::string>{"a.txt", text}, {"a.txt.zst", zstd(text)}, {"bom.txt", "\xef\xbb\xbf" + text}}) {
    f.put(name, content);
    DocumentStream stream({f(name)});
    std::string document;
    EXPECT_TRUE(stream.next(document));
    EXPECT_THAT(message([&] { stream.next(document); }), HasSubstr(str(": byte ", 700'017 + (name[0] == 'b' ? 3 : 0), ": found \"\\xc3("))) << name;
  }
}

TEST(Documents, GoesOnFromAnyPosition) {
  Files f;
  f.put("d/a.txt", "1\n<|endoftext|>\n2\n<|endoftext|>\n \n<|endoftext|>\n3\n");
  f.put("d/b.bin", std::string(20, '\0'));
  f.put("d/c.jsonl.zst", zstd("{\"text\": \"4\"}\n{\"text\": \" \"}\n{\"text\": \"5\"}\n"));
  f.put("d/d.txt", "");
  f.put("d/e.txt", "6");
  const auto all = documents_of({f("d")});
  ASSERT_EQ(all.size(), 6u);
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    DocumentStream first({f("d")}), second({f("d")});
    std::string text;
    for (size_t i = 0; i < cut; ++i) first.next(text);
    second.skip_to(first.position());
    EXPECT_EQ(all_documents(second), std::vector<std::string>(all.begin() + static_cast<long>(cut), all.end())) << cut;
    EXPECT_EQ(second.bytes_read(), second.total_bytes());
    EXPECT_EQ(second.counts().documents, static_cast<int64_t>(all.size() - cut));
  }
  DocumentStream stream({f("d")});
  EXPECT_THAT(message([&] { stream.skip_to({0, 9}); }), HasSubstr("a.txt: found fewer documents than before"));
}

TEST(Documents, MemoryIsThatOfOnePiece) {
  Files f;
  // 400 MB of text in 40 kB of file, without the end of a line.
  DocumentStream stream({f.put("bomb.txt.zst", zstd(std::string(400'000'000, 'a')))}, {.piece_bytes = 1'000'000});
  std::string text;
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(stream.next(text));
    ASSERT_EQ(text.size(), 2'000'000u) << i;
  }
  EXPECT_FALSE(stream.next(text));
  const std::string line = "{\"text\": \"" + std::string(1'000'000, 'a') + "\"}";
  const auto size = static_cast<int64_t>(line.size());
  f.put("line.jsonl", "\n" + line);
  EXPECT_EQ(documents_of({f("line.jsonl")}, {.max_line_bytes = size}).size(), 1u);
  EXPECT_THAT(message([&] { documents_of({f("line.jsonl")}, {.max_line_bytes = size - 1}); }),
              HasSubstr(str("line.jsonl: line 2: found more than ", size - 1, " bytes, expected at most ", size - 1, "; split its text over several lines")));
}

TEST(Documents, ALongTextComesInPieces) {
  Files f;
  std::string text = "short\n<|endoftext|>\n";
  for (int i = 0; i < 400; ++i) text += str("λίνη ", i, "\n");
  const std::string unbroken = "x<|endoftext|>\n" + std::string(1, 'y');  // no separator: a line goes on
  for (int i = 0; i < 300; ++i) text += "ω";
  text += unbroken + "\n<|endoftext|>\nlast\n";
  const std::string path = f.put("long.txt", text);
  for (const int64_t piece : {16, 17, 19, 50, 256, 1000, 100'000}) {
    DocumentStream stream({path}, {.piece_bytes = piece});
    std::vector<std::string> all = all_documents(stream);
    EXPECT_EQ(stream.counts().empty, 0) << "a text that ends with its piece is not followed by an empty one";
    EXPECT_EQ(stream.counts().documents, static_cast<int64_t>(all.size()));
    ASSERT_GE(all.size(), 3u) << piece;
    EXPECT_EQ(all.front(), "short\n");
    EXPECT_EQ(all.back(), "last\n");
    std::string joined;
    for (size_t i = 1; i + 1 < all.size(); ++i) {
      EXPECT_EQ(utf8_valid_length(all[i]), all[i].size()) << "cut inside a character";
      EXPECT_LE(all[i].size(), static_cast<size_t>(2 * piece));
      if (i + 2 < all.size()) EXPECT_GE(all[i].size() + 3, static_cast<size_t>(piece)) << i;
      joined += all[i];
    }
    EXPECT_EQ("short\n<|endoftext|>\n" + joined + "<|endoftext|>\nlast\n", text) << piece;
    EXPECT_EQ(all.size() == 3, piece == 100'000);

    for (size_t cut = 0; cut <= all.size(); cut += 7) {
      DocumentStream first({path}, {.piece_bytes = piece}), second({path}, {.piece_bytes = piece});
      for (size_t i = 0; i < cut; ++i) first.next(joined);
      second.skip_to(first.position());
      EXPECT_EQ(all_documents(second), std::vector<std::string>(all.begin() + static_cast<long>(cut), all.end())) << "goes on after piece " << cut;
    }
  }
  // What ends exactly with its piece, at a separator or at the end of the file, gives nothing more.
  EXPECT_THAT(documents_of({f.put("exact.txt", std::string(15, 'a') + "\n<|endoftext|>\n" + std::string(15, 'b') + "\n")}, {.piece_bytes = 16}),
              ElementsAre(std::string(15, 'a') + "\n", std::string(15, 'b') + "\n"));
  // The byte of an error is the file's, whichever piece it stands in, and where a piece would end in half a character.
  for (const size_t at : {5u, 31u, 32u, 33u, 100u}) {
    std::string bad(200, 'a');
    bad[at] = '\xce';
    EXPECT_THAT(message([&] { documents_of({f.put("bad.txt", bad)}, {.piece_bytes = 16}); }), HasSubstr(str("bad.txt: byte ", at, ": found \"\\xce")));
  }
}

TEST(Documents, ABlankPieceOfALongTextStays) {
  Files f;
  const std::string blank = std::string(15, ' ') + "\n", a = std::string(15, 'a') + "\n", rule = "<|endoftext|>\n";
  const auto pieces = [&](const std::string& text) { return documents_of({f.put("blank.txt", text)}, {.piece_bytes = 16}); };
  EXPECT_THAT(pieces(a + blank + a), ElementsAre(a, blank, a));
  EXPECT_THAT(pieces(a + "\n"), ElementsAre(a, "\n"));
  EXPECT_THAT(pieces(a + "\n" + rule + "b\n"), ElementsAre(a, "\n", "b\n"));
  // A whole text that is blank is none.
  EXPECT_THAT(pieces(" \n" + rule + a), ElementsAre(a));
  EXPECT_THAT(pieces(a + rule + " \n" + rule + "b\n"), ElementsAre(a, "b\n"));
  EXPECT_THAT(pieces(a + rule + " \n"), ElementsAre(a));
}

TEST(Split, ByHashOfTheContent) {
  int validation = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = str("document ", i);
    const Split s = split_by_hash(text, 0.05);
    EXPECT_EQ(s, split_by_hash(text, 0.05));
    if (s == Split::validation) {
      ++validation;
      EXPECT_EQ(split_by_hash(text, 0.2), Split::validation) << "a larger share only adds";
    }
  }
  EXPECT_NEAR(validation, 1000, 120);
  EXPECT_EQ(split_by_hash("x", 0), Split::train);
  EXPECT_EQ(split_by_hash("x", 1), Split::validation);
}

TEST(Split, TailBeginsAtALine) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += str("line ", i, "\n");
  const size_t cut = split_tail(text, 0.1);
  EXPECT_EQ(text[cut - 1], '\n');
  EXPECT_NEAR(static_cast<double>(text.size() - cut), 0.1 * static_cast<double>(text.size()), 10);
  // Without lines it begins at a character.
  std::string greek;
  for (int i = 0; i < 1001; ++i) greek += "\xce\xb1";
  for (double share : {0.1, 0.1003, 0.1007}) EXPECT_EQ(split_tail(greek, share) % 2, 0u);
  EXPECT_EQ(split_tail("", 0.5), 0u);
  EXPECT_EQ(split_tail("abc", 0), 3u);
}

}  // namespace
}  // namespace fathom::data
