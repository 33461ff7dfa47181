#include "executors/tasks/fetch_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "common/yaml.h"
#include "executors/tasks/test_archive.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class FetchSourceTest : public ::testing::Test {
 protected:
  FetchSourceTest()
      : server_([this](const httplib::Request& request, httplib::Response& reply) {
          const auto file = served_.find(request.path);
          if (file == served_.end()) {
            reply.status = 404;
          } else {
            reply.set_content(file->second, "application/octet-stream");
          }
        }) {
    context_.task_id = "T2";
    context_.task_dir = dir_ / "results/T2";
    context_.results_dir = dir_ / "results";
    context_.orchestrator_token = "token";
    context_.document = {{"spec", Json::object()}};
    context_.on_progress = [](const Progress&) {};
    context_.on_log = [this](LogLevel, const std::string& text) { log_.push_back(text); };
    context_.is_stopped = [this] { return stopped_; };
    Make("results/T2/x", "");
  }

  fs::path Make(const std::string& name, const std::string& content) {
    const fs::path path = dir_ / name;
    EXPECT_TRUE(MakeDirectories(path.parent_path()).ok());
    EXPECT_TRUE(WriteFileAtomically(path, content).ok());
    return path;
  }
  std::string TarOf(const std::map<std::string, std::string>& files,
                    TestArchive kind = TestArchive::kTarGz) {
    WriteTestArchive(dir_ / "made", kind, files);
    return ReadFile(dir_ / "made").value();
  }

  absl::StatusOr<Fetched> Get(const std::string& load, bool adapter_first = false,
                              bool may_reuse = false) {
    const Json spec = ParseYaml("checkpoint: {load: " + load + "}").value();
    const auto source = ReadCheckpointLoad(Field(&spec, "spec"));
    if (!source.ok()) return source.status();
    FetchOptions options = CheckpointOptions(context_, adapter_first);
    options.may_reuse = may_reuse;
    return Fetch(**source, options, context_, SystemEnv());
  }
  // Where it was found, below the folder of the test.
  std::string Place(const std::string& load, bool adapter_first = false) {
    const auto fetched = Get(load, adapter_first);
    if (!fetched.ok()) return fetched.status().ToString();
    return fetched->path.lexically_relative(dir_.path());
  }
  std::string Error(const std::string& load) { return Message(Get(load).status()); }
  // The Authorization of the last request.
  std::string LastToken() const {
    return server_.requests().back().get_header_value("Authorization");
  }
  std::string Quoted(const fs::path& path) { return "'" + path.string() + "'"; }
  fs::path imported() const { return context_.task_dir / "imported_checkpoint"; }

  TempDir dir_;
  std::map<std::string, std::string> served_;
  TaskContext context_;
  std::vector<std::string> log_;
  bool stopped_ = false;
  TestHttpServer server_;  // last: it uses the others
};

TEST_F(FetchSourceTest, TheOrderIsPathTaskUrl) {
  Make("a/model.safetensors", "path");
  Make("results/T1/final_model/model.safetensors", "task");
  served_["/m/w.safetensors"] = "url";
  const std::string rest =
      absl::StrCat(", taskId: T1, url: '", server_.url("/m/w.safetensors"), "'}");
  EXPECT_EQ(Place(absl::StrCat("{path: ", Quoted(dir_ / "a"), rest)), "a");
  EXPECT_EQ(Place("{path: /no/such/folder" + rest), "results/T1/final_model");
  fs::remove_all(dir_ / "results/T1");
  EXPECT_EQ(Place("{path: /no/such/folder" + rest), "results/T2/imported_checkpoint/w.safetensors");
  EXPECT_EQ(ReadFile(imported() / "w.safetensors").value(), "url");
}

