#include "executors/tasks/load_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/yaml.h"

namespace flowmesh::tasks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

class LoadSourceTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::optional<LoadSource>> Checkpoint(const std::string& load) {
    const Json spec = ParseYaml("checkpoint: {load: " + load + "}").value();
    return ReadCheckpointLoad(Field(&spec, "spec"));
  }
  absl::StatusOr<std::vector<AdapterSource>> Adapters(const std::string& list) {
    const Json adapters = ParseYaml("x: " + list).value();
    return ReadAdapters(Field(&adapters, "spec.model")["x"],
                        [this](const std::string& text) { skipped_.push_back(text); });
  }
  std::string Error(const absl::Status& status) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return Message(status);
  }

  std::vector<std::string> skipped_;
};

TEST_F(LoadSourceTest, ACheckpointWithAllFields) {
  const auto read = Checkpoint(
      "{type: HTTP, path: ' /a ', taskId: T1, url: 'http://h/x.tar', base_url: 'http://b/', "
      "headers: {Authorization: secret}, timeoutSec: '5', filename: f.tar, archive_format: TGZ, "
      "subdir: inner}");
  ASSERT_TRUE(read.ok()) << read.status();
  const LoadSource& source = **read;
  EXPECT_EQ(source.path.value, "/a");
  EXPECT_EQ(source.task_id.value, "T1");
  EXPECT_EQ(source.url.value, "http://h/x.tar");
  EXPECT_EQ(source.base_url, "http://b/");
  EXPECT_THAT(source.headers, ElementsAre(Pair("Authorization", "secret")));
  EXPECT_EQ(source.timeout, absl::Seconds(5));
  EXPECT_EQ(source.filename, "f.tar");
  EXPECT_EQ(source.archive_format.value, "TGZ");
  EXPECT_EQ(source.subdir.value, "inner");
  EXPECT_EQ(source.path.field, "spec.checkpoint.load.path");
}

TEST_F(LoadSourceTest, AliasesAndDefaults) {
  const LoadSource source = *Checkpoint("{uri: /a, task_id: T1}").value();
  EXPECT_EQ(source.path.value, "/a");
  EXPECT_EQ(source.path.field, "spec.checkpoint.load.uri");
  EXPECT_EQ(source.task_id.value, "T1");
  EXPECT_EQ(source.timeout, absl::Seconds(60));
  EXPECT_EQ(source.archive_format.value, "auto");
  EXPECT_EQ(Checkpoint("{path: /a, uri: /b}").value()->path.value, "/a");
}

TEST_F(LoadSourceTest, NoCheckpointIsNone) {
  for (const char* spec :
       {"{}", "{checkpoint: ~}", "{checkpoint: {}}", "{checkpoint: {load: ~}}"}) {
    const Json document = ParseYaml(spec).value();
    const auto read = ReadCheckpointLoad(Field(&document, "spec"));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_FALSE(read->has_value()) << spec;
  }
}

TEST_F(LoadSourceTest, WrongCheckpointsNameTheField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[]", "spec.checkpoint.load: expected a map, got a list"},
      {"{}", "spec.checkpoint.load: one of path, taskId or url is required"},
      {"{path: '', url: ~}", "spec.checkpoint.load: one of path, taskId or url is required"},
      {"{type: s3, path: /a}", R"(spec.checkpoint.load.type: expected local or http, got "s3")"},
      {"{path: 3}", "spec.checkpoint.load.path: expected a string, got 3"},
      {"{taskId: ../x}", R"(spec.checkpoint.load.taskId: expected a task id, got "../x")"},
      {"{url: 'ftp://h/x'}", "spec.checkpoint.load.url: expected an http or https URL"},
      {"{path: /a, base_url: h}", "spec.checkpoint.load.base_url: expected an http or https URL"},
      {"{path: /a, headers: [x]}", "spec.checkpoint.load.headers: expected a map"},
      {"{path: /a, timeoutSec: 0}", "spec.checkpoint.load.timeoutSec: expected a number above 0"},
      {"{path: /a, filename: a/b}", "spec.checkpoint.load.filename: expected a file name"},
      {"{path: /a, archive_format: rar}",
       "spec.checkpoint.load.archive_format: expected auto, none, tar, tar.gz, tgz, tar.bz2, "
       R"(tar.xz or zip, got "rar")"}};
  for (const auto& [load, expected] : cases) {
    EXPECT_THAT(Error(Checkpoint(load).status()), HasSubstr(expected)) << load;
  }
  // What looks like a mistyped URL may hold a password.
  EXPECT_THAT(Error(Checkpoint("{url: 'htp://u:pass@h/x'}").status()), Not(HasSubstr("pass")));
}

TEST_F(LoadSourceTest, AdaptersWithTheirNamesAndFolders) {
  const auto read = Adapters(
      "[{type: LoRA, path: /a}, {type: ia3, path: /b}, {path: /c, name: x, id: y, apply: Merge, "
      "scale: '0.5'}, {taskId: T1, adapter_id: x}, {url: 'http://h/', id: ../../up}]");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 4u);
  EXPECT_EQ((*read)[0].name, "lora_0");
  EXPECT_FALSE((*read)[0].merge);
  EXPECT_EQ((*read)[0].scale, 1.0);
  EXPECT_EQ((*read)[1].name, "x");
  EXPECT_TRUE((*read)[1].merge);
  EXPECT_EQ((*read)[1].scale, 0.5);
  EXPECT_EQ((*read)[2].name, "x");
  EXPECT_EQ((*read)[3].name, "../../up");
  EXPECT_EQ((*read)[0].folder, "lora_0");
  EXPECT_EQ((*read)[1].folder, "x");
  EXPECT_EQ((*read)[2].folder, "x.3");
  EXPECT_EQ((*read)[3].folder, "lora_4");
  EXPECT_THAT(skipped_, ElementsAre("spec.model.x[1]: skipped: its type is no lora"));
  EXPECT_THAT(*Adapters("~"), IsEmpty());
}

TEST_F(LoadSourceTest, WrongAdaptersNameTheField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{path: /a}", "spec.model.x: expected a list"},
      {"[/a]", R"(spec.model.x[0]: expected a map, got "/a")"},
      {"[~]", "spec.model.x[0]: expected a map, got nothing"},
      {"[{type: lora}]", "spec.model.x[0]: one of path, taskId or url is required"},
      {"[{path: /a, apply: later}]",
       R"(spec.model.x[0].apply: expected runtime or merge, got "later")"},
      {"[{path: /a}, {path: /a, scale: much}]", "spec.model.x[1].scale: expected a number"},
      {"[{path: /a, type: 3}]", "spec.model.x[0].type: expected a string, got 3"}};
  for (const auto& [list, expected] : cases) {
    EXPECT_THAT(Error(Adapters(list).status()), HasSubstr(expected)) << list;
  }
}

}  // namespace
}  // namespace flowmesh::tasks
