#include "executors/data/data_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flowmesh::data {
namespace {

using ::testing::HasSubstr;

// `config(split=file file; split=file) config(...)`.
std::string Show(const std::vector<Configuration>& all) {
  return absl::StrJoin(all, " ", [](std::string* out, const Configuration& one) {
    absl::StrAppend(out, one.name, one.is_default ? "*" : "", "(",
                    absl::StrJoin(one.splits, "; ",
                                  [](std::string* text, const SplitFiles& split) {
                                    absl::StrAppend(text, split.name, "=",
                                                    absl::StrJoin(split.files, " "));
                                  }),
                    ")");
  });
}

std::string Find(const std::vector<std::string>& names, const std::string& readme = "") {
  const auto found = FindConfigurations(names, readme);
  EXPECT_TRUE(found.ok()) << found.status();
  return found.ok() ? Show(*found) : "";
}

TEST(DataFilesTest, ShardsInData) {
  EXPECT_EQ(
      Find({"data/train-00001-of-00002.parquet", "data/train-00000-of-00002-0a1b.parquet",
            "data/extra-00000-of-00001.parquet", "data/test-00000-of-00001.parquet",
            "data/train.csv", "other-train.parquet"}),
      "default*(train=data/train-00000-of-00002-0a1b.parquet data/train-00001-of-00002.parquet; "
      "test=data/test-00000-of-00001.parquet; extra=data/extra-00000-of-00001.parquet)");
}

TEST(DataFilesTest, FolderNamesThenFileNames) {
  EXPECT_EQ(Find({"x/train/a.csv", "val/b.csv", "test.csv"}),
            "default*(train=x/train/a.csv; validation=val/b.csv)");
  EXPECT_EQ(Find({"my_train-1.csv", "dev.csv", "eval2.csv", "constraint.csv", "Test.csv"}),
            "default*(train=my_train-1.csv; validation=dev.csv; test=eval2.csv)");
}

TEST(DataFilesTest, NothingThatMatchesIsNone) {
  EXPECT_EQ(Find({"a.csv", "b.csv"}), "");
  EXPECT_EQ(Show(AllFilesAsTrain({"b.csv", "a.csv", ".hidden.csv", "x/.git/c.csv", "image.png"})),
            "default*(train=a.csv b.csv)");
  EXPECT_EQ(Show(AllFilesAsTrain({"image.png"})), "");
}

TEST(DataFilesTest, TheMostFrequentFormatCounts) {
  EXPECT_EQ(Show(AllFilesAsTrain({"a.csv", "b.jsonl", "c.jsonl.gz", "LICENSE.txt"})),
            "default*(train=b.jsonl c.jsonl.gz)");
}

TEST(DataFilesTest, TheReadmeComesFirst) {
  const std::string readme = R"(---
license: mit
configs:
- config_name: en
  data_files:
  - split: train
    path: ["en/a*.csv", "en/deep/**"]
  - split: held_out
    path: en/z.csv
- config_name: de
  default: true
  data_files: "de/*.csv"
- config_name: fr
  data_files: [fr/1.csv, fr/3.csv]
- config_name: it
  data_dir: it
---
# Title
)";
  EXPECT_EQ(Find({"en/a1.csv", "en/a2.csv", "en/z.csv", "en/deep/er/x.csv", "de/1.csv",
                  "de/x/2.csv", "fr/1.csv", "fr/2.csv", "fr/3.csv", "it/test.csv", "train.csv"},
                 readme),
            "en(train=en/a1.csv en/a2.csv en/deep/er/x.csv; held_out=en/z.csv) de*(train=de/1.csv) "
            "fr(train=fr/1.csv fr/3.csv) it(test=it/test.csv)");
}

TEST(DataFilesTest, AReadmeWithoutConfigsIsNone) {
  EXPECT_EQ(Find({"train.csv"}, "# Title\n---\nconfigs: 3\n"), "default*(train=train.csv)");
  EXPECT_EQ(Find({"train.csv"}, "---\nlicense: mit\n---\n"), "default*(train=train.csv)");
}

TEST(DataFilesTest, ADamagedFrontMatterIsNamed) {
  for (const auto& [yaml, part] : std::vector<std::pair<std::string, std::string>>{
           {"configs: {a: 1}", "README.md: its front matter: configs: expected a list"},
           {"configs: [{config_name: a, data_files: [{split: x}]}]",
            "configs[0].data_files[0].path: expected"},
           {"a: [", "front matter"}}) {
    const auto found = FindConfigurations({"train.csv"}, "---\n" + yaml + "\n---\n");
    EXPECT_EQ(found.status().code(), absl::StatusCode::kInvalidArgument) << yaml;
    EXPECT_THAT(Message(found.status()), HasSubstr(part)) << yaml;
    EXPECT_THAT(Message(found.status()), HasSubstr("README.md"));
  }
}

TEST(DataFilesTest, TheConvertedBranch) {
  EXPECT_EQ(Show(ConvertedConfigurations({"en/train/0001.parquet", "en/train/0000.parquet",
                                          "en/test/0000.parquet", "de/train/0000.parquet",
                                          ".gitattributes", "x.parquet"})),
            "de(train=de/train/0000.parquet) "
            "en(train=en/train/0000.parquet en/train/0001.parquet; test=en/test/0000.parquet)");
}

TEST(DataFilesTest, Patterns) {
  EXPECT_TRUE(MatchesPattern("a/*.csv", "a/b.csv"));
  EXPECT_FALSE(MatchesPattern("a/*.csv", "a/b/c.csv"));
  EXPECT_FALSE(MatchesPattern("*.csv", "a/b.csv"));
  EXPECT_TRUE(MatchesPattern("**/*.csv", "b.csv"));
  EXPECT_TRUE(MatchesPattern("**/*.csv", "x/y/b.csv"));
  EXPECT_TRUE(MatchesPattern("a/**", "a/x/y"));
  EXPECT_TRUE(MatchesPattern("./a.csv", "a.csv"));
  EXPECT_TRUE(MatchesPattern("a-0000?.csv", "a-00001.csv"));
  EXPECT_FALSE(MatchesPattern("**/b.csv", "ab.csv"));
  EXPECT_TRUE(MatchesPattern("a/**/b", "a/b"));
  std::string stars;
  for (int i = 0; i < 50; ++i) stars += "*a";
  EXPECT_FALSE(MatchesPattern(stars + "b", std::string(200, 'a')));
  EXPECT_FALSE(MatchesPattern("a", "ab"));
  EXPECT_FALSE(MatchesPattern("ab", "a"));
}

}  // namespace
}  // namespace flowmesh::data
