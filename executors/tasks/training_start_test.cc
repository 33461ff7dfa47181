// What training begins with: a rate of next to nothing leaves the weights as they came.
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "executors/model/adapter.h"
#include "executors/model/model_folder.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/test_archive.h"
#include "executors/tasks/test_task.h"
#include "executors/tasks/training.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

using Tensors = std::map<std::string, at::Tensor>;

Tensors TensorsOf(const fs::path& file) {
  const model::GoldenTensors golden(file);
  const auto opened = model::Safetensors::OpenFile(file).value();
  Tensors tensors;
  for (const auto& tensor : opened->tensors()) {
    tensors[tensor.name] = golden.Get(tensor.name).to(at::kFloat);
  }
  return tensors;
}

void ExpectEqual(const Tensors& got, const Tensors& want) {
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, tensor] : want) {
    ASSERT_TRUE(got.contains(name)) << name;
    // A weight of 0 moves by the rate.
    EXPECT_LE((got.at(name) - tensor).abs().max().item<double>(), 1e-20) << name;
  }
}

fs::path AdapterFolder() { return train::TrainGolden("lora/llama/end"); }
fs::path AdapterWeights() { return AdapterFolder() / "adapter_model.safetensors"; }
fs::path BaseWeights() { return model::ModelGolden("llama") / "model.safetensors"; }

class TrainingStartTest : public TaskTest {
 protected:
  TrainingStartTest() {
    spec_ = {
        {"model", {{"source", {{"identifier", model::ModelGolden("llama").string()}}}}},
        {"data", {{"prompts", {"the small world", "and another"}}}},
        {"lora", {{"r", 2}, {"target_modules", {"o_proj"}}}},
        {"training",
         {{"max_steps", 1}, {"learning_rate", 1e-30}, {"save_strategy", "no"}, {"bf16", false}}}};
  }

  using Task = absl::StatusOr<TaskOutcome> (*)(const TaskContext&, const TrainingDevice&,
                                               const EnvLookup&);
  absl::StatusOr<TaskOutcome> Run(Task task, const std::string& id = "T2") {
    return task(Context(id), TrainingDevice(),
                [](std::string_view) -> std::optional<std::string> { return std::nullopt; });
  }
  Json Result(Task task, const std::string& id = "T2") {
    const auto outcome = Run(task, id);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.ok() ? outcome->result : Json();
  }
  // The weights that were saved.
  Tensors Trained(Task task) {
    return TensorsOf(fs::path(Result(task)["final_model_path"]) / "model.safetensors");
  }
  Tensors TrainedAdapter() {
    return TensorsOf(fs::path(Result(RunLoraSft)["final_lora_path"]) / "adapter_model.safetensors");
  }
  void SetLoad(const Json& load) { spec_["checkpoint"]["load"] = load; }

  // Weights in float32, which those of the base are not.
  Tensors Other() {
    Tensors tensors = TensorsOf(BaseWeights());
    for (auto& [name, tensor] : tensors) tensor = tensor * 1.5 + 1e-4;
    return tensors;
  }
  static void Write(const fs::path& file, const Tensors& tensors) {
    std::vector<model::NamedTensor> stored;
    for (const auto& [name, tensor] : tensors) stored.push_back({name, tensor});
    ASSERT_TRUE(model::WriteSafetensors(file, stored).ok());
  }
  // The base with the golden adapter in its weights.
  static Tensors Merged() {
    const auto model = train::LoadTinyModel("llama");
    model::Merge(model::ReadAdapter(AdapterFolder(), *model).value(), 1.0, *model);
    Tensors tensors;
    for (const model::NamedTensor& named : model::StoredTensors(
             model->parameters(), [](const model::Parameter& p) { return *p.tensor; })) {
      tensors[named.name] = named.tensor;
    }
    return tensors;
  }
};

