#include "sidecar/delivery/deliverer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"
#include "common/test_http_server.h"

namespace flowmesh::sidecar {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr char kTask[] = "0f7e6d5c-4b3a-4291-8888-777766665555";

// A receiver like the orchestrator, a Deliverer, and jobs made from documents as the worker makes
// them. Nothing is tried twice, so that nothing waits; retries have tests of their own.
class DelivererTest : public ::testing::Test {
 protected:
  DelivererTest()
      : server_([this](const httplib::Request& request, httplib::Response& reply) {
          const char* refused = refused_;
          if (refused != nullptr && request.path.find(refused) != std::string::npos) {
            reply.status = 422;
          }
        }) {
    options_.orchestrator_base_url = server_.url();
    options_.delivery_timeout = absl::ZeroDuration();
  }

  DeliveryJob Plan(std::string_view document, Json result) {
    DeliveryJob job = PlanDelivery(kTask, "9f3c2a7be01d4c55", "", ParseJson(document).value(),
                                   {.results_dir = temp_.path(),
                                    .orchestrator_base_url = options_.orchestrator_base_url})
                          .value();
    EXPECT_TRUE(PrepareDirectories(job).ok());
    job.result = std::move(result);
    return job;
  }

  // A task that delivers to `url`.
  DeliveryJob PlanHttp(Json result, const std::string& url = "",
                       const std::string& more_of_destination = "") {
    return Plan(absl::StrCat(R"({"spec":{"output":{"destination":{"type":"http","url":")", url,
                             "\"", more_of_destination, "}}}}"),
                std::move(result));
  }

  absl::Status Deliver(DeliveryJob& job) {
    return Deliverer(options_, clock_).Deliver(job, nullptr);
  }

  Json ReadJson(const std::string& name) {
    absl::StatusOr<std::string> text = ReadFile(temp_ / name);
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? ParseJson(*text).value() : Json();
  }

  bool Exists(const std::string& name) { return fs::exists(temp_ / name); }

  std::vector<std::string> Paths() {
    std::vector<std::string> paths;
    for (const httplib::Request& request : server_.requests()) paths.push_back(request.path);
    return paths;
  }

  // An export of the task `task_id` as an executor leaves it.
  void AddExport(DeliveryJob& job, const std::string& task_id, const std::string& name) {
    const fs::path path = temp_ / absl::StrCat(task_id, "/artifacts/", name);
    ASSERT_TRUE(WriteFileAtomically(path, kExport).ok());
    Json& result = task_id == kTask ? job.result : job.result["children"][task_id];
    result["jsonl_export"] = {{"path", path.string()},
                              {"worker_path", path.string()},
                              {"relative_path", "artifacts/" + name},
                              {"record_count", 2},
                              {"fields", {"prompt", "chosen"}}};
    v1::OutputFile& file = job.outputs.emplace_back();
    file.set_kind(v1::OutputFile::JSONL_EXPORT);
    file.set_task_id(task_id);
    file.set_path(path.string());
  }

  static constexpr char kExport[] = "{\"prompt\":\"a\"}\n{\"prompt\":\"ä\"}\n";

  TempDir temp_;
  std::atomic<const char*> refused_ = nullptr;  // paths that hold it are answered 422
  TestHttpServer server_;
  DelivererOptions options_;
  FakeClock clock_;
};

// --- Files ---------------------------------------------------------------------------------------

