#include "executors/data/data_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "executors/hub/fake_hub.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class DataSetTest : public testing::Test {
 protected:
  DataSetTest() {
    context_.task_dir = folder_ / "task";
    context_.env = [this](std::string_view name) -> std::optional<std::string> {
      if (name == "HOME") return folder_.path().string();
      const auto found = env_.find(std::string(name));
      if (found == env_.end()) return std::nullopt;
      return found->second;
    };
    context_.retry_limit = absl::ZeroDuration();
  }

  void Write(const std::string& name, const std::string& content) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }

  absl::StatusOr<Table> Load(Json data) {
    const Field field(&data, "spec.data");
    ASSIGN_OR_RETURN(const DataSet data_set, ReadDataSet(field, field["url"], field["name"]));
    return LoadDataSet(data_set, context_);
  }

  // The column `text` of all rows, joined.
  std::string Rows(Json data) {
    const auto table = Load(std::move(data));
    if (!table.ok()) return Message(table.status());
    std::string rows;
    for (size_t i = 0; i < table->rows.size(); ++i) rows += JsonToText(table->At(i, "text"));
    return rows;
  }

  std::string At(const std::string& name) const { return (folder_ / name).string(); }

  TempDir folder_;
  std::map<std::string, std::string> env_ = {{"HF_HUB_OFFLINE", "1"}};
  DataContext context_;
};

TEST_F(DataSetTest, AFileIsTheSplitTrain) {
  Write("a.txt", "a\nb\nc\nd\n");
  EXPECT_EQ(Rows({{"url", At("a.txt")}}), "abcd");
  EXPECT_EQ(Rows({{"url", "~/a.txt"}, {"split", "train[1:3]+train[:50%]"}}), "bcab");
  EXPECT_EQ(Rows({{"url", At("a.txt")}, {"split", "all"}}), "abcd");
  EXPECT_EQ(Rows({{"url", At("a.txt")}, {"name", "default"}}), "abcd");
  EXPECT_EQ(Rows({{"url", At("a.txt")}, {"split", "test"}}),
            "spec.data.split: unknown split 'test'; known: train");
  EXPECT_EQ(Rows({{"url", At("a.txt")}, {"name", "en"}}),
            "spec.data.name: unknown configuration 'en'; known: default");
}

TEST_F(DataSetTest, AFolder) {
  Write("set/train-1.txt", "a\nb\n");
  Write("set/train-2.txt", "c\n");
  Write("set/test.txt", "d\n");
  Write("set/notes.md", "x");
  EXPECT_EQ(Rows({{"url", At("set")}}), "abc");
  EXPECT_EQ(Rows({{"url", At("set")}, {"split", "test+train[-1:]"}}), "dc");
  EXPECT_EQ(Rows({{"url", At("set")}, {"split", "all"}}), "abcd");
  EXPECT_EQ(Rows({{"url", At("set")}, {"split", "dev"}}),
            "spec.data.split: unknown split 'dev'; known: train, test");
  const auto table = Load({{"url", At("set")}});
  EXPECT_EQ(table->Place(2), "line 1 of train-2.txt");
}

TEST_F(DataSetTest, ConfigurationsOfAFolder) {
  Write("set/README.md",
        "---\nconfigs:\n- config_name: en\n  data_files: en.txt\n"
        "- config_name: de\n  data_files: de.txt\n---\n");
  Write("set/en.txt", "e\n");
  Write("set/de.txt", "d\n");
  EXPECT_EQ(Rows({{"url", At("set")}, {"name", "de"}}), "d");
  EXPECT_EQ(Rows({{"url", At("set")}}),
            "spec.data.name: the data set has several configurations, name one: en, de");
  EXPECT_EQ(Rows({{"url", At("set")}, {"name", "fr"}}),
            "spec.data.name: unknown configuration 'fr'; known: en, de");
}