// In bfloat16 1 + 2^-8 is 1, yet what it is a factor of becomes another number.
TEST_F(TrainingStartTest, AdaptersInBfloat16SeeNormsInFloat32) {
  spec_["training"]["bf16"] = true;
  const auto loss_with_norms_of = [&](double weight) {
    Tensors tensors = TensorsOf(BaseWeights());
    for (auto& [name, tensor] : tensors) {
      if (name.find("norm") != std::string::npos) tensor.fill_(weight);
    }
    Write(dir_ / "w.safetensors", tensors);
    SetLoad({{"path", (dir_ / "w.safetensors").string()}});
    return Result(RunLoraSft)["train_loss"].get<double>();
  };
  EXPECT_NE(loss_with_norms_of(1.0), loss_with_norms_of(1.0 + 1.0 / 256));
}

TEST_F(TrainingStartTest, AFileOfWeightsAndAFolder) {
  const Tensors other = Other();
  Write(dir_ / "w.safetensors", other);
  ExpectEqual(Trained(RunSft), TensorsOf(BaseWeights()));
  SetLoad({{"path", (dir_ / "w.safetensors").string()}});
  ExpectEqual(Trained(RunSft), other);
  EXPECT_THAT(log_, Contains(HasSubstr("spec.checkpoint.load: beginning with ")));
  // What was written before opens again, under the task's id, and is as good as a model.
  const Json result = Result(RunSft, "T1");
  spec_["model"]["source"]["identifier"] = "/no/such/model";
  SetLoad({{"taskId", "T1"}});
  ExpectEqual(Trained(RunSft), other);
  EXPECT_EQ(Result(RunSft)["resume_from_path"], result["final_model_path"]);
}

TEST_F(TrainingStartTest, AnAdapterBecomesPartOfTheModel) {
  SetLoad({{"path", AdapterFolder().string()}});
  ExpectEqual(Trained(RunSft), Merged());
  spec_["data"] = {{"preferences", {{{"prompt", "a"}, {"chosen", "b"}, {"rejected", "c"}}}}};
  ExpectEqual(Trained(RunDpo), Merged());
}

TEST_F(TrainingStartTest, AnAdapterIsGoneOnWith) {
  EXPECT_NE(TrainedAdapter().size(), TensorsOf(AdapterWeights()).size());
  SetLoad({{"path", AdapterFolder().string()}});
  ExpectEqual(TrainedAdapter(), TensorsOf(AdapterWeights()));
  const Json config =
      ParseJson(ReadFile(dir_ / "T2/final_lora/adapter_config.json").value()).value();
  EXPECT_EQ(config["r"], 8) << "not that of spec.lora";
  EXPECT_EQ(config["lora_alpha"], 16);
  // Of a task: the adapter before the model.
  fs::create_directories(dir_ / "T1/final_model");
  fs::copy(AdapterFolder(), dir_ / "T1/final_lora");
  SetLoad({{"taskId", "T1"}});
  ExpectEqual(TrainedAdapter(), TensorsOf(AdapterWeights()));
  // A model that is no adapter gets a fresh one.
  SetLoad({{"path", model::ModelGolden("llama").string()}});
  EXPECT_EQ(TrainedAdapter().size(), 2u * 3);
}

TEST_F(TrainingStartTest, ResumeFromPath) {
  const Tensors other = Other();
  Write(dir_ / "w.safetensors", other);
  const auto resume = [this](const fs::path& path) {
    spec_["training"]["resume_from_path"] = path.string();
  };
  resume(dir_ / "w.safetensors");
  ExpectEqual(Trained(RunSft), other);
  EXPECT_EQ(Result(RunSft)["resume_from_path"], (dir_ / "w.safetensors").string());
  resume(AdapterFolder());
  ExpectEqual(TrainedAdapter(), TensorsOf(AdapterWeights()));
  ExpectEqual(Trained(RunSft), Merged());
  // The other source comes first.
  SetLoad({{"path", (dir_ / "w.safetensors").string()}});
  ExpectEqual(Trained(RunSft), other);
  EXPECT_THAT(log_, Contains(HasSubstr("ignored field spec.training.resume_from_path")));
  spec_.erase("checkpoint");
  resume("/no/such");
  EXPECT_EQ(Message(Run(RunSft).status()), "spec.training.resume_from_path: there is no /no/such");
}