TEST_F(DelivererTest, ALocalTaskGetsItsFilesAndSendsNothing) {
  DeliveryJob job = Plan(R"({"spec":{"output":{"artifacts":["final_model"]}}})",
                         {{"ok", true}, {"text", "größer \xf0\x9f\x8c\x8d"}});
  ASSERT_TRUE(Deliver(job).ok());
  const std::string text = ReadFile(job.task.dir / "responses.json").value();
  EXPECT_EQ(text, "{\n  \"ok\": true,\n  \"text\": \"größer \xf0\x9f\x8c\x8d\"\n}");
  const Json manifest = ReadJson(absl::StrCat(kTask, "/manifest.json"));
  EXPECT_EQ(manifest["task_id"], kTask);
  EXPECT_EQ(manifest["generated_at"], FormatTimestamp(clock_.Now()));
  ASSERT_EQ(manifest["entries"].size(), 4u);
  EXPECT_EQ(manifest["entries"][1]["name"], "final_model");
  EXPECT_EQ(manifest["entries"][1]["status"], "missing");
  EXPECT_EQ(manifest["entries"][3]["name"], "responses.json");
  EXPECT_EQ(manifest["entries"][3]["size"], text.size());
  EXPECT_EQ(manifest["entries"][3]["sha256"],
            Sha256OfFile(job.task.dir / "responses.json").value());
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(DelivererTest, NumbersThatJsonLacksAndBytesThatAreNoTextDoNotBreakTheResult) {
  DeliveryJob job = PlanHttp({{"loss", std::nan("")},
                              {"best", -std::numeric_limits<double>::infinity()},
                              {"output", "cut \xe2\x82"}});
  ASSERT_TRUE(Deliver(job).ok());
  const Json expected = {{"loss", nullptr}, {"best", nullptr}, {"output", "cut \xef\xbf\xbd"}};
  EXPECT_EQ(ReadJson(absl::StrCat(kTask, "/responses.json")), expected);
  ASSERT_THAT(server_.requests(), SizeIs(1));
  EXPECT_EQ(ParseJson(server_.requests()[0].body).value()["result"], expected);
}

TEST_F(DelivererTest, ADirectoryThatCannotBeWrittenFailsBeforeAnythingIsSent) {
  DeliveryJob job = PlanHttp({{"ok", true}});
  fs::remove_all(job.task.dir);
  ASSERT_TRUE(WriteFileAtomically(job.task.dir, "a file in the way").ok());
  EXPECT_THAT(Message(Deliver(job)),
              AllOf(StartsWith("cannot create"), HasSubstr(job.task.dir.string())));
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(DelivererTest, AFailureLeavesARecordWhereThereIsOne) {
  DeliveryJob job = Plan(R"({"spec":{"taskType":"rag","output":{"destination":{"type":"http"}}},
                             "merge_children":[{"task_id":"C1","spec":{}}]})",
                         nullptr);
  Deliverer deliverer(options_, clock_);
  ASSERT_TRUE(deliverer.WriteFailure(job, nullptr).ok());
  EXPECT_FALSE(Exists(absl::StrCat(kTask, "/responses.json")));
  EXPECT_EQ(ReadJson(absl::StrCat(kTask, "/manifest.json"))["entries"][2]["status"], "missing");
  EXPECT_EQ(ReadJson("C1/manifest.json")["task_id"], "C1");
  EXPECT_FALSE(Exists("C1/responses.json"));

  const Json record = {{"training_successful", false}, {"error_message", "out of memory"}};
  ASSERT_TRUE(deliverer.WriteFailure(job, record).ok());
  EXPECT_EQ(ReadJson(absl::StrCat(kTask, "/responses.json")), record);
  EXPECT_EQ(ReadJson(absl::StrCat(kTask, "/manifest.json"))["entries"][2]["status"], "present");
  EXPECT_THAT(server_.requests(), IsEmpty());
}

// --- The result POST -----------------------------------------------------------------------------

TEST_F(DelivererTest, ThePostIsTheOneOfTheProtocol) {
  DeliveryJob job = PlanHttp(ParseJson(R"({"ok":true,"echo":{"taskType":"echo"}})").value());
  ASSERT_TRUE(Deliver(job).ok());
  ASSERT_THAT(server_.requests(), SizeIs(1));
  const httplib::Request request = server_.requests()[0];
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/api/v1/results");
  EXPECT_EQ(request.get_header_value("Content-Type"), "application/json");
  EXPECT_FALSE(request.has_header("Authorization")) << "there is no token";
  EXPECT_EQ(request.body,
            R"({"task_id":"0f7e6d5c-4b3a-4291-8888-777766665555",)"
            R"("result":{"ok":true,"echo":{"taskType":"echo"}},"worker_id":"9f3c2a7be01d4c55"})");
}

