#include "executors/model/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "common/files.h"
#include "executors/hub/fake_hub.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class ResolveTest : public testing::Test {
 protected:
  ResolveTest() {
    env_["HOME"] = (folder_ / "home").string();
    env_["HF_HUB_OFFLINE"] = "1";
  }

  // From here on the hub is asked.
  void UseHub(const hub::FakeHub& hub) {
    env_["HF_HUB_OFFLINE"] = "0";
    env_["HF_ENDPOINT"] = hub.url();
  }

  absl::StatusOr<fs::path> Resolve(const std::string& identifier, const std::string& revision = "",
                                   const std::string& download_dir = "") {
    return ResolveModel(identifier, revision, download_dir,
                        [this](std::string_view name) -> std::optional<std::string> {
                          const auto found = env_.find(std::string(name));
                          if (found == env_.end()) return std::nullopt;
                          return found->second;
                        },
                        {.retry_limit = absl::ZeroDuration()});
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
  EXPECT_THAT(Message(Resolve("gpt2").status()), HasSubstr("does not hold revision main"));
}

TEST_F(ResolveTest, WhatTheCacheLacksComesFromTheHub) {
  hub::FakeHub fake;
  fake.repositories["models/org/name@main"] = {{"config.json", "{}"},
                                               {"tokenizer.json", "{}"},
                                               {"merges.txt", "x"},
                                               {"1_Pooling/config.json", "{}"},
                                               {"2_Dense/model.safetensors", "y"},
                                               {"model.safetensors", fake.AddLarge("weights")},
                                               {"consolidated.safetensors", fake.AddLarge("twice")},
                                               {"pytorch_model.bin", fake.AddLarge("again")},
                                               {"onnx/config.json", "{}"},
                                               {"onnx/model.onnx", "x"},
                                               {"README.md", "x"},
                                               {".gitattributes", "x"}};
  UseHub(fake);
  const auto path = Resolve("org/name");
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(ReadFile(*path / "model.safetensors").value(), "weights");
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(*path)) {
    if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(*path));
  }
  EXPECT_THAT(files, UnorderedElementsAre("config.json", "tokenizer.json", "merges.txt",
                                          "1_Pooling/config.json", "2_Dense/model.safetensors",
                                          "model.safetensors"));
  // From then on it is in the cache.
  const size_t requests = fake.requests().size();
  EXPECT_EQ(*Resolve("org/name"), *path);
  EXPECT_EQ(fake.requests().size(), requests);
}

TEST_F(ResolveTest, ASnapshotWithoutWeightsIsFilledUp) {
  hub::FakeHub fake;
  fake.repositories["models/org/name@main"] = {{"config.json", "{}"}, {"model.safetensors", "w"}};
  const fs::path snapshot = MakeSnapshot(folder_ / "home/.cache/huggingface/hub", "org--name",
                                         hub::FakeHub::CommitOf("models/org/name@main"));
  EXPECT_EQ(*Resolve("org/name"), snapshot);  // offline it is all there is
  UseHub(fake);
  EXPECT_EQ(*Resolve("org/name"), snapshot);
  EXPECT_EQ(ReadFile(snapshot / "model.safetensors").value(), "w");
  fake.repositories.clear();
  fs::remove(snapshot / "model.safetensors");
  EXPECT_THAT(Message(Resolve("org/name").status()), HasSubstr("models--org--name: no weights"));
}

TEST_F(ResolveTest, ASnapshotWithoutAllShardsIsFilledUp) {
  const std::string index = R"({"weight_map": {"a": "model-00001-of-00002.safetensors",
                                               "b": "model-00002-of-00002.safetensors"}})";
  hub::FakeHub fake;
  fake.repositories["models/org/name@main"] = {{"config.json", "{}"},
                                               {"model.safetensors.index.json", index},
                                               {"model-00001-of-00002.safetensors", "1"},
                                               {"model-00002-of-00002.safetensors", "2"}};
  const fs::path snapshot = MakeSnapshot(folder_ / "home/.cache/huggingface/hub", "org--name",
                                         hub::FakeHub::CommitOf("models/org/name@main"));
  std::ofstream(snapshot / "model.safetensors.index.json") << index;
  std::ofstream(snapshot / "model-00001-of-00002.safetensors") << "1";
  UseHub(fake);
  EXPECT_EQ(*Resolve("org/name"), snapshot);
  EXPECT_EQ(ReadFile(snapshot / "model-00002-of-00002.safetensors").value(), "2");
  fake.repositories.clear();  // it is whole now
  EXPECT_EQ(*Resolve("org/name"), snapshot);
  fs::remove(snapshot / "model-00001-of-00002.safetensors");
  EXPECT_THAT(Message(Resolve("org/name").status()),
              HasSubstr("models--org--name: no weights, or not all"));
}

TEST_F(ResolveTest, OneGgufFileIsAModelToo) {
  hub::FakeHub fake;
  fake.repositories["models/one@main"] = {{"m.gguf", "GGUF"}};
  fake.repositories["models/two@main"] = {{"a.gguf", "GGUF"}, {"b.gguf", "GGUF"}};
  fake.repositories["models/old@v1"] = {{"config.json", "{}"}, {"pytorch_model.bin", "x"}};
  UseHub(fake);
  EXPECT_TRUE(fs::exists(*Resolve("one") / "m.gguf"));
  EXPECT_THAT(Message(Resolve("two").status()), HasSubstr("got a.gguf, b.gguf; download one"));
  EXPECT_THAT(Message(Resolve("old", "v1").status()),
              HasSubstr("expected weights in *.safetensors or one .gguf file, got "
                        "pytorch_model.bin"));
}

TEST_F(ResolveTest, ErrorsSayWhatWasTried) {
  const absl::Status offline = Resolve("org/name").status();
  EXPECT_THAT(
      Message(offline),
      AllOf(HasSubstr("model \"org/name\" (revision main) was not found: no folder or file"),
            HasSubstr("models--org--name: not in the cache"),
            HasSubstr("https://huggingface.co: the hub is not asked: HF_HUB_OFFLINE")));
  hub::FakeHub fake;
  fake.token = "t";
  UseHub(fake);
  const absl::Status gated = Resolve("org/name").status();
  EXPECT_EQ(gated.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(Message(gated), AllOf(HasSubstr(fake.url()), HasSubstr("HF_TOKEN is not set")));
  env_["HF_TOKEN"] = "t";
  const absl::Status absent = Resolve("org/name").status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(absent), HasSubstr("status 404"));
  for (const char* bad : {"", "  ", "a/b/c", "org/", "org name/x", "\n"}) {
    EXPECT_EQ(Resolve(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace flowmesh::model
