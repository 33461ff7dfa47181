// safetensors files, good and corrupt.
#include "executors/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/files.h"

namespace flowmesh::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string FileOf(const std::string& header, size_t data, uint64_t claimed = 0) {
  const uint64_t size = claimed == 0 ? header.size() : claimed;
  std::string file(reinterpret_cast<const char*>(&size), sizeof size);
  return file + header + std::string(data, '\1');
}

class SafetensorsTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Safetensors>> Open(const std::string& content) {
    Write("model.safetensors", content);
    return Safetensors::OpenFile(folder_ / "model.safetensors");
  }

  void Write(const char* name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }

  std::string ErrorOf(const std::string& header, size_t data = 16) {
    const absl::Status status = Open(FileOf(header, data)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(Message(status), HasSubstr("model.safetensors: "));
    return Message(status);
  }

  TempDir folder_;
};

constexpr char kGood[] = R"({"__metadata__":{"format":"pt"},
  "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
  "b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},
  "empty":{"dtype":"F32","shape":[0],"data_offsets":[16,16]}})";

TEST_F(SafetensorsTest, ReadsTensors) {
  const auto file = Open(FileOf(kGood, 16));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors().size(), 3u);
  const SafetensorsTensor* b = (*file)->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, c10::ScalarType::BFloat16);
  EXPECT_EQ(b->shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(b->data.size(), 8u);
  EXPECT_EQ((*file)->Find("c"), nullptr);
}

TEST_F(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string good = FileOf(kGood, 16);
  for (size_t size = 0; size < good.size(); ++size) {
    const absl::Status status = Open(good.substr(0, size)).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size << " bytes";
  }
}

TEST_F(SafetensorsTest, EveryFlippedBitIsSurvived) {
  const std::string good = FileOf(kGood, 16);
  int refused = 0;
  for (size_t bit = 0; bit < 8 * (good.size() - 16); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    if (!Open(bad).ok()) ++refused;
  }
  EXPECT_GT(refused, 500);
}

TEST_F(SafetensorsTest, HeaderSizes) {
  EXPECT_EQ(Safetensors::OpenFile(folder_ / "absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(Open(FileOf("{}", 0, ~uint64_t{0})).status()),
              HasSubstr("not a safetensors file, or corrupt"));
  EXPECT_THAT(Message(Open(FileOf("{}", 0, 1000)).status()),
              HasSubstr("truncated: a header of 1000 bytes in a file of 10"));
}

TEST_F(SafetensorsTest, Headers) {
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("header: "));
  EXPECT_THAT(ErrorOf("{\"a\": {"), HasSubstr("header: no JSON at byte"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})"),
              HasSubstr("header: a: "));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})"),
              HasSubstr("a.shape: unexpected number -2"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                          "a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})"),
              HasSubstr("a: the name occurs twice"));
  EXPECT_THAT(ErrorOf(std::string(10000, '{')), HasSubstr("header: "));
}

TEST_F(SafetensorsTest, Tensors) {
  const auto error = [&](const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
    return ErrorOf("{\"a\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
                   ",\"data_offsets\":" + offsets + "}}");
  };
  EXPECT_THAT(error("F8_E4M3", "[8]", "[0,8]"),
              HasSubstr("tensor a: unsupported dtype \"F8_E4M3\""));
  EXPECT_THAT(error("F32", "[2]", "[0,17]"),
              HasSubstr("tensor a: truncated: ends at byte 17 of 16"));
  EXPECT_THAT(error("F32", "[2]", "[8,0]"), HasSubstr("tensor a: data_offsets must be two rising"));
  EXPECT_THAT(error("F32", "[2]", "[0]"), HasSubstr("tensor a: data_offsets must be two rising"));
  EXPECT_THAT(error("F32", "[3]", "[0,8]"),
              HasSubstr("shape [3] of F32 needs 12 bytes, data_offsets give 8"));
  EXPECT_THAT(error("F32", "[4294967296,4294967296]", "[0,8]"),
              HasSubstr("does not fit into the file"));
}

TEST_F(SafetensorsTest, Overlaps) {
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                          "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})"),
              HasSubstr("tensor b overlaps tensor a"));
}

class ShardsTest : public SafetensorsTest {
 protected:
  absl::Status OpenIndex(const std::string& text) {
    Write("model.safetensors.index.json", text);
    return Safetensors::OpenIndex(folder_ / "model.safetensors.index.json").status();
  }

  static std::string Shard(const std::string& name) {
    return FileOf("{\"" + name + R"(":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  }
};

TEST_F(ShardsTest, MistakesAreNamed) {
  Write("one", Shard("a"));
  Write("two", Shard("b"));
  EXPECT_TRUE(OpenIndex(R"({"weight_map":{"a":"one","b":"two"}})").ok());
  EXPECT_THAT(Message(OpenIndex("{")), HasSubstr("weight_map: expected a map"));
  EXPECT_THAT(Message(OpenIndex(R"({"weight_map":{"a":5}})")),
              HasSubstr("weight_map.a: expected the name of a file beside it"));
  EXPECT_THAT(Message(OpenIndex(R"({"weight_map":{"a":"../one"}})")),
              HasSubstr("weight_map.a: expected the name of a file beside it"));
  EXPECT_THAT(Message(OpenIndex(R"({"weight_map":{"a":"one","c":"two"}})")),
              HasSubstr("tensor c is not in two as weight_map says"));
  EXPECT_EQ(OpenIndex(R"({"weight_map":{"a":"three"}})").code(), absl::StatusCode::kNotFound);
  Write("two", Shard("a"));
  EXPECT_THAT(Message(OpenIndex(R"({"weight_map":{"a":"one","b":"two"}})")),
              HasSubstr("tensor a is in another shard too"));
}

}  // namespace
}  // namespace flowmesh::model