TEST_F(DelivererTest, UrlMethodAndHeadersAreTheDestinations) {
  DeliveryJob job =
      PlanHttp({{"ok", true}}, server_.url("/mine/?x=1"),
               R"(,"method":"put","headers":{"X-Number":7,"content-type":"application/x+json"})");
  ASSERT_TRUE(Deliver(job).ok());
  ASSERT_THAT(server_.requests(), SizeIs(1));
  const httplib::Request request = server_.requests()[0];
  EXPECT_EQ(request.method, "PUT");
  EXPECT_EQ(request.target, "/mine/?x=1");
  EXPECT_EQ(request.get_header_value("X-Number"), "7");
  EXPECT_EQ(request.get_header_value_count("Content-Type"), 1u);
  EXPECT_EQ(request.get_header_value("Content-Type"), "application/x+json");
}

TEST_F(DelivererTest, TheTokenGoesToTheOrchestratorsOriginOnly) {
  options_.orchestrator_token = "secret";
  TestHttpServer other([](const httplib::Request&, httplib::Response&) {});
  for (const std::string& url : {std::string(), server_.url("/elsewhere"), other.url("/r")}) {
    DeliveryJob job = PlanHttp({{"ok", true}}, url);
    ASSERT_TRUE(Deliver(job).ok());
  }
  DeliveryJob own = PlanHttp({{"ok", true}}, "", R"(,"headers":{"authorization":"Basic mine"})");
  ASSERT_TRUE(Deliver(own).ok());
  ASSERT_THAT(server_.requests(), SizeIs(3));
  const std::vector<httplib::Request> requests = server_.requests();
  EXPECT_EQ(requests[0].get_header_value("Authorization"), "Bearer secret");
  EXPECT_EQ(requests[1].get_header_value("Authorization"), "Bearer secret");
  EXPECT_EQ(requests[2].get_header_value_count("Authorization"), 1u);
  EXPECT_EQ(requests[2].get_header_value("Authorization"), "Basic mine");
  ASSERT_THAT(other.requests(), SizeIs(1));
  EXPECT_FALSE(other.requests()[0].has_header("Authorization"));
}

TEST_F(DelivererTest, AFailedDeliveryLeavesTheFilesInPlace) {
  refused_ = "/results";
  DeliveryJob job = PlanHttp({{"ok", true}});
  EXPECT_EQ(Message(Deliver(job)), "POST " + server_.url("/api/v1/results") + ": status 422");
  EXPECT_TRUE(Exists(absl::StrCat(kTask, "/responses.json")));
  EXPECT_TRUE(Exists(absl::StrCat(kTask, "/manifest.json")));
}

TEST_F(DelivererTest, AnAttemptIsReportedWithItsSize) {
  std::vector<DeliveryAttempt> attempts;
  options_.on_attempt = [&](const DeliveryAttempt& attempt) { attempts.push_back(attempt); };
  DeliveryJob job = PlanHttp({{"ok", true}});
  AddExport(job, kTask, "pairs.jsonl");
  ASSERT_TRUE(Deliver(job).ok());
  ASSERT_THAT(attempts, SizeIs(2));
  EXPECT_EQ(attempts[0].kind, DeliveryAttempt::Kind::kUpload);
  EXPECT_EQ(attempts[0].bytes, sizeof(kExport) - 1);
  EXPECT_EQ(attempts[1].kind, DeliveryAttempt::Kind::kResult);
  EXPECT_EQ(attempts[1].outcome, DeliveryAttempt::Outcome::kDelivered);
  EXPECT_EQ(attempts[1].bytes, server_.requests()[1].body.size());
}

// --- Merged children -----------------------------------------------------------------------------

