#include "executors/hub/hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "common/fetch/raw_server.h"
#include "common/files.h"
#include "executors/hub/fake_hub.h"

namespace flowmesh::hub {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;

class HubTest : public testing::Test {
 protected:
  HubTest() {
    fake_.repositories["models/org/name@main"] = {{"config.json", "{}"},
                                                  {"a b/deep.json", "[1]"},
                                                  {"weights.bin", fake_.AddLarge("many bytes")}};
    fake_.repositories["datasets/org/set@refs/convert/parquet"] = {{"c/train/0.parquet", "PAR1"}};
  }

  Hub MakeHub(const std::string& token = "", absl::Duration retry_limit = absl::ZeroDuration()) {
    return Hub({.cache = folder_.path(), .endpoint = fake_.url(), .token = token},
               {.retry_limit = retry_limit});
  }
  // Lists the repository and fetches all its files.
  absl::StatusOr<fs::path> FetchAll(Hub hub) {
    ASSIGN_OR_RETURN(const Listing listing, hub.List(repository_));
    return hub.Fetch(repository_, listing, listing.files);
  }

  TempDir folder_;
  FakeHub fake_;
  const Repository repository_{Kind::kModel, "org/name"};
  const std::string commit_ = FakeHub::CommitOf("models/org/name@main");
};

TEST_F(HubTest, FilesComeIntoTheLayoutOfTheHubLibrary) {
  const auto listing = MakeHub().List(repository_);
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_EQ(listing->commit, commit_);
  EXPECT_THAT(listing->files, ElementsAre("a b/deep.json", "config.json", "weights.bin"));
  const auto snapshot = FetchAll(MakeHub());
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  const fs::path root = folder_ / "models--org--name";
  EXPECT_EQ(*snapshot, root / "snapshots" / commit_);
  EXPECT_EQ(ReadFile(root / "refs/main").value(), commit_);
  EXPECT_EQ(ReadFile(*snapshot / "a b/deep.json").value(), "[1]");
  EXPECT_EQ(ReadFile(*snapshot / "weights.bin").value(), "many bytes");
  EXPECT_EQ(fs::read_symlink(*snapshot / "weights.bin"),
            fs::path("../../blobs") / Sha256Hex("many bytes"));
  EXPECT_EQ(fs::read_symlink(*snapshot / "a b/deep.json").parent_path(), "../../../blobs");
  EXPECT_EQ(MakeHub().FindCached(repository_).value(), *snapshot);
}

TEST_F(HubTest, WhatIsThereIsNotFetchedAgain) {
  ASSERT_TRUE(FetchAll(MakeHub()).ok());
  const size_t requests = fake_.requests().size();
  ASSERT_TRUE(FetchAll(MakeHub()).ok());
  EXPECT_EQ(fake_.requests().size(), requests + 1);  // the listing
  // Nor is anything written: the cache may be mounted read-only.
  fs::remove_all(folder_ / ".locks");
  ASSERT_TRUE(FetchAll(MakeHub()).ok());
  EXPECT_FALSE(fs::exists(folder_ / ".locks"));
  // Another commit with the same blob takes that.
  const size_t downloads = fake_.downloads();
  fs::remove_all(folder_ / "models--org--name/snapshots");
  ASSERT_TRUE(FetchAll(MakeHub()).ok());
  EXPECT_EQ(fake_.downloads(), downloads);
}

TEST_F(HubTest, TheTokenGoesToTheHubsOwnHostOnly) {
  fake_.token = "secret-token";
  ASSERT_TRUE(FetchAll(MakeHub("secret-token")).ok());
  ASSERT_FALSE(fake_.store_requests().empty());
  for (const httplib::Request& request : fake_.store_requests()) {
    EXPECT_FALSE(request.has_header("Authorization"));
  }
  fs::remove_all(folder_ / "models--org--name");
  for (const auto& [token, hint] : {std::pair("", "HF_TOKEN is not set"),
                                    std::pair("wrong-token", "HF_TOKEN is set but not accepted")}) {
    const auto refused = MakeHub(token).List(repository_);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(Message(refused.status()), AllOf(HasSubstr(hint), Not(HasSubstr("wrong-token"))));
  }
}

TEST_F(HubTest, SlashesOfARevisionAreEscaped) {
  const Repository branch{Kind::kDataSet, "org/set", "refs/convert/parquet"};
  Hub hub = MakeHub();
  const auto listing = hub.List(branch);
  ASSERT_TRUE(listing.ok()) << listing.status();
  ASSERT_TRUE(hub.Fetch(branch, *listing, listing->files).ok());
  EXPECT_TRUE(fs::exists(folder_ / "datasets--org--set/refs/refs/convert/parquet"));
  EXPECT_TRUE(hub.FindCached(branch).ok());
}

TEST_F(HubTest, AFailedFetchLeavesNoReferenceAndGoesOnLater) {
  const std::string digest = Sha256Hex("many bytes");
  fake_.large[digest] = "other bytes";
  const auto damaged = FetchAll(MakeHub());
  EXPECT_EQ(damaged.status().code(), absl::StatusCode::kDataLoss) << damaged.status();
  EXPECT_EQ(MakeHub().FindCached(repository_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(folder_ / "models--org--name/snapshots"));
  const size_t downloads = fake_.downloads();
  fake_.large[digest] = "many bytes";
  EXPECT_TRUE(FetchAll(MakeHub()).ok());
  EXPECT_EQ(fake_.downloads(), downloads + 1);  // the two small files were there
}

TEST_F(HubTest, ABusyHubIsAskedAgain) {
  fake_.failures = 1;
  EXPECT_TRUE(FetchAll(MakeHub("", absl::Seconds(30))).ok());
}

TEST_F(HubTest, TriesAreSaidAndWhatHasCome) {
  std::atomic<int> asked = 0;
  TestHttpServer busy([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = asked++ == 0 ? 503 : 404;
  });
  std::vector<std::string> said;
  const Callbacks callbacks = {.on_retry = [&](const std::string& text) { said.push_back(text); }};
  Hub hub({.cache = folder_.path(), .endpoint = busy.url()}, callbacks);
  EXPECT_FALSE(hub.Fetch(repository_, {.commit = commit_}, {"f"}).ok());
  ASSERT_EQ(said.size(), 1u);
  const std::string file = absl::StrCat("/org/name/resolve/", commit_, "/f");
  EXPECT_THAT(said[0], StartsWith(absl::StrCat("HEAD ", busy.url(file), ": status 503; try 2 in")));
  asked = 0;
  EXPECT_FALSE(hub.List(repository_).ok());
  ASSERT_EQ(said.size(), 2u);
  EXPECT_THAT(said[1], StartsWith(absl::StrCat("GET ", busy.url("/api/models/org/name"))));

  std::map<std::string, uint64_t> come;
  const auto on_progress = [&](const std::string& name, uint64_t done, uint64_t total) {
    EXPECT_EQ(total, done);  // each comes in one piece
    come[name] = done;
  };
  ASSERT_TRUE(FetchAll(Hub({.cache = folder_.path(), .endpoint = fake_.url()},
                           {.on_progress = on_progress}))
                  .ok());
  EXPECT_THAT(
      come, ElementsAre(Pair("a b/deep.json", 3), Pair("config.json", 2), Pair("weights.bin", 10)));
}

// A server that cuts its first answer after half of the file.
TEST_F(HubTest, ABrokenDownloadGoesOnWhereItWas) {
  const std::string content(100000, 'x');
  std::atomic<bool> was_cut = false;
  std::string second;
  RawServer server([&](const std::string& head) -> std::string {
    const std::string etag = "ETag: \"abc\"\r\nConnection: close\r\n";
    const std::string length = absl::StrCat("Content-Length: ", content.size(), "\r\n\r\n");
    if (head.rfind("HEAD", 0) == 0) return "HTTP/1.1 200 OK\r\n" + etag + length;
    if (!was_cut.exchange(true)) {
      return "HTTP/1.1 200 OK\r\n" + etag + length + content.substr(0, 50000);
    }
    second = head;
    return absl::StrCat("HTTP/1.1 206 Partial Content\r\n", etag,
                        "Content-Range: bytes 50000-99999/100000\r\nContent-Length: 50000\r\n\r\n",
                        content.substr(50000));
  });
  Hub hub({.cache = folder_.path(), .endpoint = server.url()}, {.retry_limit = absl::Seconds(30)});
  const auto snapshot = hub.Fetch(repository_, {.commit = "c1", .files = {"f"}}, {"f"});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(ReadFile(*snapshot / "f").value(), content);
  EXPECT_THAT(second, HasSubstr("Range: bytes=50000-"));
}

TEST_F(HubTest, SeveralMayFetchAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> done = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { done += FetchAll(MakeHub()).ok(); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 4);
  EXPECT_EQ(fake_.downloads(), 3u);
}

TEST_F(HubTest, WhatIsMissingIsSaid) {
  Hub hub = MakeHub();
  EXPECT_EQ(hub.List({Kind::kModel, "org/none"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(hub.List({Kind::kModel, "org/name", "v2"}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(hub.Fetch(repository_, {.commit = commit_}, {"none"}).status().code(),
            absl::StatusCode::kNotFound);
  Hub offline({.cache = folder_.path(), .endpoint = fake_.url(), .offline = true});
  const size_t requests = fake_.requests().size();
  EXPECT_EQ(offline.List(repository_).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fake_.requests().size(), requests);
}

TEST_F(HubTest, AListingThatIsNoneIsRefused) {
  for (const char* body :
       {"<html>", "{}", "{\"sha\": \"../x\", \"siblings\": []}",
        "{\"sha\": \"c\", \"siblings\": [{\"rfilename\": \"../../etc/passwd\"}]}",
        "{\"sha\": \"c\", \"siblings\": [{\"rfilename\": \"/etc/passwd\"}]}"}) {
    TestHttpServer server(
        [&](const httplib::Request&, httplib::Response& reply) { reply.body = body; });
    Hub hub({.cache = folder_.path(), .endpoint = server.url()});
    EXPECT_THAT(Message(hub.List(repository_).status()), HasSubstr("not an answer of a hub"))
        << body;
  }
}

TEST(HubSettingsTest, ComeFromTheEnvironment) {
  std::map<std::string, std::string> env = {{"HOME", "/home/u"}};
  const auto read = [&](const std::string& download_dir = "") {
    return Settings::FromEnv(
        [&](std::string_view name) -> std::optional<std::string> {
          const auto found = env.find(std::string(name));
          if (found == env.end()) return std::nullopt;
          return found->second;
        },
        download_dir);
  };
  EXPECT_EQ(read().cache, "/home/u/.cache/huggingface/hub");
  EXPECT_EQ(read().endpoint, "https://huggingface.co");
  EXPECT_FALSE(read().offline);
  env["HF_HOME"] = "~/hf";
  EXPECT_EQ(read().cache, "/home/u/hf/hub");
  env["HF_HUB_CACHE"] = "/cache";
  env["HF_ENDPOINT"] = " http://h:1/ ";
  env["HF_TOKEN"] = "t\n";
  env["HF_HUB_OFFLINE"] = "1";
  EXPECT_EQ(read().cache, "/cache");
  EXPECT_EQ(read("~/d").cache, "/home/u/d");
  EXPECT_EQ(read().endpoint, "http://h:1");
  EXPECT_EQ(read().token, "t");
  EXPECT_TRUE(read().offline);
}

}  // namespace
}  // namespace flowmesh::hub
