#include "executors/model/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "common/files.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class ResolveTest : public testing::Test {
 protected:
  ResolveTest() { env_["HOME"] = (folder_ / "home").string(); }

  absl::StatusOr<fs::path> Resolve(const std::string& identifier, const std::string& revision = "",
                                   const std::string& download_dir = "") {
    return ResolveModel(identifier, revision, download_dir,
                        [this](std::string_view name) -> std::optional<std::string> {
                          const auto found = env_.find(std::string(name));
                          if (found == env_.end()) return std::nullopt;
                          return found->second;
                        });
  }

  // A snapshot in the cache below `root`, with `main` pointing at it.
  static fs::path MakeSnapshot(const fs::path& root, const std::string& repository,
                               const std::string& commit) {
    const fs::path base = root / ("models--" + repository);
    fs::create_directories(base / "refs");
    fs::create_directories(base / "snapshots" / commit);
    std::ofstream(base / "refs/main") << commit << "\n";
    return base / "snapshots" / commit;
  }

  TempDir folder_;
  std::map<std::string, std::string> env_;
};

TEST_F(ResolveTest, PathsAreTakenAsTheyAre) {
  EXPECT_EQ(*Resolve(folder_.path().string()), folder_.path());
  fs::create_directories(folder_ / "home/models");
  EXPECT_EQ(*Resolve("~/models"), folder_ / "home/models");
  for (const char* absent : {"/no/such/model", "./no-such-model", "../no-such-model", "~/absent",
                             "no-such-model.gguf"}) {
    const auto resolved = Resolve(absent);
    EXPECT_EQ(resolved.status().code(), absl::StatusCode::kNotFound) << absent;
    EXPECT_THAT(Message(resolved.status()), HasSubstr("does not exist")) << absent;
  }
}

TEST_F(ResolveTest, TheCacheIsLookedForWhereTheHubLibraryKeepsIt) {
  const fs::path home = MakeSnapshot(folder_ / "home/.cache/huggingface/hub", "org--name", "aa");
  EXPECT_EQ(*Resolve("org/name"), home);
  const fs::path hf_home = MakeSnapshot(folder_ / "hf/hub", "org--name", "bb");
  env_["HF_HOME"] = (folder_ / "hf").string();
  EXPECT_EQ(*Resolve("org/name"), hf_home);
  const fs::path cache = MakeSnapshot(folder_ / "cache", "org--name", "cc");
  env_["HF_HUB_CACHE"] = (folder_ / "cache").string();
  EXPECT_EQ(*Resolve("org/name"), cache);
  const fs::path download = MakeSnapshot(folder_ / "download", "org--name", "dd");
  EXPECT_EQ(*Resolve("org/name", "", (folder_ / "download").string()), download);
}

TEST_F(ResolveTest, Revisions) {
  const fs::path root = folder_ / "home/.cache/huggingface/hub";
  const fs::path snapshot = MakeSnapshot(root, "gpt2", "0123abc");
  EXPECT_EQ(*Resolve("gpt2", "main"), snapshot);
  EXPECT_EQ(*Resolve("gpt2", "0123abc"), snapshot);
  EXPECT_THAT(Message(Resolve("gpt2", "v2").status()),
              HasSubstr("the cache does not hold revision v2"));
  EXPECT_EQ(Resolve("gpt2", "../../x").status().code(), absl::StatusCode::kInvalidArgument);
  // A reference that points outside of the snapshots is not followed.
  std::ofstream(root / "models--gpt2/refs/main") << "../../..";
  EXPECT_EQ(Resolve("gpt2").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ResolveTest, ErrorsSayWhatWasTried) {
  const absl::Status absent = Resolve("org/name").status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(absent), AllOf(HasSubstr("org/name"), HasSubstr("models--org--name"),
                                     HasSubstr("does not download from the hub")));
  for (const char* bad : {"", "  ", "a/b/c", "org/", "org name/x", "\n"}) {
    EXPECT_EQ(Resolve(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace flowmesh::model