constexpr char kMerged[] =
    R"({"spec":{"taskType":"inference","output":{"destination":{"type":"http"}}},
  "merge_children":[
    {"task_id":"C1","spec":{"output":{"destination":{"type":"http"},"artifacts":["x"]}}},
    {"task_id":"C2","spec":{"output":{"destination":{"type":"local","path":"kids"}}}},
    {"task_id":"C3","spec":{"output":{"destination":{"type":"http"}}}}]})";

Json MergedResult() {
  return ParseJson(R"({"ok":true,"items":[{"output":"a"}],"children":{
                       "C3":{"items":[{"output":"d"}]},"C1":{"items":[{"output":"b"}]},
                       "C2":{"items":[{"output":"c"}]}}})")
      .value();
}

TEST_F(DelivererTest, ChildrenAreDeliveredOnTheirOwnAfterTheParent) {
  DeliveryJob job = Plan(kMerged, MergedResult());
  ASSERT_TRUE(Deliver(job).ok());
  EXPECT_EQ(ReadJson(absl::StrCat(kTask, "/responses.json")), MergedResult());
  EXPECT_EQ(ReadJson("C1/responses.json"), MergedResult()["children"]["C1"]);
  EXPECT_EQ(ReadJson("kids/C2/responses.json"), MergedResult()["children"]["C2"]);
  EXPECT_EQ(ReadJson("C1/manifest.json")["entries"].size(), 4u) << "its own artifacts";
  EXPECT_EQ(ReadJson("kids/C2/manifest.json")["task_id"], "C2");
  ASSERT_THAT(server_.requests(), SizeIs(3));
  std::vector<std::string> ids;
  for (const httplib::Request& request : server_.requests()) {
    const Json body = ParseJson(request.body).value();
    ids.push_back(body["task_id"]);
    EXPECT_EQ(body.size(), 3u);
    EXPECT_EQ(body["worker_id"], "9f3c2a7be01d4c55");
    EXPECT_EQ(body["result"],
              ids.size() == 1 ? MergedResult() : MergedResult()["children"][ids.back()]);
  }
  EXPECT_THAT(ids, ElementsAre(kTask, "C1", "C3"));
}

TEST_F(DelivererTest, AChildWithoutAResultIsAnErrorThatNamesIt) {
  for (const Json& found : {Json(), Json("text"), Json::array()}) {
    DeliveryJob job = Plan(kMerged, MergedResult());
    job.result["children"]["C2"] = found;
    EXPECT_EQ(Message(Deliver(job)),
              "merge_children[1] (task C2): the executor returned no result for it");
  }
  DeliveryJob without = Plan(kMerged, {{"ok", true}});
  EXPECT_EQ(Message(Deliver(without)),
            "merge_children[0] (task C1): the executor returned no result for it");
  EXPECT_THAT(server_.requests(), IsEmpty());
  // What there is stands in the folders.
  EXPECT_EQ(ReadJson(absl::StrCat(kTask, "/responses.json")), Json({{"ok", true}}));
  EXPECT_EQ(ReadJson("C1/manifest.json")["entries"][2]["name"], "responses.json");
}

TEST_F(DelivererTest, AChildThatCannotBeDeliveredIsNamed) {
  DeliveryJob job = Plan(kMerged, MergedResult());
  job.children[2].output.url = server_.url("/refused");
  refused_ = "/refused";
  EXPECT_EQ(Message(Deliver(job)),
            "merge_children[2] (task C3): POST " + server_.url("/refused") + ": status 422");
}

// --- Uploads -------------------------------------------------------------------------------------

