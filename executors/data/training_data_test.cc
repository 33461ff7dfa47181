#include "executors/data/training_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "common/test_listener.h"
#include "common/yaml.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Texts = std::vector<std::string>;

class TrainingDataTest : public testing::Test {
 protected:
  TrainingDataTest() {
    fs::create_directories(folder_ / "results/T1");
    context_.task_dir = folder_ / "results/T1";
    context_.env = [](std::string_view) { return std::nullopt; };
    context_.warn = [this](const std::string& text) { warnings_.push_back(text); };
    context_.retry_limit = absl::ZeroDuration();
  }

  // Writes a file below the test's folder and returns its path.
  std::string Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return (folder_ / name).string();
  }

  // `$` in a spec is the test's folder.
  Json Spec(const std::string& yaml) const {
    return ParseYaml(absl::StrReplaceAll(yaml, {{"$", folder_.path().string()}})).value();
  }

  absl::StatusOr<Texts> Sft(const std::string& yaml) {
    const Json spec = Spec(yaml);
    ASSIGN_OR_RETURN(const SftData data, ReadSftData(Field(&spec, "spec")));
    return LoadSftData(data, context_);
  }
  absl::StatusOr<std::vector<Preference>> Dpo(const std::string& yaml) {
    const Json spec = Spec(yaml);
    ASSIGN_OR_RETURN(const PreferenceData data, ReadPreferenceData(Field(&spec, "spec")));
    return LoadPreferenceData(data, context_);
  }
  absl::StatusOr<Texts> Ppo(const std::string& yaml) {
    const Json spec = Spec(yaml);
    ASSIGN_OR_RETURN(const QueryData data, ReadQueryData(Field(&spec, "spec")));
    return LoadQueryData(data, context_);
  }

  // The status's text, the test's folder shown as `$`.
  template <typename T>
  std::string Shown(const absl::StatusOr<T>& result) const {
    EXPECT_FALSE(result.ok());
    return absl::StrReplaceAll(Message(result.status()), {{folder_.path().string(), "$"}});
  }

  TempDir folder_;
  DataContext context_;
  std::vector<std::string> warnings_;
};

TEST_F(TrainingDataTest, SftInlinePromptsAreTexts) {
  EXPECT_EQ(Sft("data: {prompts: [a, 1, 2.5, true, {k: [v]}]}").value(),
            (Texts{"a", "1", "2.5", "True", "{\"k\": [\"v\"]}"}));
  EXPECT_EQ(Sft("data: {prompts: [a, b, c], max_samples: '2'}").value(), (Texts{"a", "b"}));
}

TEST_F(TrainingDataTest, SftJsonlFields) {
  Write("a.jsonl", "{\"text\": \"t\", \"q\": \"x\", \"r\": \"y\"}\n\n{\"q\": 1, \"r\": \"b\"}\n");
  const auto load = [&](const std::string& fields) {
    return Sft("data: {jsonl: {path: $/a.jsonl, " + fields + "}}");
  };
  EXPECT_EQ(Shown(load("")),
            "spec.data.jsonl.text_field: line 3 of a.jsonl has no 'text'; it has: q, r");
  EXPECT_EQ(load("prompt_field: q, response_field: r").value(), (Texts{"x\n\ny", "1\n\nb"}));
  EXPECT_EQ(load("prompt_field: q, response_field: r, separator: ' '").value(),
            (Texts{"x y", "1 b"}));
  EXPECT_EQ(load("text_field: text, response_field: r").value(), (Texts{"t", "b"}));
  EXPECT_EQ(load("prompt_field: q").value(), (Texts{"x", "1"}));
  EXPECT_EQ(Shown(load("prompt_field: text, response_field: r")),
            "spec.data.jsonl.prompt_field: line 3 of a.jsonl has no 'text'; it has: q, r");
  // The aliases outside of the block.
  EXPECT_EQ(Sft("data: {jsonl_path: $/a.jsonl, prompt_field: q, response_field: r, separator: '|'}")
                .value(),
            (Texts{"x|y", "1|b"}));
}

