// Models and adapters on their way to the orchestrator (PROTOCOL.md 6.3 and 7), and promise P17:
// an upload arrives whole or not at all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "sidecar/archive/memory_watch.h"
#include "sidecar/archive/test_folder.h"
#include "sidecar/delivery/deliverer.h"
#include "sidecar/delivery/upload_sink.h"
#include "tests/chaos/gate.h"

namespace flowmesh::sidecar {
namespace {

namespace fs = std::filesystem;
using ::flowmesh::testing::Gate;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Outcome = DeliveryAttempt::Outcome;

class ArchiveDeliveryTest : public ::testing::Test {
 protected:
  ArchiveDeliveryTest() {
    options_.on_attempt = [this](const DeliveryAttempt& attempt) {
      outcomes_.push_back(attempt.outcome);
      if (on_attempt_) on_attempt_(attempt);
    };
    options_.on_archive = [this](bool ok) { archives_.push_back(ok); };
  }

  // A task that trained `folder`, and delivers to `url`; locally when that is empty.
  DeliveryJob Plan(const std::string& url, const std::string& folder = "final_model",
                   v1::OutputFile::Kind kind = v1::OutputFile::FINAL_MODEL,
                   size_t bytes = 300'000) {
    const std::string destination =
        url.empty() ? R"({"type":"local"})" : absl::StrCat(R"({"type":"http","url":")", url, "\"}");
    DeliveryJob job =
        PlanDelivery(
            "T7", "w", "",
            ParseJson(absl::StrCat(R"({"spec":{"output":{"destination":)", destination, "}}}"))
                .value(),
            {.results_dir = temp_.path()})
            .value();
    EXPECT_TRUE(PrepareDirectories(job).ok());
    const fs::path model = job.task.dir / folder;
    fs::create_directories(model);
    fs::create_directories(job.task.dir / "checkpoints/checkpoint-1");
    EXPECT_TRUE(WriteFileAtomically(model / "model.safetensors", Noise(bytes)).ok());
    EXPECT_TRUE(WriteFileAtomically(job.task.dir / "checkpoints/checkpoint-1/x", "x").ok());
    job.result = {{"training_successful", true}, {"final_model_path", model.string()}};
    v1::OutputFile& output = job.outputs.emplace_back();
    output.set_kind(kind);
    output.set_task_id("T7");
    output.set_path(model.string());
    return job;
  }

  absl::Status Deliver(DeliveryJob& job, const std::function<bool()>& is_cancelled = nullptr) {
    return Deliverer(options_, Clock::Real()).Deliver(job, is_cancelled);
  }

  Json Responses() { return ParseJson(ReadFile(temp_ / "T7/responses.json").value()).value(); }
  bool Exists(const std::string& name) { return fs::exists(temp_ / "T7" / name); }
  std::string SinkUrl() const {
    return absl::StrCat("http://127.0.0.1:", sink_.port(), "/results");
  }