TEST_F(DelivererTest, AnExportIsUploadedBeforeTheResultThatLinksToIt) {
  options_.orchestrator_token = "secret";
  DeliveryJob job = PlanHttp({{"ok", true}}, server_.url("/api/v1/results/"),
                             R"(,"headers":{"X-Mine":"1","Content-Type":"application/json"})");
  AddExport(job, kTask, "pairs.jsonl");
  const std::string local = job.outputs[0].path();
  ASSERT_TRUE(Deliver(job).ok());
  EXPECT_THAT(Paths(),
              ElementsAre(absl::StrCat("/api/v1/results/", kTask, "/files"), "/api/v1/results/"));
  const httplib::Request upload = server_.requests()[0];
  EXPECT_EQ(upload.method, "POST");
  EXPECT_THAT(upload.get_header_value("Content-Type"),
              StartsWith("multipart/form-data; boundary="));
  EXPECT_EQ(upload.get_header_value_count("Content-Type"), 1u);
  EXPECT_EQ(upload.get_header_value("X-Mine"), "1");
  EXPECT_EQ(upload.get_header_value("Authorization"), "Bearer secret");
  EXPECT_TRUE(upload.has_header("Content-Length"));
  EXPECT_FALSE(upload.has_header("Transfer-Encoding"));
  ASSERT_EQ(upload.files.size(), 1u);
  const httplib::MultipartFormData part = upload.get_file_value("file");
  EXPECT_EQ(part.filename, "pairs.jsonl");
  EXPECT_EQ(part.content_type, "application/json");
  EXPECT_EQ(part.content, kExport);

  const std::string link =
      server_.url(absl::StrCat("/api/v1/results/", kTask, "/files/pairs.jsonl"));
  const Json expected = {{"path", link},
                         {"worker_path", local},
                         {"relative_path", "artifacts/pairs.jsonl"},
                         {"record_count", 2},
                         {"fields", {"prompt", "chosen"}},
                         {"uploaded", true},
                         {"artifact_name", "pairs.jsonl"},
                         {"host_path", "artifacts/pairs.jsonl"},
                         {"download_url", link},
                         {"url", link},
                         {"download_timeoutSec", 30}};
  EXPECT_EQ(ParseJson(server_.requests()[1].body).value()["result"]["jsonl_export"], expected);
  EXPECT_EQ(ReadJson(absl::StrCat(kTask, "/responses.json"))["jsonl_export"], expected);
}

TEST_F(DelivererTest, AJobIsDeliveredAgainAsItWas) {
  DeliveryJob job = PlanHttp({{"ok", true}}, "", R"(,"timeoutSec":2.5)");
  AddExport(job, kTask, "pairs.jsonl");
  ASSERT_TRUE(Deliver(job).ok());
  ASSERT_TRUE(Deliver(job).ok());
  ASSERT_THAT(server_.requests(), SizeIs(4));
  const std::vector<httplib::Request> requests = server_.requests();
  EXPECT_EQ(requests[1].body, requests[3].body);
  EXPECT_EQ(job.result["jsonl_export"]["download_timeoutSec"], 2.5);
}