TEST_F(TrainingDataTest, ALocalJsonlIsLookedForAroundTheTask) {
  Write("results/T1/own.jsonl", "{\"text\": \"own\"}");
  Write("results/beside.jsonl", "{\"text\": \"beside\"}");
  Write("above.jsonl", "{\"text\": \"above\"}");
  EXPECT_EQ(Sft("data: {jsonl: {path: own.jsonl}}").value(), Texts{"own"});
  EXPECT_EQ(Sft("data: {jsonl: {path: x/beside.jsonl}}").value(), Texts{"beside"});
  EXPECT_EQ(Sft("data: {jsonl: {worker_path: /no/above.jsonl}}").value(), Texts{"above"});
  EXPECT_THAT(Shown(Sft("data: {jsonl: {path: no.jsonl}}")),
              AllOf(HasSubstr("spec.data.jsonl.path: no.jsonl: no such file; looked for "
                              "$/results/T1/no.jsonl"),
                    HasSubstr("$/no.jsonl")));
}

TEST_F(TrainingDataTest, TheFirstCandidateThatCanBeHadCounts) {
  Write("a.jsonl", "{\"text\": \"local\"}");
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    if (request.path != "/files/b.jsonl") reply.status = 404;
    reply.body = "{\"text\": \"remote\"}\n";
  });
  const std::string good = server.url("/files/b.jsonl?token=1"), bad = server.url("/no.jsonl");
  const auto load = [&](const std::string& block) { return Sft("data: {jsonl: " + block + "}"); };
  EXPECT_EQ(load(absl::StrCat("{download_url: '", good, "', path: $/a.jsonl}")).value(),
            Texts{"remote"});
  EXPECT_TRUE(fs::exists(context_.task_dir / "inputs/b.jsonl"));
  EXPECT_EQ(load(absl::StrCat("{url: '", bad, "', path: $/a.jsonl}")).value(), Texts{"local"});
  // A link in `path`, as a JSONL export writes it.
  EXPECT_EQ(load(absl::StrCat("{path: '", good, "', worker_path: /no/x.jsonl}")).value(),
            Texts{"remote"});
  EXPECT_THAT(Shown(load(absl::StrCat("{download_url: '", bad, "', worker_path: /no/x.jsonl}"))),
              AllOf(HasSubstr("spec.data.jsonl: none of its files can be had: "
                              "spec.data.jsonl.download_url: GET "),
                    HasSubstr("status 404"),
                    HasSubstr("spec.data.jsonl.worker_path: /no/x.jsonl: no such file")));
}

TEST_F(TrainingDataTest, HeadersAndTheTokenOfTheOrchestrator) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.body = "{\"text\": \"x\"}\n";
  });
  context_.orchestrator_token = "secret-token";
  const auto sent = [&](const std::string& more = "") {
    const auto texts = Sft(absl::StrCat("data: {jsonl: {url: '", server.url(), "'", more, "}}"));
    EXPECT_TRUE(texts.ok()) << texts.status();
    return server.requests().back().get_header_value("Authorization");
  };
  EXPECT_EQ(sent(), "Bearer secret-token");  // neither origin is known
  EXPECT_TRUE(fs::exists(context_.task_dir / "inputs/dataset.jsonl"));
  context_.destination_url = "http://127.0.0.1:1/api/v1/results";
  EXPECT_EQ(sent(), "");
  context_.orchestrator_base_url = server.url("/base");
  EXPECT_EQ(sent(), "Bearer secret-token");
  EXPECT_EQ(sent(", download_headers: {Authorization: Basic x}, headers: {Authorization: y}"),
            "Basic x");
  EXPECT_EQ(sent(", headers: {X-Key: k}, timeoutSec: '5'"), "Bearer secret-token");
  EXPECT_EQ(server.requests().back().get_header_value("X-Key"), "k");
}

TEST_F(TrainingDataTest, ASilentServerIsLeftAfterTheTimeout) {
  const TestListener listener;  // accepts, and says nothing
  EXPECT_THAT(Shown(Sft(absl::StrCat("data: {jsonl: {url: 'http://127.0.0.1:", listener.port(),
                                     "/a.jsonl', timeoutSec: 0.05}}"))),
              AllOf(HasSubstr("spec.data.jsonl.url: "), HasSubstr("no answer within 50ms")));
}

TEST_F(TrainingDataTest, JsonlMistakesNameTheLine) {
  Write("cut.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b");
  EXPECT_THAT(Shown(Sft("data: {jsonl: {path: $/cut.jsonl}}")),
              HasSubstr("spec.data.jsonl.path: cut.jsonl: line 2: not JSON"));
  Write("empty.jsonl", "\n\n");
  EXPECT_EQ(Shown(Sft("data: {jsonl: {path: $/empty.jsonl}}")),
            "spec.data.jsonl: expected at least one row, got none");
}