TEST_F(DataSetTest, ABadFileIsNamed) {
  Write("set/train.csv", "a,b\n1\n");
  EXPECT_EQ(Rows({{"url", At("set")}}),
            "spec.data.url: train.csv: line 2: expected 2 cells as in the header, got 1");
  Write("empty/notes.md", "x");
  EXPECT_THAT(Rows({{"url", At("empty")}}), HasSubstr("holds no data file"));
}

TEST_F(DataSetTest, AUrl) {
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    if (request.path == "/no.txt") reply.status = 404;
    reply.body = "a\nb\n";
  });
  context_.orchestrator_token = "secret";
  EXPECT_EQ(Rows({{"url", server.url("/x/a.txt")}, {"headers", {{"X-Key", "k"}}}}), "ab");
  EXPECT_EQ(server.requests()[0].get_header_value("X-Key"), "k");
  // Without a known origin the token is for JSONL inputs only.
  EXPECT_FALSE(server.requests()[0].has_header("Authorization"));
  EXPECT_TRUE(fs::exists(folder_ / "task/inputs/a.txt"));
  EXPECT_EQ(Rows({{"url", server.url("/rows")}}), "ab");  // the content tells
  const auto absent = Load({{"url", server.url("/no.txt")}});
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(absent.status()), HasSubstr("spec.data.url: GET "));
}

TEST_F(DataSetTest, AUrlOfMachineCredentialsIsRefused) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.set_redirect("http://169.254.169.254/latest/meta-data/");
  });
  for (const std::string& url :
       {std::string("http://169.254.169.254/latest/rows.jsonl"),
        std::string("http://[64:ff9b::a9fe:a9fe]/rows.jsonl"), server.url("/rows.jsonl")}) {
    const absl::Status status = Load({{"url", url}}).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << url << ": " << status;
  }
}

TEST_F(DataSetTest, WhatTheFirstRankDownloadedIsNotFetchedAgain) {
  TestHttpServer server(
      [](const httplib::Request&, httplib::Response& reply) { reply.body = "a"; });
  const Json data = {{"url", server.url("/a.txt")}};
  context_.may_reuse = true;
  EXPECT_EQ(Rows(data), "a");  // it is not there yet: another machine's
  EXPECT_EQ(Rows(data), "a");
  EXPECT_EQ(server.requests().size(), 1u);
  context_.may_reuse = false;
  EXPECT_EQ(Rows(data), "a");
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST_F(DataSetTest, SeveralRanksMayLoadTheSameUrl) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.body = std::string(1 << 20, 'a');
  });
  std::vector<std::thread> ranks;
  std::atomic<int> loaded = 0;
  for (int i = 0; i < 4; ++i) {
    ranks.emplace_back([&] { loaded += Load({{"url", server.url("/a.txt")}}).ok(); });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(loaded, 4);
}

TEST_F(DataSetTest, MistakesSayWhatWasLookedFor) {
  EXPECT_EQ(Rows({{"url", At("none")}}),
            absl::StrCat("spec.data.url: no such file or folder: ", At("none")));
  EXPECT_THAT(Rows({{"url", "a/b/c"}}), HasSubstr("spec.data.url: \"a/b/c\" is neither a file"));
  EXPECT_EQ(Rows({{"url", "org/set"}, {"revision", "../x"}}),
            "spec.data.url: \"../x\" is no revision");
  EXPECT_THAT(Rows({{"url", "org/set"}}),
              testing::AllOf(HasSubstr("spec.data.url: data set \"org/set\""),
                             HasSubstr("datasets--org--set: not in the cache"),
                             HasSubstr("HF_HUB_OFFLINE")));
}