TEST_F(FetchSourceTest, ATasksFolderIsSearchedInOrder) {
  EXPECT_THAT(Error("{taskId: T1}"),
              AllOf(HasSubstr("spec.checkpoint.load.taskId: "), HasSubstr("results/T1 holds"),
                    HasSubstr("final_model, checkpoints/final_model, final_model.bin")));
  Make("results/T1/responses.json", "{}");
  EXPECT_THAT(Error("{taskId: T1}"), HasSubstr("holds nothing to load")) << "no model's folder";
  Make("results/T1/model.safetensors", "");
  EXPECT_EQ(Place("{taskId: T1}"), "results/T1");
  Make("results/T1/final_model.pt", "");
  EXPECT_EQ(Place("{taskId: T1}"), "results/T1/final_model.pt");
  Make("results/T1/final_model.safetensors", "");
  EXPECT_EQ(Place("{taskId: T1}"), "results/T1/final_model.safetensors");
  Make("results/T1/final_model.bin", "");
  EXPECT_EQ(Place("{taskId: T1}"), "results/T1/final_model.bin");
  Make("results/T1/checkpoints/final_model/x", "");
  EXPECT_EQ(Place("{taskId: T1}"), "results/T1/checkpoints/final_model");
  Make("results/T1/final_model/x", "");
  EXPECT_EQ(Place("{taskId: T1}"), "results/T1/final_model");
  Make("results/T1/final_lora/x", "");
  EXPECT_EQ(Place("{taskId: T1}"), "results/T1/final_model");
  EXPECT_EQ(Place("{taskId: T1}", /*adapter_first=*/true), "results/T1/final_lora");
}

TEST_F(FetchSourceTest, AnAdapterOfATask) {
  const auto adapter = [&](const std::string& entry) -> absl::StatusOr<Fetched> {
    const Json list = ParseYaml("x: [" + entry + "]").value();
    const auto read = ReadAdapters(Field(&list, "spec")["x"], [](const std::string&) {});
    if (!read.ok()) return read.status();
    return Fetch((*read)[0].source, AdapterOptions(context_, (*read)[0]), context_, SystemEnv());
  };
  Make("results/T1/model.safetensors", "");
  EXPECT_THAT(Message(adapter("{taskId: T1}").status()),
              HasSubstr("spec.x[0].taskId: " + (dir_ / "results/T1 holds nothing").string()));
  Make("results/T1/checkpoints/checkpoint-3/adapter_config.json", "{}");
  EXPECT_EQ(adapter("{taskId: T1}")->path, dir_ / "results/T1");
  Make("results/T1/final_model/x", "");
  EXPECT_EQ(adapter("{taskId: T1}")->path, dir_ / "results/T1/final_model");
  Make("results/T1/final_lora/x", "");
  EXPECT_EQ(adapter("{taskId: T1}")->path, dir_ / "results/T1/final_lora");
  served_["/a"] = TarOf({{"final_lora/adapter_config.json", "{}"}});
  EXPECT_EQ(adapter("{name: it, url: '" + server_.url("/a") + "'}")->path,
            context_.task_dir / "_lora_cache/it/unpacked/final_lora");
}