TEST_F(TrainingDataTest, SftColumns) {
  Write("a.csv", "text,question,answer\nt1,q1,a1\nt2,q2,\n");
  const auto load = [&](const std::string& more) {
    return Sft("data: {dataset_name: $/a.csv" + more + "}");
  };
  EXPECT_EQ(load("").value(), (Texts{"t1", "t2"}));
  EXPECT_EQ(load(", prompt_column: question, response_column: answer, separator: '='").value(),
            (Texts{"q1=a1", "q2="}));
  EXPECT_EQ(load(", prompt_column: question").value(), (Texts{"t1", "t2"}));
  EXPECT_EQ(load(", max_samples: 1").value(), Texts{"t1"});
  EXPECT_EQ(load(", split: 'train[1:]'").value(), Texts{"t2"});
  EXPECT_EQ(Shown(load(", text_field: body")),
            "spec.data.text_field: column 'body' not found; columns are: text, question, answer");
  EXPECT_EQ(Shown(load(", split: 'train[5:]'")),
            "spec.data.dataset_name: expected at least one row, got none");
}

TEST_F(TrainingDataTest, MessageListsNeedAChatTemplate) {
  Write("a.jsonl",
        "{\"prompt\": \"p\", \"chosen\": [{\"role\": \"user\", \"content\": \"c\"}], "
        "\"rejected\": \"r\"}\n");
  EXPECT_EQ(Shown(Dpo("data: {dataset_name: $/a.jsonl}")),
            "spec.data.chosen_column: column 'chosen' holds message lists; plain text is needed");
  EXPECT_EQ(
      Shown(Sft("data: {jsonl: {path: $/a.jsonl, text_field: chosen}}")),
      "spec.data.jsonl.text_field: column 'chosen' holds message lists; plain text is needed");
}

TEST_F(TrainingDataTest, Preferences) {
  const auto inline_list = Dpo("data: {preferences: [{prompt: p, chosen: c, rejected: 3, x: 1}]}");
  ASSERT_TRUE(inline_list.ok()) << inline_list.status();
  EXPECT_EQ(inline_list->front().prompt, "p");
  EXPECT_EQ(inline_list->front().chosen, "c");
  EXPECT_EQ(inline_list->front().rejected, "3");
  EXPECT_THAT(warnings_, ElementsAre());

  Write("a.jsonl",
        "{\"q\": \"p1\", \"chosen\": \"c1\", \"rejected\": \"r1\"}\n"
        "{\"q\": \"p2\", \"chosen\": \"c2\"}\n");
  EXPECT_EQ(Dpo("data: {jsonl: {path: $/a.jsonl, prompt_field: q}, max_samples: 1}")
                .value()
                .front()
                .prompt,
            "p1");
  EXPECT_EQ(
      Shown(Dpo("data: {jsonl: {path: $/a.jsonl, prompt_field: q}}")),
      "spec.data.jsonl.rejected_field: line 2 of a.jsonl has no 'rejected'; it has: q, chosen");
  EXPECT_EQ(Shown(Dpo("data: {dataset_name: $/a.jsonl, prompt_column: q}")),
            "spec.data.rejected_column: line 2 of a.jsonl has no 'rejected'; it has: q, chosen");
  EXPECT_EQ(Shown(Dpo("data: {dataset_name: $/a.jsonl}")),
            "spec.data.prompt_column: column 'prompt' not found; columns are: q, chosen, rejected");
}

TEST_F(TrainingDataTest, AnUnknownConfigurationMayBeASplitForDpo) {
  fs::create_directories(folder_ / "set");
  Write("set/train.jsonl", "{\"prompt\": \"p\", \"chosen\": \"train\", \"rejected\": \"r\"}");
  Write("set/test.jsonl", "{\"prompt\": \"p\", \"chosen\": \"test\", \"rejected\": \"r\"}");
  EXPECT_EQ(Dpo("data: {dataset_name: $/set, config_name: test}").value().front().chosen, "test");
  EXPECT_EQ(Dpo("data: {dataset_name: $/set, config_name: nope, split: test}").value()[0].chosen,
            "test");
  EXPECT_EQ(Shown(Sft("data: {dataset_name: $/set, config_name: test}")),
            "spec.data.config_name: unknown configuration 'test'; known: default");
}

