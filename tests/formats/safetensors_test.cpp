#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>

#include "core/error.h"
#include "in_memory.h"
#include "core/file.h"
#include "core/float16.h"
#include "core/json.h"
#include "formats/safetensors.h"

namespace fathom::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::span<const std::byte> bytes_of(const std::string& s) { return std::as_bytes(std::span(s)); }

std::string message(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& e) {
    return e.what();
  }
  return "no error";
}

TEST(Safetensors, WritesAndReadsEveryDtype) {
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "a.safetensors");
  const std::vector<float> values = {1.5f, -2.0f, 0.0f, 65504.0f, -0.25f, 3.0f};
  {
    SafetensorsWriter w(path, {{"z.first", Dtype::F32, {2, 3}}, {"bf", Dtype::BF16, {6}}, {"half", Dtype::F16, {3, 2}},
                               {"double", Dtype::F64, {6}}, {"empty", Dtype::F32, {0, 5}}, {"scalar", Dtype::I64, {}},
                               {"flags", Dtype::BOOL, {3}}}, {{"who", "a \"test\""}});
    for (int i = 0; i < 4; ++i) {
      EXPECT_FALSE(w.finished());
      w.append_f32(std::span(values).first(2));  // in pieces
      w.append_f32(std::span(values).subspan(2));
    }
    EXPECT_EQ(w.current().name, "scalar");
    const int64_t n = -7;
    w.append(std::as_bytes(std::span(&n, 1)));
    w.append(bytes_of(std::string("\1\0\1", 3)));
    EXPECT_TRUE(w.finished());
    EXPECT_FALSE(exists(path)) << "not before commit";
    w.commit();
  }
  const SafetensorsFile f(path);
  ASSERT_EQ(f.tensors().size(), 7u);
  EXPECT_EQ(f.tensors()[0].name, "z.first") << "the caller's order is kept";
  EXPECT_EQ(f.metadata().at("who"), "a \"test\"");
  for (const char* name : {"z.first", "bf", "half", "double"})
    EXPECT_EQ(f.at(name).to_f32(), name == std::string("bf") ? (std::vector<float>{1.5f, -2.0f, 0.0f, 65536.0f, -0.25f, 3.0f}) : values) << name;
  EXPECT_THAT(f.at("z.first").shape, ElementsAre(2, 3));
  EXPECT_EQ(f.at("z.first").f32_view().size(), 6u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(f.at("z.first").bytes.data()) % 64, 0u);
  EXPECT_TRUE(f.at("bf").f32_view().empty());
  EXPECT_EQ(f.at("empty").elements(), 0);
  EXPECT_EQ(f.at("scalar").elements(), 1);
  EXPECT_EQ(f.find("absent"), nullptr);
  EXPECT_THAT(message([&] { f.at("z.frist"); }), HasSubstr("z.frist: found no such tensor, expected a tensor of this name; the nearest is z.first"));
}

TEST(Safetensors, WriterWithoutCommitLeavesNothing) {
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "a.safetensors");
  {
    SafetensorsWriter w(path, {{"a", Dtype::F32, {1}}});
    const float v = 1;
    w.append_f32({&v, 1});
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, WriterRefusesWrongUse) {
  TemporaryFolder folder;
  const std::string path = join_path(folder.path(), "a.safetensors");
  const std::vector<float> two = {1, 2};
  EXPECT_THROW(SafetensorsWriter(path, {{"a", Dtype::F32, {1}}, {"a", Dtype::F32, {1}}}), std::logic_error);
  SafetensorsWriter w(path, {{"a", Dtype::F32, {1}}, {"b", Dtype::I8, {4}}});
  EXPECT_THROW(w.append_f32(two), std::logic_error) << "past the end of the entry";
  EXPECT_THROW(w.commit(), std::logic_error);
  w.append_f32(std::span(two).first(1));
  EXPECT_THROW(w.append_f32(two), std::logic_error) << "not a float entry";
  w.append(bytes_of("abcd"));
  EXPECT_THROW(w.append(bytes_of("x")), std::logic_error);
}