class HubDataSetTest : public DataSetTest {
 protected:
  HubDataSetTest() {
    context_.warn = [this](const std::string& text) { warnings_.push_back(text); };
    fake_.repositories["datasets/org/set@main"] = {
        {"README.md",
         "---\nconfigs:\n- config_name: en\n  data_files: [{split: train, path: 'en/*.txt'}, "
         "{split: test, path: t.txt}]\n---\n"},
        {"en/1.txt", "a\n"},
        {"en/2.txt", "b\n"},
        {"t.txt", "t\n"}};
    fake_.repositories["datasets/org/set@v2"] = {{"train.csv", "text\nv2\n"}};
    // Only the third rule fits, after which the hub's converted branch is asked first.
    fake_.repositories["datasets/org/plain@main"] = {{"rows.txt", "p\n"}};
    fake_.repositories["datasets/org/conv@main"] = {{"rows.txt", "raw\n"}};
    fake_.repositories["datasets/org/conv@refs/convert/parquet"] = {
        {"default/train/0000.parquet", "PAR1"}, {"other/test/0000.parquet", "PAR1"}};
    env_ = {{"HF_ENDPOINT", fake_.url()}, {"HF_HUB_CACHE", At("cache")}};
  }

  hub::FakeHub fake_;
  std::vector<std::string> warnings_;
};

TEST_F(HubDataSetTest, TriesAreWarnedOf) {
  fake_.failures = 1;
  context_.retry_limit = absl::Seconds(30);
  EXPECT_EQ(Rows({{"url", "org/set"}, {"revision", "v2"}}), "v2");
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], HasSubstr("status 503; try 2 in 0."));
}

TEST_F(HubDataSetTest, TheFilesOfASplitAreFetched) {
  EXPECT_EQ(Rows({{"url", "org/set"}}), "ab");
  const fs::path snapshots = folder_ / "cache/datasets--org--set/snapshots";
  const fs::path snapshot = snapshots / hub::FakeHub::CommitOf("datasets/org/set@main");
  EXPECT_TRUE(fs::is_symlink(snapshot / "en/1.txt"));
  EXPECT_FALSE(fs::exists(snapshot / "t.txt"));
  EXPECT_EQ(Rows({{"url", "org/set"}, {"split", "test+train[1:]"}, {"name", "en"}}), "tb");
  EXPECT_EQ(fake_.downloads(), 4u);  // the README too, each once
  EXPECT_EQ(Rows({{"url", "org/set"}, {"revision", "v2"}}), "v2");
  EXPECT_EQ(Rows({{"url", "org/set"}, {"name", "de"}}),
            "spec.data.name: unknown configuration 'de'; known: en");
}

TEST_F(HubDataSetTest, AllFilesAreTrainOnlyWithoutAConvertedBranch) {
  EXPECT_EQ(Rows({{"url", "org/plain"}}), "p");
  // The branch's file is taken (and is no Parquet here).
  EXPECT_THAT(Rows({{"url", "org/conv"}}),
              HasSubstr("spec.data.url: default/train/0000.parquet: "));
  EXPECT_EQ(Rows({{"url", "org/conv"}, {"name", "other"}}),
            "spec.data.split: unknown split 'train'; known: test");
}

TEST_F(HubDataSetTest, WithoutTheHubTheCacheIsRead) {
  EXPECT_EQ(Rows({{"url", "org/set"}}), "ab");
  env_["HF_HUB_OFFLINE"] = "1";
  EXPECT_EQ(Rows({{"url", "org/set"}}), "ab");
  env_["HF_HUB_OFFLINE"] = "0";
  env_["HF_ENDPOINT"] = "http://127.0.0.1:1";
  EXPECT_EQ(Rows({{"url", "org/set"}}), "ab");
  ASSERT_EQ(warnings_.size(), 2u);
  EXPECT_THAT(warnings_[0], HasSubstr("data set org/set is read from the cache"));
  const auto absent = Load({{"url", "org/other"}});
  EXPECT_EQ(absent.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(absent.status()),
              testing::AllOf(HasSubstr("datasets--org--other: not in the cache"),
                             HasSubstr("http://127.0.0.1:1: ")));
}

TEST_F(HubDataSetTest, AGatedSetHintsAtTheToken) {
  fake_.token = "secret";
  const auto gated = Load({{"url", "org/set"}});
  EXPECT_EQ(gated.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(Message(gated.status()), HasSubstr("HF_TOKEN is not set"));
  env_["HF_TOKEN"] = "secret";
  EXPECT_EQ(Rows({{"url", "org/set"}}), "ab");
}

}  // namespace
}  // namespace flowmesh::data