TEST_F(TrainingDataTest, Queries) {
  EXPECT_EQ(Ppo("data: {prompts: [a, b]}").value(), (Texts{"a", "b"}));
  Write("a.jsonl", "{\"query\": \"q\", \"ask\": \"k\"}\n");
  EXPECT_EQ(Ppo("data: {jsonl: {path: $/a.jsonl}}").value(), Texts{"q"});
  EXPECT_EQ(Ppo("data: {jsonl: {path: $/a.jsonl, query_field: ask}}").value(), Texts{"k"});
  EXPECT_EQ(Ppo("data: {dataset_name: $/a.jsonl, prompt_column: ask}").value(), Texts{"k"});
  Write("b.csv", "text,prompt\nt,p\n");
  EXPECT_EQ(Ppo("data: {dataset_name: $/b.csv}").value(), Texts{"p"});
  Write("c.txt", "t\n");
  EXPECT_EQ(Ppo("data: {dataset_name: $/c.txt}").value(), Texts{"t"});
  EXPECT_EQ(Shown(Ppo("data: {dataset_name: $/b.csv, query_field: x}")),
            "spec.data.query_field: column 'x' not found; columns are: text, prompt");
  EXPECT_EQ(Shown(Ppo("data: {jsonl: {path: $/a.jsonl, query_field: x}}")),
            "spec.data.jsonl.query_field: line 1 of a.jsonl has no 'x'; it has: query, ask");
}

TEST_F(TrainingDataTest, DemoDataOnlyWithoutAnyData) {
  for (const char* none : {"{}", "data: ~", "data: {}"}) {
    warnings_.clear();
    EXPECT_FALSE(Dpo(none)->empty());
    EXPECT_FALSE(Ppo(none)->empty());
    EXPECT_THAT(warnings_, ElementsAre(HasSubstr("demo data"), HasSubstr("demo data")));
    EXPECT_EQ(Shown(Sft(none)), "spec.data: required");
  }
  EXPECT_EQ(Shown(Dpo("data: {max_samples: 3}")),
            "spec.data: expected one of jsonl, dataset_name and preferences, got none of them");
  EXPECT_EQ(Shown(Ppo("data: {type: x}")),
            "spec.data: expected one of jsonl, dataset_name and prompts, got none of them");
}

TEST_F(TrainingDataTest, SpecMistakesNameTheField) {
  for (const auto& [yaml, error] : std::vector<std::pair<std::string, std::string>>{
           {"data: [a]", "spec.data: expected a map, got a list"},
           {"data: {prompts: a}", "spec.data.prompts: expected a list, got \"a\""},
           {"data: {prompts: []}",
            "spec.data.prompts: expected a non-empty list, got an empty one"},
           {"data: {prompts: [a], max_samples: 0}",
            "spec.data.max_samples: expected an integer of at least 1, got 0"},
           {"data: {jsonl: a.jsonl}", "spec.data.jsonl: expected a map, got \"a.jsonl\""},
           {"data: {jsonl: {text_field: a}}",
            "spec.data.jsonl: expected one of download_url, url, path and worker_path, got none"},
           {"data: {jsonl: {path: 3}}", "spec.data.jsonl.path: expected a string, got 3"},
           {"data: {jsonl: {path: a, timeoutSec: -1}}",
            "spec.data.jsonl.timeoutSec: expected a number above 0, got -1"},
           {"data: {jsonl: {path: a, headers: {X-Key: [secret]}}}",
            "spec.data.jsonl.headers.X-Key: expected a string"},
           {"data: {jsonl: {path: a, text_field: [a]}}",
            "spec.data.jsonl.text_field: expected a string, got a list"},
           {"data: {dataset_name: [a]}", "spec.data.dataset_name: expected a string, got a list"},
           {"data: {dataset_name: a, split: 5}", "spec.data.split: expected a string, got 5"},
           {"data: {dataset_name: a, prompt_column: 5}",
            "spec.data.prompt_column: expected a string, got 5"}}) {
    const auto texts = Sft(yaml);
    EXPECT_EQ(texts.status().code(), absl::StatusCode::kInvalidArgument) << yaml;
    EXPECT_EQ(Shown(texts), error) << yaml;
  }
  EXPECT_THAT(Shown(Sft("data: {dataset_name: a, split: 'train[:x]'}")),
              HasSubstr("spec.data.split: 'train[:x]': a bound is no integer"));
  EXPECT_EQ(Shown(Ppo("data: {prompts: [a, 3]}")),
            "spec.data.prompts[1]: expected a string, got 3");
  EXPECT_EQ(Shown(Dpo("data: {preferences: [{prompt: a, chosen: b, rejected: c}, {prompt: a}]}")),
            "spec.data.preferences[1].chosen: required");
  EXPECT_EQ(Shown(Dpo("data: {preferences: [a]}")),
            "spec.data.preferences[0]: expected a map, got \"a\"");
}

}  // namespace
}  // namespace flowmesh::data