  TempDir temp_;
  UploadSink sink_;
  DelivererOptions options_;
  std::function<void(const DeliveryAttempt&)> on_attempt_;
  std::vector<Outcome> outcomes_;
  std::vector<bool> archives_;
};

TEST_F(ArchiveDeliveryTest, AModelIsArchivedUploadedAndThenLinkedToByTheResult) {
  TestHttpServer server([](const httplib::Request&, httplib::Response&) {});
  DeliveryJob job = Plan(server.url("/api/v1/results/"));
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  ASSERT_THAT(server.requests(), SizeIs(2));
  const httplib::Request upload = server.requests()[0];
  EXPECT_EQ(upload.path, "/api/v1/results/T7/files");
  EXPECT_TRUE(upload.has_header("Content-Length"));
  ASSERT_THAT(upload.files, SizeIs(1));
  const httplib::MultipartFormData part = upload.get_file_value("file");
  EXPECT_EQ(part.filename, "final_model.tar.gz");
  EXPECT_EQ(part.content_type, "application/zip");

  const fs::path archive = job.task.dir / "final_model.tar.gz";
  EXPECT_EQ(Sha256Hex(part.content), Sha256OfFile(archive).value());
  EXPECT_TRUE(RunTool({"tar", "-tzf", archive.string()}));
  const Json expected = {
      {"training_successful", true},
      {"final_model_path", (job.task.dir / "final_model").string()},
      {"final_model_archive", "final_model.tar.gz"},
      {"final_model_archive_path", archive.string()},
      {"final_model_archive_bytes", fs::file_size(archive)},
      {"final_model_archive_sha256", Sha256OfFile(archive).value()},
      {"final_model_archive_url", server.url("/api/v1/results/T7/files/final_model.tar.gz")},
      {"final_model_archive_uploaded", true}};
  EXPECT_EQ(ParseJson(server.requests()[1].body).value()["result"], expected);
  EXPECT_EQ(Responses(), expected);
  EXPECT_TRUE(Exists("final_model/model.safetensors")) << "nobody asked for a clean-up";
}

TEST_F(ArchiveDeliveryTest, AFolderMayLieDeeper) {
  DeliveryJob job = Plan(SinkUrl(), "checkpoints/final_model");
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_EQ(job.result["final_model_archive_path"],
            (job.task.dir / "checkpoints/final_model.tar.gz").string());
  EXPECT_EQ(job.result["final_model_archive_url"], SinkUrl() + "/T7/files/final_model.tar.gz");
}

TEST_F(ArchiveDeliveryTest, LocallyAnAdapterIsArchivedAndAModelIsNot) {
  DeliveryJob model = Plan("");
  const Json before = model.result;
  ASSERT_EQ(Deliver(model), absl::OkStatus());
  EXPECT_EQ(model.result, before);
  EXPECT_FALSE(Exists("final_model.tar.gz"));

  DeliveryJob adapter = Plan("", "final_lora", v1::OutputFile::FINAL_LORA);
  options_.cleanup_after_upload = true;  // of what is sent only
  ASSERT_EQ(Deliver(adapter), absl::OkStatus());
  Json expected = before;
  expected["final_model_path"] = (adapter.task.dir / "final_lora").string();
  expected["final_lora_archive"] = "final_lora.tar.gz";
  expected["final_lora_archive_path"] = (adapter.task.dir / "final_lora.tar.gz").string();
  EXPECT_EQ(Responses(), expected);
  EXPECT_TRUE(Exists("final_lora.tar.gz"));
  EXPECT_TRUE(Exists("final_lora"));
  EXPECT_TRUE(Exists("checkpoints"));
}

// --- What fails ----------------------------------------------------------------------------------

TEST_F(ArchiveDeliveryTest, P17_AnUploadThatIsRefusedIsAWarningInTheResult) {
  options_.cleanup_after_upload = true;
  sink_.AnswerFilesWith({401});
  DeliveryJob job = Plan(SinkUrl());
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_THAT(outcomes_, ElementsAre(Outcome::kFailed, Outcome::kDelivered));
  const Json result = Responses();
  EXPECT_THAT(archives_, ElementsAre(false));
  EXPECT_EQ(result["final_model_archive_uploaded"], false);
  EXPECT_EQ(result["final_model_archive_error"], "POST " + SinkUrl() + "/T7/files: status 401");
  EXPECT_FALSE(result.contains("final_model_archive_url"));
  ASSERT_THAT(sink_.received(), SizeIs(1));
  EXPECT_EQ(ParseJson(sink_.received()[0].body).value()["result"], result);
  for (const char* kept : {"final_model", "final_model.tar.gz", "checkpoints"}) {
    EXPECT_TRUE(Exists(kept)) << kept;
  }

  // The next delivery of the same job may succeed, and says so.
  options_.cleanup_after_upload = false;
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_EQ(Responses()["final_model_archive_uploaded"], true);
  EXPECT_FALSE(Responses().contains("final_model_archive_error"));
  EXPECT_THAT(archives_, ElementsAre(false, true));
}

TEST_F(ArchiveDeliveryTest, AnArchiveThatCannotBeMadeIsAWarningToo) {
  DeliveryJob outside = Plan(SinkUrl());
  options_.cleanup_after_upload = true;
  fs::create_directory(temp_ / "other");
  outside.outputs[0].set_path((temp_ / "other").string());
  ASSERT_EQ(Deliver(outside), absl::OkStatus());
  EXPECT_THAT(std::string(Responses()["final_model_archive_error"]),
              StartsWith("expected a folder inside " + (temp_ / "T7").string()));
  EXPECT_TRUE(fs::exists(temp_ / "other")) << "nor is it cleaned up";

  DeliveryJob linked = Plan(SinkUrl());
  fs::create_directory(temp_ / "other/final_model");
  fs::create_directory_symlink(temp_ / "other", linked.task.dir / "way_out");
  linked.outputs[0].set_path((linked.task.dir / "way_out/final_model").string());
  ASSERT_EQ(Deliver(linked), absl::OkStatus());
  EXPECT_THAT(std::string(Responses()["final_model_archive_error"]),
              StartsWith("expected a folder inside"));

  DeliveryJob missing = Plan(SinkUrl());
  fs::remove_all(missing.task.dir / "final_model");
  ASSERT_EQ(Deliver(missing), absl::OkStatus());
  EXPECT_THAT(std::string(Responses()["final_model_archive_error"]),
              HasSubstr("No such file or directory"));
  EXPECT_EQ(Responses()["final_model_archive_uploaded"], false);
  for (const UploadSink::Received& got : sink_.received()) EXPECT_FALSE(got.is_file);
}

TEST_F(ArchiveDeliveryTest, CancellationIsNoWarning) {
  DeliveryJob job = Plan(SinkUrl());
  EXPECT_TRUE(absl::IsCancelled(Deliver(job, [] { return true; })));
  EXPECT_THAT(sink_.received(), IsEmpty());
}

TEST_F(ArchiveDeliveryTest, AFileOfAnUnknownKindFailsTheTask) {
  DeliveryJob job = Plan(SinkUrl());
  job.outputs[0].set_kind(v1::OutputFile::KIND_UNSPECIFIED);
  EXPECT_THAT(Message(Deliver(job)), StartsWith("the executor left a file of an unknown kind"));
}

// --- Clean-up ------------------------------------------------------------------------------------

TEST_F(ArchiveDeliveryTest, ACleanUpFollowsTheUploadAndTheResult) {
  options_.cleanup_after_upload = true;
  DeliveryJob job = Plan(SinkUrl());
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  for (const char* gone : {"final_model", "final_model.tar.gz", "checkpoints"}) {
    EXPECT_FALSE(Exists(gone)) << gone;
  }
  EXPECT_EQ(Responses()["final_model_path"], (job.task.dir / "final_model").string());
  const std::string manifest = ReadFile(job.task.dir / "manifest.json").value();
  EXPECT_EQ(manifest.find("final_model"), std::string::npos) << manifest;
  EXPECT_NE(manifest.find("responses.json"), std::string::npos);
}

TEST_F(ArchiveDeliveryTest, WithoutAModelOnlyTheCheckpointsGo) {
  options_.cleanup_after_upload = true;
  DeliveryJob job = Plan(SinkUrl());
  job.outputs.clear();  // save_model: false
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_FALSE(Exists("checkpoints"));
  EXPECT_TRUE(Exists("final_model"));
}

TEST_F(ArchiveDeliveryTest, NothingIsCleanedUpWhenTheResultWasNotReceived) {
  options_.cleanup_after_upload = true;
  options_.delivery_timeout = absl::ZeroDuration();
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    if (request.path == "/results") reply.status = 500;
  });
  DeliveryJob job = Plan(server.url("/results"));
  EXPECT_FALSE(Deliver(job).ok());
  for (const char* kept : {"final_model", "final_model.tar.gz", "checkpoints"}) {
    EXPECT_TRUE(Exists(kept)) << kept;
  }
}

