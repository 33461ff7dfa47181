// Inference on models that come from elsewhere: adapters against PEFT's goldens, and checkpoints.
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/test_http_server.h"
#include "executors/model/model_folder.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/inference.h"
#include "executors/tasks/test_archive.h"
#include "executors/tasks/test_task.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

fs::path Adapter(const std::string& name) { return train::TrainGolden("lora/" + name + "/end"); }

class InferenceLoadTest : public TaskTest {
 protected:
  InferenceLoadTest() { UseModel("llama"); }

  void UseModel(const std::string& family) {
    spec_ = {{"taskType", "inference"},
             {"model", {{"source", {{"identifier", model::ModelGolden(family).string()}}}}},
             {"data", {{"type", "list"}, {"items", {"the small world"}}}},
             {"inference", {{"max_tokens", 12}, {"temperature", 0}}}};
  }
  void SetAdapters(const std::vector<Json>& adapters) { spec_["model"]["adapters"] = adapters; }
  void SetLoad(const Json& load) { spec_["checkpoint"]["load"] = load; }

  absl::StatusOr<TaskOutcome> Run() { return runner_.Run(Context("T2")); }
  std::string Output() {
    const auto outcome = Run();
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    if (!outcome.ok()) return "";
    EXPECT_EQ(outcome->result["model"], spec_["model"]["source"]["identifier"]);
    return outcome->result["items"][0]["output"];
  }
  std::string Error() { return Message(Run().status()); }
  bool IsWarm() {
    Output();
    for (const std::string& line : log_) {
      if (line.ends_with("is warm")) return true;
    }
    return false;
  }

  // A copy of a tiny model's folder whose weights answer otherwise.
  fs::path OtherModel(const std::string& name) {
    const fs::path folder = dir_ / name;
    fs::copy(model::ModelGolden("llama"), folder);
    const auto file = model::Safetensors::OpenFile(folder / "model.safetensors").value();
    const model::GoldenTensors tensors(folder / "model.safetensors");
    std::vector<model::NamedTensor> stored;
    for (const model::SafetensorsTensor& tensor : file->tensors()) {
      at::Tensor value = tensors.Get(tensor.name);
      if (tensor.name == "model.norm.weight") value = -value;
      stored.push_back({tensor.name, value});
    }
    EXPECT_TRUE(model::WriteSafetensors(folder / "model.safetensors", stored).ok());
    return folder;
  }

  InferenceRunner runner_{false, at::kCPU,
                          [](std::string_view) -> std::optional<std::string> { return "/none"; }};
};

class PeftTest : public InferenceLoadTest, public testing::WithParamInterface<const char*> {};

// After each prefix of the golden's prompt.
TEST_P(PeftTest, TheNextTokenIsPeftsAtRuntimeAndMerged) {
  const std::string name = GetParam();
  const Json golden = train::ReadTrainGolden("lora/" + name + ".json");
  const model::GoldenTensors want(train::TrainGolden("lora/" + name + "/logits.safetensors"));
  UseModel(golden["model"]);
  const auto tokenizer = train::LoadTinyTokenizer(golden["model"]);
  spec_["inference"]["max_tokens"] = 1;
  const auto ids = golden["prompt"].get<model::Ids>();
  int differ = 0;
  for (size_t length = 1; length <= ids.size(); ++length) {
    const auto end = ids.begin() + static_cast<std::ptrdiff_t>(length);
    spec_["data"]["items"] = {tokenizer->Decode({ids.begin(), end}, false)};
    SetAdapters({});
    const std::string without = Output();
    for (const char* apply : {"runtime", "merge"}) {
      const at::Tensor logits = want.Get(apply == std::string("merge") ? "merged" : "runtime");
      const at::Tensor row = logits[static_cast<int64_t>(length) - 1];
      const auto best = static_cast<text::TokenId>(row.argmax().item<int64_t>());
      std::string expected = tokenizer->Decode({best}, false);
      if (expected == "\uFFFD") expected = "";  // the beginning of a character
      SetAdapters({{{"path", Adapter(name).string()}, {"apply", apply}}});
      EXPECT_EQ(Output(), expected) << apply << " after " << length;
      differ += expected != without;
    }
  }
  EXPECT_GT(differ, 0) << "the adapter changes nothing";
}