TEST_F(DelivererTest, ATraceGoesWithEveryRequest) {
  DeliveryJob job = PlanHttp({{"ok", true}});
  AddExport(job, kTask, "pairs.jsonl");
  job.SetTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  ASSERT_TRUE(Deliver(job).ok());
  ASSERT_THAT(server_.requests(), SizeIs(2));
  for (const httplib::Request& request : server_.requests()) {
    EXPECT_EQ(request.get_header_value("traceparent"),
              "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        << request.path;
  }
}

TEST_F(DelivererTest, ADestinationsOwnTraceStays) {
  DeliveryJob job = PlanHttp({{"ok", true}}, "", R"(,"headers":{"Traceparent":"own"})");
  job.SetTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  ASSERT_TRUE(Deliver(job).ok());
  EXPECT_EQ(server_.requests()[0].get_header_value("traceparent"), "own");
  EXPECT_EQ(server_.requests()[0].get_header_value_count("traceparent"), 1u);
}

TEST_F(DelivererTest, ALocalExportStaysWhereItIs) {
  DeliveryJob job = Plan(R"({"spec":{}})", {{"ok", true}});
  AddExport(job, kTask, "pairs.jsonl");
  const Json before = job.result;
  ASSERT_TRUE(Deliver(job).ok());
  EXPECT_EQ(job.result, before);
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(DelivererTest, ChildrensExportsGoToTheirOwnLinks) {
  DeliveryJob job = Plan(kMerged, MergedResult());
  AddExport(job, "C3", "größe.jsonl");
  ASSERT_TRUE(Deliver(job).ok());
  EXPECT_THAT(Paths(), ElementsAre("/api/v1/results/C3/files", "/api/v1/results", "/api/v1/results",
                                   "/api/v1/results"));
  const std::vector<httplib::Request> requests = server_.requests();
  EXPECT_EQ(requests[0].get_file_value("file").filename, "größe.jsonl");
  const std::string link = server_.url("/api/v1/results/C3/files/größe.jsonl");
  EXPECT_EQ(ParseJson(requests[1].body).value()["result"]["children"]["C3"]["jsonl_export"]["url"],
            link);
  EXPECT_EQ(ParseJson(requests[3].body).value()["result"]["jsonl_export"]["url"], link);
}

TEST_F(DelivererTest, AFailedUploadFailsTheTaskAndLeavesTheFiles) {
  refused_ = "/files";
  DeliveryJob job = PlanHttp({{"ok", true}});
  AddExport(job, kTask, "pairs.jsonl");
  EXPECT_EQ(Message(Deliver(job)),
            absl::StrCat("POST ", server_.url("/api/v1/results/"), kTask, "/files: status 422"));
  EXPECT_THAT(server_.requests(), SizeIs(1)) << "no result without its links";
  EXPECT_FALSE(
      ReadJson(absl::StrCat(kTask, "/responses.json"))["jsonl_export"].contains("uploaded"));
}

TEST_F(DelivererTest, AnExecutorsMistakesAreNamed) {
  DeliveryJob gone = PlanHttp({{"ok", true}});
  AddExport(gone, kTask, "pairs.jsonl");
  fs::remove(gone.outputs[0].path());
  EXPECT_THAT(Message(Deliver(gone)), AllOf(StartsWith("cannot read " + gone.outputs[0].path()),
                                            HasSubstr("No such file")));

  DeliveryJob unnamed = PlanHttp({{"ok", true}});
  AddExport(unnamed, kTask, "pairs.jsonl");
  unnamed.result.erase("jsonl_export");
  EXPECT_EQ(Message(Deliver(unnamed)), "the result has no jsonl_export for the file it names");
  EXPECT_FALSE(ReadJson(absl::StrCat(kTask, "/responses.json")).contains("jsonl_export"));

  DeliveryJob foreign = PlanHttp({{"ok", true}});
  AddExport(foreign, kTask, "pairs.jsonl");
  foreign.outputs[0].set_task_id("C9");
  EXPECT_EQ(Message(Deliver(foreign)),
            "the executor left a file for task C9, which it did not run");
  EXPECT_THAT(server_.requests(), IsEmpty());
}

TEST_F(DelivererTest, APasswordOfTheUrlIsUsedAndStaysOutOfResultAndErrors) {
  const std::string url = "http://user:canary@" + server_.url("/r").substr(7);
  DeliveryJob job = PlanHttp({{"ok", true}}, url);
  AddExport(job, kTask, "pairs.jsonl");
  ASSERT_TRUE(Deliver(job).ok());
  const std::vector<httplib::Request> requests = server_.requests();
  ASSERT_THAT(requests, SizeIs(2));
  EXPECT_EQ(requests[0].get_header_value("Authorization"), "Basic dXNlcjpjYW5hcnk=");
  EXPECT_EQ(requests[1].get_header_value("Authorization"), "Basic dXNlcjpjYW5hcnk=");
  EXPECT_THAT(requests[1].body,
              AllOf(HasSubstr(server_.url(absl::StrCat("/r/", kTask, "/files/pairs.jsonl"))),
                    Not(HasSubstr("canary"))));
  refused_ = "/r";
  EXPECT_THAT(Message(Deliver(job)), AllOf(HasSubstr("status 422"), Not(HasSubstr("canary"))));
}

}  // namespace
}  // namespace flowmesh::sidecar