TEST_F(FetchSourceTest, ArchivesAreUnpackedAndEntered) {
  served_["/one.tar.gz"] = TarOf({{"final_model/config.json", "{}"}});
  served_["/two.tar.gz"] = TarOf({{"config.json", "{}"}, {"deep/er/x", ""}});
  served_["/three.zip"] = TarOf({{"config.json", "{}"}}, TestArchive::kZip);
  served_["/four.pt"] = served_["/three.zip"];
  const auto load = [&](const std::string& path, const std::string& more = "") {
    return absl::StrCat("{url: '", server_.url(path), "'", more, "}");
  };
  const std::string below = "results/T2/imported_checkpoint/";
  EXPECT_EQ(Place(load("/one.tar.gz")), below + "unpacked/final_model");
  EXPECT_EQ(Place(load("/two.tar.gz")), below + "unpacked");
  EXPECT_FALSE(fs::exists(imported() / "two.tar.gz")) << "it has served";
  EXPECT_FALSE(fs::exists(imported() / "unpacked/final_model")) << "of the one before";
  EXPECT_EQ(Place(load("/two.tar.gz", ", subdir: deep/er")), below + "unpacked/deep/er");
  EXPECT_EQ(Place(load("/two.tar.gz", ", archive_format: none")), below + "two.tar.gz");
  EXPECT_EQ(Place(load("/three.zip")), below + "unpacked");
  EXPECT_EQ(Place(load("/four.pt")), below + "four.pt") << "PyTorch's files are zip containers";
  EXPECT_EQ(Place(load("/four.pt", ", archive_format: zip")), below + "unpacked");
  EXPECT_EQ(Place(load("/three.zip", ", filename: f.zip, archive_format: none")), below + "f.zip");

  EXPECT_EQ(Error(load("/two.tar.gz", ", subdir: x")),
            R"(spec.checkpoint.load.subdir: the archive has no "x")");
  EXPECT_THAT(Error(load("/two.tar.gz", ", subdir: ../x")),
              HasSubstr("spec.checkpoint.load.subdir: expected a folder inside the archive"));
  EXPECT_THAT(Error(load("/four.pt", ", archive_format: tar")),
              HasSubstr("spec.checkpoint.load.url: "));
  served_["/evil.tar.gz"] = TarOf({{"../../evil", "x"}});
  EXPECT_THAT(Error(load("/evil.tar.gz")),
              AllOf(HasSubstr("spec.checkpoint.load.url: "), HasSubstr("../../evil")));
  EXPECT_FALSE(fs::exists(dir_ / "results/evil"));
}

TEST_F(FetchSourceTest, AnArchiveOnThisMachine) {
  WriteTestArchive(dir_ / "m.tar.gz", TestArchive::kTarGz, {{"m/config.json", "{}"}});
  EXPECT_EQ(Place("{path: " + Quoted(dir_ / "m.tar.gz") + "}"),
            "results/T2/imported_checkpoint/unpacked/m");
  EXPECT_TRUE(fs::exists(dir_ / "m.tar.gz")) << "it belongs to somebody else";
}

TEST_F(FetchSourceTest, ATaskIdAndAFileNameMakeAUrl) {
  served_["/api/v1/results/T9/files/final_model.tar.gz"] = TarOf({{"final_model/x", ""}});
  const std::string load = "{taskId: T9, filename: final_model.tar.gz";
  const std::string place = "results/T2/imported_checkpoint/unpacked/final_model";
  EXPECT_THAT(Error(load + "}"), HasSubstr("holds nothing to load")) << "no base is known";
  EXPECT_EQ(Place(absl::StrCat(load, ", base_url: '", server_.url("/"), "'}")), place);
  context_.orchestrator_base_url = server_.url();
  EXPECT_EQ(Place(load + "}"), place);
}

TEST_F(FetchSourceTest, TheTokenGoesToTheOrchestratorAndTheDestinationAlone) {
  served_["/x.safetensors"] = "w";
  const std::string load = absl::StrCat("{url: '", server_.url("/x.safetensors"), "'");
  Get(load + "}").IgnoreError();
  EXPECT_EQ(LastToken(), "") << "no origin is known";
  context_.orchestrator_base_url = "http://127.0.0.1:1/api";
  Get(load + "}").IgnoreError();
  EXPECT_EQ(LastToken(), "") << "another origin";
  context_.document["spec"]["output"]["destination"]["url"] = server_.url("/api/v1/results");
  Get(load + "}").IgnoreError();
  EXPECT_EQ(LastToken(), "Bearer token");
  Get(load + ", headers: {authorization: mine}}").IgnoreError();
  EXPECT_EQ(LastToken(), "mine");
  context_.document["spec"] = Json::object();
  context_.orchestrator_base_url = server_.url();
  Get(load + "}").IgnoreError();
  EXPECT_EQ(LastToken(), "Bearer token");
  EXPECT_THAT(log_, Not(Contains(HasSubstr("token"))));
}

