#include "executors/tasks/inference_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "common/yaml.h"

namespace flowmesh::tasks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class InferenceSpecTest : public ::testing::Test {
 protected:
  absl::StatusOr<InferenceSpec> ReadDocument(const std::string& yaml, bool has_cuda = false) {
    const Json document = ParseYaml(yaml).value();
    const EnvLookup env = [this](std::string_view name) -> std::optional<std::string> {
      const auto value = env_.find(std::string(name));
      return value == env_.end() ? std::nullopt : std::optional(value->second);
    };
    return ReadInferenceSpec(document, has_cuda, env,
                             [this](const std::string& text) { warnings_.push_back(text); });
  }
  // A whole spec but for `more`.
  absl::StatusOr<InferenceSpec> Read(const std::string& more, bool has_cuda = false) {
    return ReadDocument(
        absl::StrCat("{task_id: T1, spec: {data: {type: list, items: [a]}, ", more, "}}"),
        has_cuda);
  }
  engine::SamplingParams Sampling(const std::string& block, bool has_cuda = false) {
    const auto spec = Read("model: {source: {identifier: m}}, inference: " + block, has_cuda);
    EXPECT_TRUE(spec.ok()) << spec.status();
    return spec.ok() ? spec->units[0].params : engine::SamplingParams{};
  }
  ModelSpec Model(const std::string& block, bool has_cuda = false) {
    const auto spec = Read("model: " + block, has_cuda);
    EXPECT_TRUE(spec.ok()) << spec.status();
    return spec.ok() ? spec->model : ModelSpec{};
  }
  std::string Error(const std::string& more, bool has_cuda = false) {
    const auto spec = Read(more, has_cuda);
    EXPECT_TRUE(absl::IsInvalidArgument(spec.status())) << more;
    return Message(spec.status());
  }

  std::map<std::string, std::string> env_;
  std::vector<std::string> warnings_;
};

TEST_F(InferenceSpecTest, DefaultsFollowTheEngine) {
  const engine::SamplingParams cpu = Sampling("{}");
  EXPECT_EQ(cpu.max_tokens, 512);
  EXPECT_EQ(cpu.temperature, 0.7);
  EXPECT_EQ(cpu.top_p, 0.95);
  EXPECT_EQ(cpu.top_k, 50);
  EXPECT_FALSE(cpu.is_greedy());
  EXPECT_EQ(Sampling("{}", /*has_cuda=*/true).top_k, -1);
}

TEST_F(InferenceSpecTest, ValuesAreReadLeniently) {
  const engine::SamplingParams p = Sampling(
      "{max_tokens: '12', temperature: '0', top_k: 3.0, do_sample: 'no', stop: x, seed: 7}");
  EXPECT_EQ(p.max_tokens, 12);
  EXPECT_EQ(p.top_k, 3);
  EXPECT_TRUE(p.greedy);
  EXPECT_TRUE(p.is_greedy());
  EXPECT_THAT(p.stop, ElementsAre("x"));
  EXPECT_EQ(p.seed, 7u);
  EXPECT_THAT(Sampling("{stop: ['', a, b]}").stop, ElementsAre("a", "b"));
  EXPECT_THAT(Sampling("{stop: ~, temperature: ~}").stop, IsEmpty());
}

TEST_F(InferenceSpecTest, EachEngineHasItsOwnNameForTheLimitFirst) {
  EXPECT_EQ(Sampling("{max_tokens: 1, max_new_tokens: 2}").max_tokens, 2);
  EXPECT_EQ(Sampling("{max_tokens: 1, max_new_tokens: 2}", true).max_tokens, 1);
  EXPECT_EQ(Sampling("{max_new_tokens: 2}", true).max_tokens, 2);
  EXPECT_EQ(Sampling("{max_tokens: 1}").max_tokens, 1);
}

TEST_F(InferenceSpecTest, TheRunningEnginesBlockComesFirst) {
  const std::string both =
      "{source: {identifier: ' m ', revision: v2}, vllm: {dtype: bf16, max_model_len: 10}, "
      "transformers: {dtype: FP32}}";
  const ModelSpec cpu = Model(both);
  EXPECT_EQ(cpu.identifier, "m");
  EXPECT_EQ(cpu.revision, "v2");
  EXPECT_EQ(cpu.dtype, c10::ScalarType::Float);
  EXPECT_EQ(cpu.max_model_len, 10);
  EXPECT_EQ(cpu.max_model_len_path, "spec.model.vllm.max_model_len");
  EXPECT_EQ(Model(both, true).dtype, c10::ScalarType::BFloat16);
  EXPECT_EQ(Model("{source: {identifier: m}, vllm: {dtype: auto}}").dtype, std::nullopt);
}

