#include "executors/data/read_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <isa-l/igzip_lib.h>

#include <fstream>

#include "common/files.h"

namespace flowmesh::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Gzip(const std::string& text) {
  isal_zstream stream;
  isal_deflate_stateless_init(&stream);
  std::string packed(text.size() + 1000, '\0');
  stream.gzip_flag = IGZIP_GZIP;
  stream.end_of_stream = 1;
  stream.next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uint32_t>(text.size());
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = static_cast<uint32_t>(packed.size());
  EXPECT_EQ(isal_deflate_stateless(&stream), COMP_OK);
  packed.resize(stream.total_out);
  return packed;
}

class ReadTableTest : public testing::Test {
 protected:
  absl::StatusOr<Table> Read(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return ReadTable(folder_ / name, name);
  }

  // All rows, each as a list of its columns' values.
  Json Cells(const std::string& name, const std::string& content) {
    const auto table = Read(name, content);
    EXPECT_TRUE(table.ok()) << table.status();
    Json rows = Json::array();
    for (size_t i = 0; table.ok() && i < table->rows.size(); ++i) {
      Json row = Json::array();
      for (const std::string& column : table->columns) row.push_back(table->At(i, column));
      rows.push_back(row);
    }
    return rows;
  }

  std::string Error(const std::string& name, const std::string& content) {
    const auto table = Read(name, content);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << table.status();
    return Message(table.status());
  }

  TempDir folder_;
};

TEST_F(ReadTableTest, JsonLines) {
  const auto table =
      Read("a.jsonl", "\xef\xbb\xbf{\"b\": 1, \"a\": \"x\"}\r\n\n  \n{\"c\": [2.0], \"b\": true}");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(table->columns, ElementsAre("b", "a", "c"));
  ASSERT_EQ(table->rows.size(), 2u);
  EXPECT_EQ(table->rows[1].values, (Json{{"c", {2.0}}, {"b", true}}));
  EXPECT_TRUE(table->At(1, "a").is_null());
  EXPECT_EQ(table->Place(1), "line 4 of a.jsonl");
  EXPECT_EQ(Cells("a.ndjson", "{\"a\": 1}\n"), Json({{1}}));
  EXPECT_EQ(Read("a.jsonl", "\n \n")->rows.size(), 0u);
}

TEST_F(ReadTableTest, BadLinesAreNamed) {
  EXPECT_THAT(
      Error("a.jsonl", "{\"a\": 1}\n\n{\"a\": \"cut"),
      testing::AllOf(HasSubstr("a.jsonl: line 3: not JSON"), testing::Not(HasSubstr("line 1"))));
  EXPECT_EQ(Error("a.jsonl", "{\"a\": 1}\n[1]\n"), "a.jsonl: line 2: expected a map, got a list");
  EXPECT_THAT(Error("a.jsonl", "{\"a\": \"\xff\"}\n"), HasSubstr("a.jsonl: line 1: "));
}

TEST_F(ReadTableTest, JsonDocuments) {
  EXPECT_EQ(Cells("a.json", "[{\"a\": 1}, {\"a\": 2}]"), Json({{1}, {2}}));
  EXPECT_EQ(Cells("a.json", "{\n \"data\": [{\"a\": 1}]\n}"), Json({{1}}));
  EXPECT_EQ(Cells("a.json", "{\"data\": [{\"a\": 1}]}\n"), Json({{1}}));
  EXPECT_EQ(Cells("a.json", " {\"a\": 1}\n{\"a\": 2}\n"), Json({{1}, {2}}));  // JSONL by content
  EXPECT_EQ(Error("a.json", "[{\"a\": 1}, 2]"), "a.json: row 2: expected a map, got 2");
  EXPECT_THAT(Error("a.json", "{\"a\": 1, \"b\": []}"), HasSubstr("got another map"));
  EXPECT_THAT(Error("a.json", "\"x\""), HasSubstr("a.json: expected a list of maps"));
  EXPECT_THAT(Error("a.json", "[{\"a\": 1}, {\"a\""), HasSubstr("a.json: not JSON"));
  EXPECT_THAT(Error("a.json", ""), HasSubstr("a.json: not JSON"));
  EXPECT_THAT(Error("a.json", "{\"a\": 1}\n{\"a\": "), HasSubstr("a.json: line 2: not JSON"));
}