TEST_F(FetchSourceTest, FailuresNameEachPlaceThatWasTried) {
  const std::string url = server_.url("/none.tar.gz?key=hidden");
  EXPECT_EQ(Error("{path: /no/such}"), "spec.checkpoint.load.path: there is no /no/such");
  EXPECT_EQ(Error("{type: local, path: /no/such}"),
            "spec.checkpoint.load.path: there is no /no/such");
  EXPECT_THAT(Error(absl::StrCat("{path: /no/such, taskId: T1, url: '", url, "'}")),
              AllOf(HasSubstr("spec.checkpoint.load.path: there is no /no/such; "),
                    HasSubstr("spec.checkpoint.load.taskId: "),
                    HasSubstr("spec.checkpoint.load.url: "), HasSubstr("404")));
  EXPECT_THAT(log_.back(), AllOf(HasSubstr("downloading"), Not(HasSubstr("hidden"))));
  EXPECT_FALSE(fs::exists(imported() / "none.tar.gz"));
  stopped_ = true;
  served_["/x"] = "w";
  EXPECT_TRUE(absl::IsCancelled(Get("{url: '" + server_.url("/x") + "'}").status()));
}

TEST_F(FetchSourceTest, WhoWatchesSeesTriesAndWhatHasCome) {
  std::atomic<int> asked = 0;
  TestHttpServer busy([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = asked++ == 0 ? 503 : 200;
    reply.set_content("weights", "application/octet-stream");
  });
  std::vector<std::string> warnings;
  context_.on_log = [&](LogLevel level, const std::string& text) {
    if (level == LogLevel::kWarning) warnings.push_back(text);
  };
  Progress last;
  context_.on_progress = [&](const Progress& progress) { last = progress; };
  ASSERT_TRUE(Get("{url: '" + busy.url("/w.safetensors") + "'}").ok());
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("/w.safetensors: status 503: weights; try 2 in 0."));
  EXPECT_EQ(last.stage, "downloading w.safetensors");
  EXPECT_EQ(last.done, 7u);
  EXPECT_EQ(last.unit, "bytes");
}

TEST_F(FetchSourceTest, ASecondRankDownloadsNothing) {
  served_["/m.tar.gz"] = TarOf({{"m/config.json", "{}"}});
  served_["/w.safetensors"] = "w";
  for (const char* name : {"/m.tar.gz", "/w.safetensors"}) {
    const std::string load = "{url: '" + server_.url(name) + "'}";
    const auto first = Get(load);
    const size_t requests = server_.requests().size();
    const auto second = Get(load, false, /*may_reuse=*/true);
    ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
    EXPECT_EQ(first->path, second->path);
    EXPECT_EQ(server_.requests().size(), requests);
  }
}

TEST_F(FetchSourceTest, TheStampIsThatOfTheContent) {
  served_["/w.safetensors"] = "one";
  const std::string load = "{url: '" + server_.url("/w.safetensors") + "'}";
  const std::string one = Get(load)->stamp;
  EXPECT_EQ(Get(load)->stamp, one);
  served_["/w.safetensors"] = "two";
  EXPECT_NE(Get(load)->stamp, one);

  const fs::path file = Make("a/deep/weights", "1");
  const std::string local = "{path: " + Quoted(dir_ / "a") + "}";
  const std::string before = Get(local)->stamp;
  EXPECT_EQ(Get(local)->stamp, before);
  fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
  const std::string after = Get(local)->stamp;
  EXPECT_NE(after, before);
  const fs::file_time_type time = fs::last_write_time(file);
  ASSERT_TRUE(WriteFileAtomically(file, "2").ok());
  fs::last_write_time(file, time);
  EXPECT_NE(Get(local)->stamp, after) << "another file of the same size and time";
  fs::rename(dir_ / "a", dir_ / "b");
  EXPECT_NE(Get("{path: " + Quoted(dir_ / "b") + "}")->stamp, after) << "the same files elsewhere";
}

}  // namespace
}  // namespace flowmesh::tasks