TEST_F(ArchiveDeliveryTest, ADeliveryAfterTheCleanUpSaysWhatTheFirstOneSaid) {
  options_.cleanup_after_upload = true;
  DeliveryJob job = Plan(SinkUrl());
  const Json computed = job.result;
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  // As after a crash: the executor's result, and the directory made ready once more.
  job.result = computed;
  ASSERT_TRUE(PrepareDirectories(job).ok());
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  const std::vector<UploadSink::Received> got = sink_.received();
  ASSERT_THAT(got, SizeIs(3)) << "one file, two results";
  EXPECT_EQ(got[1].body, got[2].body);
  // But to another place it was never uploaded.
  job.result = computed;
  UploadSink other;
  job.task.output.url = absl::StrCat("http://127.0.0.1:", other.port(), "/r");
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_EQ(Responses()["final_model_archive_uploaded"], false);
}

// --- P17: cuts on the way ------------------------------------------------------------------------

TEST_F(ArchiveDeliveryTest, P17_AnUploadCutAnywhereArrivesWhole) {
  Gate gate({.host = "127.0.0.1", .port = sink_.port()});
  const std::string url = absl::StrCat("http://127.0.0.1:", gate.endpoint().port, "/results");
  on_attempt_ = [&](const DeliveryAttempt&) { gate.Pass(); };
  for (const uint64_t cut : {1, 300, 1000, 200'000, 300'500}) {
    outcomes_.clear();
    const size_t before = sink_.received().size();
    DeliveryJob job = Plan(url);
    gate.CutAfter(cut, Gate::Direction::kForward);
    ASSERT_EQ(Deliver(job), absl::OkStatus()) << cut;
    EXPECT_THAT(outcomes_, ElementsAre(Outcome::kRetried, Outcome::kDelivered, Outcome::kDelivered))
        << cut;
    const std::vector<UploadSink::Received> got = sink_.received();
    ASSERT_EQ(got.size(), before + 2) << "a part of a file is none";
    EXPECT_EQ(got[before].sha256, job.result["final_model_archive_sha256"]);
    EXPECT_EQ(got[before].bytes, job.result["final_model_archive_bytes"]);
  }
}