INSTANTIATE_TEST_SUITE_P(Cases, PeftTest, testing::Values("llama", "gpt2", "all_linear"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(InferenceLoadTest, AdaptersAreScaledAndSummed) {
  const auto adapter = [](const char* apply, double scale) -> Json {
    return {{"path", Adapter("llama").string()}, {"apply", apply}, {"scale", scale}};
  };
  const std::string without = Output();
  SetAdapters({adapter("runtime", 1)});
  const std::string with = Output();
  EXPECT_NE(with, without);
  EXPECT_THAT(log_, Contains(HasSubstr("adapter lora_0: at runtime")));
  SetAdapters({adapter("merge", 1)});
  EXPECT_EQ(Output(), with);
  for (const char* apply : {"runtime", "merge"}) {
    SetAdapters({adapter(apply, 0)});
    EXPECT_EQ(Output(), without) << apply;
    SetAdapters({adapter(apply, 0.5), adapter("runtime", 0.5)});
    EXPECT_EQ(Output(), with) << apply;
    SetAdapters({adapter(apply, 1), adapter("runtime", -1)});
    EXPECT_EQ(Output(), without) << apply;
  }
}

TEST_F(InferenceLoadTest, AdaptersOfATaskAndOfAUrl) {
  SetAdapters({{{"path", Adapter("llama").string()}}});
  const std::string with = Output();
  fs::create_directories(dir_ / "T1");
  fs::copy(Adapter("llama"), dir_ / "T1/final_lora");
  SetAdapters({{{"path", "/no/such"}, {"taskId", "T1"}}});
  EXPECT_EQ(Output(), with);

  WriteTestArchive(dir_ / "lora", TestArchive::kTarGz, FilesOf(Adapter("llama"), "final_lora"));
  const std::string archive = ReadFile(dir_ / "lora").value();
  const TestHttpServer server([&](const httplib::Request& request, httplib::Response& reply) {
    EXPECT_EQ(request.get_header_value("Authorization"), "Bearer mine");
    reply.set_content(archive, "application/gzip");
  });
  SetAdapters({{{"taskId", "T0"},
                {"name", "colours"},
                {"url", server.url("/final_lora.tar.gz")},
                {"headers", {{"Authorization", "Bearer mine"}}}}});
  EXPECT_EQ(Output(), with);
  EXPECT_TRUE(fs::exists(dir_ / "T2/_lora_cache/colours"));
  EXPECT_THAT(log_, Not(Contains(HasSubstr("mine"))));
}

TEST_F(InferenceLoadTest, AModelIsWarmWithTheSameAdaptersAlone) {
  Output();
  SetAdapters({{{"path", Adapter("llama").string()}}});
  EXPECT_FALSE(IsWarm());
  EXPECT_TRUE(IsWarm());
  SetAdapters({{{"path", Adapter("llama").string()}, {"apply", "merge"}}});
  EXPECT_FALSE(IsWarm());
  SetAdapters({{{"path", Adapter("llama").string()}, {"scale", 2}}});
  EXPECT_FALSE(IsWarm());
  SetAdapters({});
  EXPECT_FALSE(IsWarm());

  // The same archive at another URL is the same model; another content is not.
  std::string archive;
  const TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(archive, "application/gzip");
  });
  const auto serve = [&](const fs::path& folder) {
    WriteTestArchive(dir_ / "made", TestArchive::kTarGz, FilesOf(folder, "m"));
    archive = ReadFile(dir_ / "made").value();
  };
  serve(OtherModel("other"));
  SetLoad({{"url", server.url("/one")}});
  EXPECT_FALSE(IsWarm());
  SetLoad({{"url", server.url("/two")}});
  EXPECT_TRUE(IsWarm());
  serve(model::ModelGolden("llama"));
  EXPECT_FALSE(IsWarm());
}