TEST_F(InferenceSpecTest, TheSeedMayComeFromTheModel) {
  const auto spec = Read("model: {source: {identifier: m}, vllm: {seed: 9}}");
  EXPECT_EQ(spec->units[0].params.seed, 9u);
  const auto own = Read("model: {source: {identifier: m}, vllm: {seed: 9}}, inference: {seed: 0}");
  EXPECT_EQ(own->units[0].params.seed, 0u);
}

TEST_F(InferenceSpecTest, TheEnvironmentNamesAModelWhenTheSpecDoesNot) {
  EXPECT_EQ(Error("model: {}"),
            "spec.model.source.identifier: required (or set VLLM_MODEL or HF_MODEL)");
  EXPECT_EQ(Error("model: {source: {identifier: '  '}}"),
            "spec.model.source.identifier: required (or set VLLM_MODEL or HF_MODEL)");
  env_["VLLM_MODEL"] = "v";
  EXPECT_EQ(Model("{}").identifier, "v");
  env_["HF_MODEL"] = "h";
  EXPECT_EQ(Model("{}").identifier, "h");
  EXPECT_EQ(Model("{}", true).identifier, "v");
  EXPECT_EQ(Model("{source: {identifier: m}}").identifier, "m");
}

TEST_F(InferenceSpecTest, EnforceCpuKeepsOffTheGpu) {
  EXPECT_TRUE(Read("model: {source: {identifier: m}}", true)->use_cuda);
  const auto spec = Read("model: {source: {identifier: m}}, enforce_cpu: 'yes'", true);
  EXPECT_FALSE(spec->use_cuda);
  EXPECT_EQ(spec->units[0].params.top_k, 50);
}

TEST_F(InferenceSpecTest, MistakesNameTheField) {
  const std::string m = "model: {source: {identifier: m}}";
  EXPECT_EQ(Error(m + ", inference: {temperature: hot}"),
            "spec.inference.temperature: expected a number of at least 0, got \"hot\"");
  EXPECT_EQ(Error(m + ", inference: {temperature: -1}"),
            "spec.inference.temperature: expected a number of at least 0, got -1");
  EXPECT_EQ(Error(m + ", inference: {top_p: 1.5}"),
            "spec.inference.top_p: expected a number above 0 and at most 1, got 1.5");
  EXPECT_EQ(Error(m + ", inference: {max_tokens: 0}"),
            "spec.inference.max_tokens: expected an integer of at least 1, got 0");
  EXPECT_THAT(Error(m + ", inference: {repetition_penalty: 0}"),
              HasSubstr("spec.inference.repetition_penalty: expected a number above 0"));
  EXPECT_THAT(Error(m + ", inference: {stop: 3}"), HasSubstr("spec.inference.stop: expected"));
  EXPECT_THAT(Error(m + ", inference: {stop: [a, 3]}"),
              HasSubstr("spec.inference.stop[1]: expect"));
  EXPECT_THAT(Error(m + ", inference: {seed: x}"), HasSubstr("spec.inference.seed: expected"));
  EXPECT_THAT(Error(m + ", inference: [x]"), HasSubstr("spec.inference: expected a map"));
  EXPECT_THAT(Error(m + ", inference: {do_sample: maybe}"), HasSubstr("spec.inference.do_sample"));
  EXPECT_THAT(Error(m + ", inference: {system_prompt: 3}"), HasSubstr("inference.system_prompt"));
  EXPECT_THAT(Error("model: {source: {identifier: 3}}"),
              HasSubstr("spec.model.source.identifier: expected a string, got 3"));
  EXPECT_THAT(Error("model: x"), HasSubstr("spec.model: expected a map"));
  const auto engine = [](const std::string& block) {
    return "model: {source: {identifier: m}, transformers: " + block + "}";
  };
  EXPECT_EQ(Error(engine("{dtype: int7}")),
            "spec.model.transformers.dtype: expected auto, float16, bfloat16 or float32, got "
            "\"int7\"");
  EXPECT_THAT(Error(engine("{max_model_len: 0}")), HasSubstr("transformers.max_model_len"));
  EXPECT_THAT(Error(engine("{gpu_memory_utilization: 0}")), HasSubstr("gpu_memory_utilization"));
  EXPECT_THAT(Error(engine("{tensor_parallel_size: 0}")), HasSubstr("tensor_parallel_size"));
  EXPECT_THAT(Error(engine("{load_in_4bit: true}")), HasSubstr("transformers.load_in_4bit: quant"));
  EXPECT_THAT(Error(engine("{device_map: tpu}")), HasSubstr("transformers.device_map: expected"));
  EXPECT_THAT(Error(engine("{device_map: cuda}")), HasSubstr("this worker has no GPU"));
  EXPECT_THAT(Error(engine("{device_map: cuda}") + ", enforce_cpu: true", true),
              HasSubstr("contradicts spec.enforce_cpu"));
  EXPECT_EQ(Error("model: {source: {identifier: m}, adapters: [{type: lora}]}"),
            "spec.model.adapters[0]: one of path, taskId or url is required");
  EXPECT_EQ(Error(m + ", checkpoint: {load: {}}"),
            "spec.checkpoint.load: one of path, taskId or url is required");
  EXPECT_THAT(Error(m + ", enforce_cpu: perhaps"), HasSubstr("spec.enforce_cpu: expected"));
}