TEST_F(ReadTableTest, Csv) {
  EXPECT_EQ(
      Cells("a.csv", "\xef\xbb\xbfid,text\r\n007,\"a \"\"b\"\", c\"\r\nNA,\"two\nlines\"\n\n1,\n"),
      Json::parse(R"([["007", "a \"b\", c"], ["NA", "two\nlines"], ["1", null]])"));
  EXPECT_EQ(Cells("a.tsv", "a\tb\nx,y\t\"\"\n"), Json::parse(R"([["x,y", null]])"));
  EXPECT_EQ(Cells("a.csv", "a\nb\"c\n"), Json::parse(R"([["b\"c"]])"));
  EXPECT_EQ(Read("a.csv", "")->rows.size(), 0u);
  EXPECT_THAT(Read("a.csv", "x,y")->columns, ElementsAre("x", "y"));
  const auto table = Read("a.csv", "a,b\n\"1\n2\",3\n4,5\n");
  EXPECT_EQ(table->Place(1), "line 4 of a.csv");
}

TEST_F(ReadTableTest, CsvMistakesNameTheLine) {
  EXPECT_EQ(Error("a.csv", "a,b\n1,2\n3\n"),
            "a.csv: line 3: expected 2 cells as in the header, got 1");
  EXPECT_EQ(Error("a.csv", "a,b\n\"1\n1\",2\n3,4,5\n"),
            "a.csv: line 4: expected 2 cells as in the header, got 3");
  EXPECT_THAT(Error("a.csv", "a,b\n1,\"2\n3"),
              HasSubstr("a.csv: line 2: expected a closing quote"));
  EXPECT_THAT(Error("a.csv", "a,b\n\"1\"x,2\n"), HasSubstr("a.csv: line 2: expected a separator"));
  EXPECT_EQ(Error("a.csv", "a,b,a\n"), "a.csv: line 1: column 'a' stands twice in the header");
  EXPECT_EQ(Error("a.csv", "a\nb\n\xff\n"), "a.csv: line 3: expected UTF-8, got other bytes");
}

TEST_F(ReadTableTest, Text) {
  EXPECT_EQ(Cells("a.txt", "one\r\n\n two\rthree \n"),
            Json::parse(R"([["one"], [""], [" two\rthree "]])"));
  EXPECT_EQ(Cells("a.txt", "x"), Json::parse(R"([["x"]])"));
  EXPECT_EQ(Read("a.txt", "")->rows.size(), 0u);
  EXPECT_THAT(Read("a.txt", "")->columns, ElementsAre("text"));
  EXPECT_EQ(Error("a.txt", "a\n\xc3\n"), "a.txt: line 2: expected UTF-8, got other bytes");
}

TEST_F(ReadTableTest, GzipIsUnpacked) {
  EXPECT_EQ(Cells("a.jsonl.gz", Gzip("{\"a\": 1}\n")), Json({{1}}));
  EXPECT_EQ(Cells("a.CSV.gz", Gzip("a\n1\n")), Json::parse(R"([["1"]])"));
  EXPECT_EQ(Cells("a.gz", Gzip("[{\"a\": 1}]")), Json({{1}}));
  EXPECT_EQ(Cells("a.txt", Gzip("x\n")), Json::parse(R"([["x"]])"));  // by content too
  EXPECT_EQ(Error("a.txt.gz", "x"), "a.txt.gz: expected gzip, got other content");
  const std::string whole = Gzip("{\"a\": \"some text\"}\n");
  EXPECT_THAT(Error("a.jsonl.gz", whole.substr(0, whole.size() - 9)), HasSubstr("a.jsonl.gz: "));
}

TEST_F(ReadTableTest, WithoutAKnownEndingTheContentDecides) {
  EXPECT_EQ(Cells("rows", "[{\"a\": 1}]"), Json({{1}}));
  EXPECT_EQ(Cells("rows.data", "\n{\"a\": 1}\n{\"a\": 2}"), Json({{1}, {2}}));
  EXPECT_EQ(Cells("rows", "hello\n"), Json::parse(R"([["hello"]])"));
}

TEST_F(ReadTableTest, AnAbsentFileIsNamed) {
  const auto table = ReadTable(folder_ / "absent.csv", "absent.csv");
  EXPECT_EQ(table.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(table.status()), HasSubstr("absent.csv"));
}

}  // namespace
}  // namespace flowmesh::data