// A tied model gets a head of its own, and is warm only for the same adapters.
TEST_F(InferenceLoadTest, ModulesThatAnAdapterHasWholeTakeTheirPlace) {
  const std::string base = Output();
  const auto whole = [](const char* apply) -> Json {
    return {{"path", Adapter("whole_embeddings").string()}, {"apply", apply}};
  };
  SetAdapters({whole("runtime")});
  const std::string at_runtime = Output();
  EXPECT_NE(at_runtime, base);
  SetAdapters({whole("merge")});
  EXPECT_EQ(Output(), at_runtime);
  SetAdapters({});
  EXPECT_EQ(Output(), base);
  SetAdapters({whole("merge"), whole("runtime")});
  EXPECT_THAT(Error(), AllOf(HasSubstr("spec.model.adapters[1]: "),
                             HasSubstr("has model.embed_tokens.weight whole"),
                             HasSubstr("and so has an adapter before it")));
}

TEST_F(InferenceLoadTest, WrongAdaptersNameTheField) {
  SetAdapters({{{"path", Adapter("llama").string()}}, {{"path", Adapter("gpt2").string()}}});
  EXPECT_THAT(Error(), AllOf(HasSubstr("spec.model.adapters[1]: "),
                             HasSubstr("the model has no linear layer")));
  SetAdapters({{{"path", model::ModelGolden("llama").string()}}});
  EXPECT_THAT(Error(),
              AllOf(HasSubstr("spec.model.adapters[0]: "), HasSubstr("no adapter_config.json in")));
  fs::create_directories(dir_ / "pickled");
  fs::copy(Adapter("llama") / "adapter_config.json", dir_ / "pickled");
  ASSERT_TRUE(WriteFileAtomically(dir_ / "pickled/adapter_model.bin", "PK").ok());
  SetAdapters({{{"path", (dir_ / "pickled").string()}}});
  EXPECT_THAT(Error(), AllOf(HasSubstr("spec.model.adapters[0]: "),
                             HasSubstr("found adapter_model.bin, but needed is")));
  SetAdapters({{{"path", "/no/such"}}});
  EXPECT_EQ(Error(), "spec.model.adapters[0].path: there is no /no/such");
  SetAdapters({{{"type", "ia3"}, {"path", "/no/such"}}});
  EXPECT_TRUE(Run().ok());
  EXPECT_THAT(log_, Contains(HasSubstr("spec.model.adapters[0]: skipped")));
}

TEST_F(InferenceLoadTest, CheckpointsOfEveryKindTakeTheModelsPlace) {
  const std::string own = Output();
  const fs::path other = OtherModel("other");
  SetLoad({{"path", other.string()}});
  const std::string want = Output();
  EXPECT_NE(want, own);
  EXPECT_THAT(log_, Contains(HasSubstr("weights of " + other.string())));

  // A folder that has all needs no other model, which may not even be there.
  const Json identifier = spec_["model"]["source"]["identifier"];
  spec_["model"]["source"]["identifier"] = "/no/such/model";
  EXPECT_EQ(Output(), want);
  fs::remove(other / "tokenizer.json");
  fs::remove(other / "tokenizer_config.json");
  EXPECT_THAT(Error(), HasSubstr("spec.model.source.identifier: no such model"));
  spec_["model"]["source"]["identifier"] = identifier;
  EXPECT_EQ(Output(), want) << "without a tokenizer";
  fs::remove(other / "config.json");
  EXPECT_EQ(Output(), want) << "without a configuration";
  SetLoad({{"path", (other / "model.safetensors").string()}});
  EXPECT_EQ(Output(), want) << "the file";
  fs::create_directories(dir_ / "T1");
  fs::rename(other / "model.safetensors", dir_ / "T1/final_model.safetensors");
  SetLoad({{"taskId", "T1"}});
  EXPECT_EQ(Output(), want) << "the file of a task";
}