TEST_F(InferenceSpecTest, UnreadKeysOfWhatIsLoadedAreSaid) {
  const auto spec = Read(
      "model: {source: {identifier: m}, adapters: [{path: /a, weight: 2}]}, "
      "checkpoint: {load: {path: /b, strict: true}}");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->model.checkpoint->path.value, "/b");
  EXPECT_EQ(spec->model.adapters[0].source.path.value, "/a");
  EXPECT_THAT(warnings_, ElementsAre("ignored field spec.model.adapters[0].weight",
                                     "ignored field spec.checkpoint.load.strict"));
}

TEST_F(InferenceSpecTest, ChildrenHaveTheirOwnDataAndSystemPrompt) {
  const auto spec = ReadDocument(R"(
task_id: T1
spec: {model: {source: {identifier: m}}, inference: {max_tokens: 3, system_prompt: S},
       data: {type: list, items: [a]}}
merge_children:
- {task_id: C1, spec: {inference: {max_new_tokens: '3', systemPrompt: R}, data: {type: list, items: [b, c]}}}
- {task_id: C2}
- {spec: {}}
- {task_id: C3, spec: {model: {source: {identifier: m}}, inference: {max_tokens: 3}, data: {type: list, items: [d]}}}
)");
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->units.size(), 3u);
  EXPECT_EQ(spec->units[0].prompts[0].rendered, "S\na");
  EXPECT_EQ(spec->units[1].task_id, "C1");
  EXPECT_EQ(spec->units[1].prompts[1].rendered, "R\nc");
  EXPECT_EQ(spec->units[2].prompts[0].rendered, "d");
  EXPECT_THAT(warnings_, ElementsAre("merge_children[1] has no task_id or no spec and is skipped",
                                     "merge_children[2] has no task_id or no spec and is skipped"));
}

TEST_F(InferenceSpecTest, AChildThatCannotBeRunIsNamed) {
  const auto error = [this](const std::string& child) {
    const auto spec = ReadDocument(absl::StrCat(
        "{task_id: T1, spec: {model: {source: {identifier: m}}, data: {type: list, items: [a]}}, "
        "merge_children: [{task_id: C1, spec: ",
        child, "}]}"));
    EXPECT_TRUE(absl::IsInvalidArgument(spec.status()));
    return Message(spec.status());
  };
  EXPECT_EQ(error("{}"), "merge_children[0] (task C1): spec.data: required");
  EXPECT_EQ(error("{data: {type: list, items: [b]}, inference: {temperature: 1}}"),
            "merge_children[0] (task C1): spec.inference differs from the parent's in temperature");
  EXPECT_EQ(error("{data: {type: list, items: [b]}, inference: {apply_chat_template: true}}"),
            "merge_children[0] (task C1): spec.inference differs from the parent's in "
            "apply_chat_template");
  EXPECT_EQ(error("{data: {type: list, items: [b]}, model: {source: {identifier: other}}}"),
            "merge_children[0] (task C1): spec.model differs from the parent's");
}

TEST_F(InferenceSpecTest, OneDeviceIsSaid) {
  EXPECT_TRUE(Read("model: {source: {identifier: m}, vllm: {tensor_parallel_size: 1}}", true).ok());
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_TRUE(Read("model: {source: {identifier: m}, vllm: {tensor_parallel_size: 4}}", true).ok());
  EXPECT_THAT(warnings_,
              ElementsAre("spec.model.vllm.tensor_parallel_size: lowered from 4 to 1: this version "
                          "of the worker runs a model on one device"));
}

TEST_F(InferenceSpecTest, UnreadKeysAreNamed) {
  EXPECT_TRUE(Read("model: {source: {identifier: m}}, inference: {num_beams: 4, top_k: 1}").ok());
  EXPECT_THAT(warnings_, ElementsAre("ignored field spec.inference.num_beams"));
}

}  // namespace
}  // namespace flowmesh::tasks
