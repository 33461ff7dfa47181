// Files that pyarrow wrote (tests/goldens/data), read as it reads them.
#include "executors/data/arrow_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "common/files.h"
#include "executors/data/read_table.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

fs::path Golden(const std::string& name) {
  return fs::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "tests/goldens/data" / name;
}

class ArrowReaderTest : public testing::Test {
 protected:
  ArrowReaderTest() : rows_(ParseJson(ReadFile(Golden("rows.json")).value()).value()) {}

  absl::StatusOr<Table> Read(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return ReadTable(folder_ / name, name);
  }

  const Json rows_;
  TempDir folder_;
};

TEST_F(ArrowReaderTest, EveryFormHoldsTheSameRows) {
  for (const char* name : {"none.parquet", "snappy.parquet", "gzip.parquet", "zstd.parquet",
                           "plain_v1.parquet", "pages_v2.parquet", "file.arrow", "stream.arrow"}) {
    const auto table = ReadTable(Golden(name), name);
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_THAT(table->columns, ElementsAre("text", "number", "big", "share", "flag", "tags",
                                            "chat", "meta", "pairs", "day", "price", "word"));
    ASSERT_EQ(table->rows.size(), rows_.size()) << name;
    for (size_t i = 0; i < rows_.size(); ++i) {
      EXPECT_EQ(table->rows[i].values, rows_[i]) << name << ", row " << i;
    }
    EXPECT_EQ(table->Place(2), std::string("row 3 of ") + name);
  }
}

TEST_F(ArrowReaderTest, DeltaEncodings) {
  const auto table = ReadTable(Golden("delta.parquet"), "delta.parquet");
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->rows.size(), rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    for (const char* column : {"text", "number", "big"}) {
      EXPECT_EQ(table->At(i, column), rows_[i][column]) << i;
    }
  }
}

TEST_F(ArrowReaderTest, AnEmptyFileHasItsColumns) {
  const auto table = ReadTable(Golden("empty.parquet"), "empty.parquet");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->columns.size(), 12u);
  EXPECT_TRUE(table->rows.empty());
}

TEST_F(ArrowReaderTest, TheContentTellsWithoutAnEnding) {
  EXPECT_EQ(Read("rows", ReadFile(Golden("snappy.parquet")).value())->rows.size(), rows_.size());
  EXPECT_EQ(Read("rows", ReadFile(Golden("file.arrow")).value())->rows.size(), rows_.size());
}

TEST_F(ArrowReaderTest, DamagedFilesAreNamed) {
  const std::string whole = ReadFile(Golden("gzip.parquet")).value();
  std::string flipped = whole;
  for (size_t i = 40; i < 400; ++i) flipped[i] = static_cast<char>(~flipped[i]);
  for (const std::string& content : {whole.substr(0, whole.size() - 100), whole.substr(0, 40),
                                     std::string(), std::string("no parquet"), flipped}) {
    const auto table = Read("cut.parquet", content);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << content.size();
    EXPECT_THAT(Message(table.status()), HasSubstr("cut.parquet: expected a whole Parquet file"));
  }
  EXPECT_THAT(Message(Read("cut.arrow", "ARROW1").status()),
              HasSubstr("cut.arrow: expected a whole Arrow file"));
}

}  // namespace
}  // namespace flowmesh::data