TEST_F(TrainingStartTest, AnArchiveOfAUrl) {
  const TestHttpServer server([&](const httplib::Request& request, httplib::Response& reply) {
    const bool is_lora = request.path == "/final_lora.tar.gz";
    WriteTestArchive(dir_ / "made", TestArchive::kTarGz,
                     FilesOf(is_lora ? AdapterFolder() : model::ModelGolden("qwen2"), "top"));
    reply.set_content(ReadFile(dir_ / "made").value(), "application/gzip");
  });
  SetLoad({{"url", server.url("/final_lora.tar.gz")}});
  ExpectEqual(TrainedAdapter(), TensorsOf(AdapterWeights()));
  ExpectEqual(Trained(RunSft), Merged());
  SetLoad({{"url", server.url("/final_model.tar.gz")}});
  ExpectEqual(Trained(RunSft), TensorsOf(model::ModelGolden("qwen2") / "model.safetensors"));
  EXPECT_TRUE(fs::exists(dir_ / "T2/imported_checkpoint"));
}

TEST_F(TrainingStartTest, TheLogSaysHowMuchIsRead) {
  spec_["training"]["batch_size"] = 2;  // so that the one step reads all
  const auto tokens = [&](Task task) { return Result(task)["num_tokens"].dump(); };
  for (const Task task : {RunSft, RunLoraSft}) {
    const std::string read = absl::StrCat("2 rows of ", tokens(task), " tokens, 1 steps");
    EXPECT_THAT(log_, Contains(HasSubstr(read)));
  }
}

TEST_F(TrainingStartTest, AGgufFileIsTrainedIntoAFolder) {
  const fs::path file = model::ModelGolden("gguf/llama.gguf");
  spec_["model"]["source"]["identifier"] = file.string();
  const fs::path folder = Result(RunSft)["final_model_path"].get<std::string>();
  const auto own = model::LoadModel(file, {.dtype = at::kFloat});
  const auto trained = model::LoadModel(folder, {.dtype = at::kFloat});
  ASSERT_TRUE(own.ok() && trained.ok()) << own.status() << trained.status();
  const std::string text = "the small world";
  const auto ids = own->tokenizer->Encode(text, true);
  EXPECT_EQ(trained->tokenizer->Encode(text, true), ids);
  EXPECT_LE(model::ErrorInTolerances(model::LogitsOf(*trained->model, {ids}),
                                     model::LogitsOf(*own->model, {ids})),
            1.0);
  // Training goes on from it, and an adapter of the file has its tokenizer beside it.
  SetLoad({{"path", folder.string()}});
  ExpectEqual(Trained(RunSft), TensorsOf(folder / "model.safetensors"));
  spec_.erase("checkpoint");
  const fs::path lora = Result(RunLoraSft)["final_lora_path"].get<std::string>();
  const auto tokenizer = text::LoadTokenizerFromFolder(lora);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode(text, true), ids);
}

TEST_F(TrainingStartTest, FailuresFailTheTaskWithItsRecord) {
  const Json spec = spec_;
  const fs::path empty = dir_ / "empty";
  ASSERT_TRUE(MakeDirectories(empty).ok());
  spec_["model"]["source"]["identifier"] = empty.string();
  EXPECT_THAT(Message(Run(RunSft).status()),
              AllOf(HasSubstr("spec.model.source.identifier: "), HasSubstr(empty.string())));
  spec_ = spec;
  SetLoad({{"taskId", "T0"}});
  EXPECT_THAT(Message(Run(RunSft).status()), HasSubstr("spec.checkpoint.load.taskId: "));
  EXPECT_THAT(failure_["error_message"].get<std::string>(),
              HasSubstr("spec.checkpoint.load.taskId: "));
  SetLoad({{"path", train::TrainGolden("lora/gpt2/end").string()}});
  for (const Task task : {RunSft, RunLoraSft}) {
    EXPECT_THAT(Message(Run(task).status()),
                AllOf(HasSubstr("spec.checkpoint.load: "), HasSubstr("no linear layer")));
  }
  SetLoad(Json::object());
  EXPECT_EQ(Message(Run(RunLoraSft).status()),
            "spec.checkpoint.load: one of path, taskId or url is required");
}

}  // namespace
}  // namespace flowmesh::tasks