TEST_F(InferenceLoadTest, WeightsOverTheConfigurationOfAGgufFile) {
  spec_["model"]["source"]["identifier"] = model::ModelGolden("gguf/llama.gguf").string();
  const std::string own = Output();
  const auto checkpoint = model::OpenCheckpoint(model::ModelGolden("gguf/llama.gguf")).value();
  std::vector<std::string> warnings;
  const auto decoder = model::LoadDecoder(checkpoint, {.dtype = at::kFloat}, &warnings).value();
  for (const int sign : {1, -1}) {
    ASSERT_TRUE(model::WriteSafetensors(dir_ / "w.safetensors",
                                        model::StoredTensors(decoder->parameters(),
                                                             [&](const model::Parameter& p) {
                                                               return p.parts[0].name ==
                                                                              "model.norm.weight"
                                                                          ? *p.tensor * sign
                                                                          : *p.tensor;
                                                             }))
                    .ok());
    SetLoad({{"path", (dir_ / "w.safetensors").string()}});
    EXPECT_EQ(Output() == own, sign == 1);
  }
  spec_["model"]["source"]["identifier"] = "/no/such/model";
  SetLoad({{"path", model::ModelGolden("gguf/llama.gguf").string()}});
  EXPECT_EQ(Output(), own) << "the GGUF file in the place of another model";
}

TEST_F(InferenceLoadTest, AnAdapterAsCheckpointIsMerged) {
  SetAdapters({{{"path", Adapter("llama").string()}}});
  const std::string with = Output();
  SetAdapters({});
  SetLoad({{"path", Adapter("llama").string()}});
  EXPECT_EQ(Output(), with);
  // And beside others.
  SetAdapters({{{"path", Adapter("llama").string()}, {"scale", -1}}});
  const std::string undone = Output();
  spec_.erase("checkpoint");
  SetAdapters({});
  EXPECT_EQ(Output(), undone);
}

TEST_F(InferenceLoadTest, WrongCheckpointsFailTheTask) {
  SetLoad({{"path", "/no/such"}});
  EXPECT_EQ(Error(), "spec.checkpoint.load.path: there is no /no/such");
  fs::create_directories(dir_ / "T1");
  ASSERT_TRUE(WriteFileAtomically(dir_ / "T1/final_model.bin", "PK").ok());
  SetLoad({{"taskId", "T1"}});
  EXPECT_THAT(Error(),
              AllOf(HasSubstr("spec.checkpoint.load: found "), HasSubstr("final_model.bin"),
                    HasSubstr("needed is a .safetensors or .gguf file")));
  fs::create_directories(dir_ / "pickled");
  ASSERT_TRUE(WriteFileAtomically(dir_ / "pickled/pytorch_model.bin", "PK").ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "pickled/config.json", "{}").ok());
  SetLoad({{"path", (dir_ / "pickled").string()}});
  EXPECT_THAT(Error(), AllOf(HasSubstr("found pytorch_model.bin"), HasSubstr("needed is")));
  fs::create_directories(dir_ / "empty");
  SetLoad({{"path", (dir_ / "empty").string()}});
  EXPECT_THAT(Error(), HasSubstr("no model in this folder"));
  SetLoad({{"path", (model::ModelGolden("gpt2") / "model.safetensors").string()}});
  EXPECT_THAT(Error(), HasSubstr("tensor model.embed_tokens.weight is missing"));
  SetLoad({{"path", (model::ModelGolden("llama") / "config.json").string()}});
  EXPECT_THAT(Error(), HasSubstr("spec.checkpoint.load: "));
  spec_.erase("checkpoint");
  EXPECT_TRUE(Run().ok()) << "the next task runs";
}

TEST_F(InferenceLoadTest, AChildMustLoadTheSame) {
  TaskContext context = Context();
  Json child = spec_;
  child["checkpoint"] = {{"load", {{"path", "/other"}}}};
  context.document["merge_children"] = {{{"task_id", "C1"}, {"spec", child}}};
  EXPECT_EQ(Message(runner_.Run(context).status()),
            "merge_children[0] (task C1): spec.checkpoint differs from the parent's");
}

}  // namespace
}  // namespace flowmesh::tasks
