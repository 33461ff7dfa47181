// GGUF files, good and corrupt.
#include "executors/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/files.h"

namespace flowmesh::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Writes the format by hand, so that every field can be wrong.
class Bytes {
 public:
  template <typename T>
  Bytes& Put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& Name(const std::string& name) {
    Put<uint64_t>(name.size());
    text_ += name;
    return *this;
  }
  Bytes& Header(uint64_t tensors, uint64_t values) {
    text_ += "GGUF";
    return Put<uint32_t>(3).Put(tensors).Put(values);
  }
  Bytes& Tensor(const std::string& name, const std::vector<uint64_t>& sizes, GgufType type,
                uint64_t offset) {
    Name(name).Put(static_cast<uint32_t>(sizes.size()));
    for (const uint64_t size : sizes) Put(size);
    return Put(static_cast<uint32_t>(type)).Put(offset);
  }
  // Zeros up to the next multiple of 32, then `size` more.
  Bytes& Data(size_t size) {
    text_.resize((text_.size() + 31) / 32 * 32 + size);
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

class GgufTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& content) {
    const std::filesystem::path path = folder_ / "model.gguf";
    std::ofstream(path, std::ios::binary) << content;
    return GgufFile::Open(path);
  }

  // The message for a corrupt file; it names the file.
  std::string ErrorOf(const Bytes& bytes) {
    const absl::Status status = Open(bytes.text()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(Message(status), HasSubstr("model.gguf: "));
    return Message(status);
  }

  static Bytes Good() {
    Bytes bytes;
    bytes.Header(2, 4);
    bytes.Name("general.architecture").Put<uint32_t>(8).Name("llama");
    bytes.Name("size").Put<uint32_t>(4).Put<uint32_t>(7);
    bytes.Name("eps").Put<uint32_t>(6).Put<float>(0.5f);
    bytes.Name("words").Put<uint32_t>(9).Put<uint32_t>(8).Put<uint64_t>(2).Name("a").Name("bc");
    bytes.Tensor("w", {4, 2}, GgufType::kF32, 0).Tensor("q", {32}, GgufType::kQ8_0, 32);
    bytes.Data(32 + 34);
    return bytes;
  }

  TempDir folder_;
};

TEST_F(GgufTest, ReadsMetadataAndTensors) {
  const auto file = Open(Good().text());
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufFile& gguf = **file;
  EXPECT_EQ(*gguf.String("general.architecture"), "llama");
  EXPECT_EQ(*gguf.Int("size"), 7);
  EXPECT_EQ(*gguf.Number("size"), 7.0);
  EXPECT_EQ(*gguf.Number("eps"), 0.5);
  EXPECT_EQ(*gguf.StringList("words"), (std::vector<std::string>{"a", "bc"}));
  ASSERT_EQ(gguf.tensors().size(), 2u);
  const GgufTensor* w = gguf.FindTensor("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->shape, (std::vector<int64_t>{2, 4}));  // slowest first
  EXPECT_EQ(w->data.size(), 32u);
  EXPECT_EQ(gguf.FindTensor("q")->data.size(), 34u);
  EXPECT_EQ(gguf.FindTensor("absent"), nullptr);
}

TEST_F(GgufTest, AKeyOfAnotherTypeSaysBoth) {
  const auto file = Open(Good().text());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(Message((*file)->Int("eps").status()),
              HasSubstr("eps: expected an integer, got 0.5"));
  EXPECT_THAT(Message((*file)->String("size").status()),
              HasSubstr("size: expected a string, got 7"));
  EXPECT_THAT(Message((*file)->Int("nowhere").status()),
              HasSubstr("nowhere: expected an integer, got nothing"));
  EXPECT_THAT(Message((*file)->Bool("words").status()),
              HasSubstr("words: expected a boolean, got a list of 2"));
}

TEST_F(GgufTest, EveryTruncationIsRefused) {
  const std::string good = Good().text();
  for (size_t size = 0; size < good.size(); ++size) {
    const absl::Status status = Open(good.substr(0, size)).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size << " bytes";
  }
}

// A bit turned over anywhere may give another valid file, but never a crash or a huge allocation.
TEST_F(GgufTest, EveryFlippedBitIsSurvived) {
  const std::string good = Good().text();
  int refused = 0;
  for (size_t bit = 0; bit < 8 * (good.size() - 66); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    if (!Open(bad).ok()) ++refused;
  }
  EXPECT_GT(refused, 500);
}

TEST_F(GgufTest, NoFile) {
  EXPECT_EQ(GgufFile::Open(folder_ / "absent.gguf").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(GgufTest, AnotherMagicOrVersion) {
  EXPECT_THAT(ErrorOf(Bytes().Name("GGML")), HasSubstr("not a GGUF file"));
  std::string old = Good().text();
  old[4] = 2;
  EXPECT_THAT(Message(Open(old).status()), HasSubstr("GGUF version 2, only version 3"));
}

TEST_F(GgufTest, CountsThatWouldAllocateGigabytes) {
  EXPECT_THAT(ErrorOf(Bytes().Header(uint64_t{1} << 60, 0)), HasSubstr("truncated: a table of"));
  EXPECT_THAT(ErrorOf(Bytes().Header(0, uint64_t{1} << 60)), HasSubstr("truncated: a table of"));
  Bytes list;
  list.Header(0, 1).Name("words").Put<uint32_t>(9).Put<uint32_t>(8).Put<uint64_t>(uint64_t{1}
                                                                                  << 61);
  EXPECT_THAT(ErrorOf(list), HasSubstr("truncated: words"));
  Bytes name;
  name.Header(0, 1).Put<uint64_t>(uint64_t{1} << 62).Data(64);
  EXPECT_THAT(ErrorOf(name), HasSubstr("metadata key 0: a name of"));
}

TEST_F(GgufTest, TensorTables) {
  const auto one = [](const std::vector<uint64_t>& sizes, uint64_t offset, size_t data = 64,
                      uint32_t type = 0) {
    Bytes bytes;
    bytes.Header(1, 0).Tensor("w", sizes, static_cast<GgufType>(type), offset).Data(data);
    return bytes;
  };
  ASSERT_TRUE(Open(one({16}, 0).text()).ok());
  EXPECT_THAT(ErrorOf(one({17}, 0)), HasSubstr("truncated: tensor w"));
  EXPECT_THAT(ErrorOf(one({8}, 64)), HasSubstr("truncated: tensor w"));
  EXPECT_THAT(ErrorOf(one({8}, ~uint64_t{31})), HasSubstr("truncated: tensor w"));
  EXPECT_THAT(ErrorOf(one({8}, 8)), HasSubstr("tensor w: offset 8 is not a multiple of 32"));
  EXPECT_THAT(ErrorOf(one({0}, 0)), HasSubstr("tensor w: a dimension of 0"));
  EXPECT_THAT(ErrorOf(one({uint64_t{1} << 33, uint64_t{1} << 33}, 0)),
              HasSubstr("does not fit into a file of"));
  EXPECT_THAT(ErrorOf(one({}, 0)), HasSubstr("tensor w: 0 dimensions, expected 1 to 4"));
  EXPECT_THAT(ErrorOf(one({8}, 0, 64, 10)),
              AllOf(HasSubstr("tensor w: unsupported type Q2_K"), HasSubstr("supported: F32")));
  EXPECT_THAT(ErrorOf(one({8}, 0, 64, 8)), HasSubstr("rows of 8 weights"));
}

TEST_F(GgufTest, DuplicatesAndOverlaps) {
  Bytes twice;
  twice.Header(2, 0);
  twice.Tensor("w", {8}, GgufType::kF32, 0).Tensor("w", {8}, GgufType::kF32, 32).Data(64);
  EXPECT_THAT(ErrorOf(twice), HasSubstr("tensor w: the name occurs twice"));
  Bytes overlap;
  overlap.Header(2, 0);
  overlap.Tensor("a", {16}, GgufType::kF32, 0).Tensor("b", {8}, GgufType::kF32, 32).Data(64);
  EXPECT_THAT(ErrorOf(overlap), HasSubstr("tensor b overlaps tensor a"));
  Bytes key;
  key.Header(0, 2);
  for (int i = 0; i < 2; ++i) key.Name("size").Put<uint32_t>(4).Put<uint32_t>(7);
  EXPECT_THAT(ErrorOf(key), HasSubstr("size: the key occurs twice"));
}

TEST_F(GgufTest, Alignment) {
  Bytes bytes;
  bytes.Header(0, 1).Name("general.alignment").Put<uint32_t>(4).Put<uint32_t>(48);
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("general.alignment: expected a power of two, got 48"));
}

TEST_F(GgufTest, AVocabularyThatIsAbsentIsNamed) {
  const auto file = Open(Good().text());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(Message(ReadGgufVocabulary(**file).status()), HasSubstr("tokenizer.ggml.model"));
}

}  // namespace
}  // namespace flowmesh::model