TEST_F(ArchiveDeliveryTest, P17_ServersInTroubleAreTriedAgain) {
  sink_.AnswerFilesWith({503, 500, 429});
  DeliveryJob job = Plan(SinkUrl());
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_THAT(outcomes_, ElementsAre(Outcome::kRetried, Outcome::kRetried, Outcome::kRetried,
                                     Outcome::kDelivered, Outcome::kDelivered));
  EXPECT_EQ(sink_.received()[0].sha256, job.result["final_model_archive_sha256"]);
}

TEST_F(ArchiveDeliveryTest, P17_ASlowReaderIsWaitedForAsLongAsItReads) {
  DeliveryJob job = Plan(SinkUrl(), "final_model", v1::OutputFile::FINAL_MODEL, 8'000'000);
  job.task.output.timeout = absl::Seconds(1);
  sink_.BeforeRead([] { std::this_thread::sleep_for(std::chrono::milliseconds(40)); });
  const absl::Duration begin = Clock::Real().Monotonic();
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_GT(Clock::Real().Monotonic() - begin, absl::Seconds(1)) << "longer than the time-out";
  EXPECT_EQ(sink_.received()[0].sha256, job.result["final_model_archive_sha256"]);
}

TEST_F(ArchiveDeliveryTest, P17_ALargeUploadCutTwiceArrivesWholeWithFlatMemory) {
  constexpr size_t kSize = 64 << 20;
  Gate gate({.host = "127.0.0.1", .port = sink_.port()});
  DeliveryJob job = Plan(absl::StrCat("http://127.0.0.1:", gate.endpoint().port, "/results"),
                         "final_model", v1::OutputFile::FINAL_MODEL, kSize);
  on_attempt_ = [&](const DeliveryAttempt&) {
    gate.Pass();
    if (outcomes_.size() == 1) gate.CutAfter(kSize - 1000, Gate::Direction::kForward);
  };
  gate.CutAfter(kSize / 3, Gate::Direction::kForward);
  MemoryWatch watch;
  ASSERT_EQ(Deliver(job), absl::OkStatus());
  EXPECT_LT(watch.MostMore(), 32u << 20) << "sender, gate and receiver together";
  EXPECT_THAT(outcomes_, ElementsAre(Outcome::kRetried, Outcome::kRetried, Outcome::kDelivered,
                                     Outcome::kDelivered));
  ASSERT_THAT(sink_.received(), SizeIs(2));
  EXPECT_EQ(sink_.received()[0].sha256, job.result["final_model_archive_sha256"]);
}

}  // namespace
}  // namespace flowmesh::sidecar