TEST(Safetensors, HalvesRoundToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80) << "a tie goes to even";
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x7f7fffffu)), 0x7f80) << "overflow";
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
  // Every binary16 number survives the way to f32 and back.
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = f16_to_f32(static_cast<uint16_t>(h));
    EXPECT_TRUE(std::isnan(f) ? std::isnan(f16_to_f32(f32_to_f16(f))) : f32_to_f16(f) == h) << h;
    const float b = bf16_to_f32(static_cast<uint16_t>(h));
    if (!std::isnan(b)) {
      EXPECT_EQ(f32_to_bf16(b), h);
    }
  }
  // Around every boundary between two neighbours: below the middle down, above it up, on it to even.
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const double low = f16_to_f32(static_cast<uint16_t>(h));
    const double high = h == 0x7bff ? 65536.0 : f16_to_f32(static_cast<uint16_t>(h + 1));
    const float middle = static_cast<float>((low + high) / 2);
    EXPECT_EQ(f32_to_f16(middle), h % 2 == 0 ? h : h + 1) << h;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), h) << h;
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), h + 1) << h;
    EXPECT_EQ(f32_to_f16(-std::nextafter(middle, 1e9f)), (h + 1) | 0x8000) << h;
  }
}

// ---- The sharded index

void write_one(const std::string& path, const std::vector<std::string>& names) {
  std::vector<TensorEntry> entries;
  for (const std::string& n : names) entries.push_back({n, Dtype::F32, {1}});
  SafetensorsWriter w(path, entries);
  const float v = static_cast<float>(names.size());
  while (!w.finished()) w.append_f32({&v, 1});
  w.commit();
}

class SafetensorsIndex : public ::testing::Test {
 protected:
  void SetUp() override {
    write_one(at("m-1.safetensors"), {"a", "b"});
    write_one(at("m-2.safetensors"), {"c"});
  }
  std::string at(const std::string& name) const { return join_path(folder_.path(), name); }
  std::string open_with(const std::string& weight_map) {
    atomic_write(at("model.safetensors.index.json"), "{\"metadata\": {\"total_size\": 12}, \"weight_map\": " + weight_map + "}");
    return message([&] {
      const SafetensorsSet set(folder_.path());
      EXPECT_EQ(set.tensors().size(), 3u);
      EXPECT_EQ(set.at("c").to_f32()[0], 1.0f);
      EXPECT_EQ(set.find("d"), nullptr);
      EXPECT_THROW(set.at("d"), UserError);
    });
  }
  TemporaryFolder folder_;
};

TEST_F(SafetensorsIndex, Opens) {
  EXPECT_EQ(open_with(R"({"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"})"), "no error");
}

TEST_F(SafetensorsIndex, RefusesWhatDoesNotAgree) {
  EXPECT_THAT(open_with(R"({"a": "m-1.safetensors", "c": "m-2.safetensors"})"),
              HasSubstr("weight_map.b: found no such key, expected \"m-1.safetensors\", which holds this tensor"));
  EXPECT_THAT(open_with(R"({"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors"})"), HasSubstr("weight_map.b: found the string \"m-2.safetensors\""));
  EXPECT_THAT(open_with(R"({"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors", "d": "m-2.safetensors"})"),
              HasSubstr("weight_map.d: found the string \"m-2.safetensors\", which does not hold it"));
  EXPECT_THAT(open_with(R"({"a": "../m-1.safetensors"})"), HasSubstr("expected the name of a file beside the index"));
  EXPECT_THAT(open_with(R"({"a": 3})"), HasSubstr("weight_map.a: found the number 3, expected a file name"));
  EXPECT_THAT(open_with("[]"), HasSubstr("weight_map: found an array of 0, expected an object"));
  EXPECT_THAT(open_with(R"({"a": "absent.safetensors"})"), HasSubstr("absent.safetensors: cannot open"));
}

TEST_F(SafetensorsIndex, FolderWithoutWeights) {
  EXPECT_THAT(message([&] { SafetensorsSet set(folder_.path()); }), HasSubstr("expected model.safetensors or model.safetensors.index.json"));
}

}  // namespace
}  // namespace fathom::formats
