// WORKER_NETWORK_BANDWIDTH_BYTES_PER_SEC in real time, over loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "sidecar/delivery/sender.h"
#include "sidecar/delivery/upload_sink.h"

namespace flowmesh::sidecar {
namespace {

constexpr double kRate = 400'000;  // bytes per second

class PacingTest : public ::testing::Test {
 protected:
  PacingTest() { options_.bandwidth = kRate; }

  // Sends a file or a result of so many bytes; how long it took.
  absl::Duration Send(DeliveryAttempt::Kind kind, uint64_t bytes) {
    HttpRequest request;
    request.method = "POST";
    request.url = absl::StrCat("http://127.0.0.1:", sink_.port(), "/results");
    const auto path = temp_ / absl::StrCat("f", bytes);
    if (kind == DeliveryAttempt::Kind::kUpload) {
      EXPECT_TRUE(WriteFileAtomically(path, std::string(bytes, 'x')).ok());
      request.file_part = HttpRequest::FilePart{.path = path, .file_name = "f"};
    } else {
      request.body = std::string(bytes, 'x');
    }
    Sender sender(options_, Clock::Real(), throttle_, nullptr);
    const absl::Duration begin = Clock::Real().Monotonic();
    EXPECT_EQ(sender.Send(kind, request, bytes), absl::OkStatus());
    return Clock::Real().Monotonic() - begin;
  }

  const TempDir temp_;
  UploadSink sink_;
  DelivererOptions options_;
  Throttle throttle_{kRate};
};

using Kind = DeliveryAttempt::Kind;

// Never less than bytes / rate, and at most 5 % more.
void ExpectPaced(absl::Duration taken, double bytes) {
  EXPECT_GE(taken, absl::Seconds(bytes / kRate));
  EXPECT_LE(taken, absl::Seconds(1.05 * bytes / kRate));
}

TEST_F(PacingTest, OneUploadKeepsTheRateWithinFivePercentOverThreeSeconds) {
  ExpectPaced(Send(Kind::kUpload, 1'200'000), 1'200'000);
}

TEST_F(PacingTest, UploadsAndResultsTogetherKeepTheRate) {
  const absl::Duration begin = Clock::Real().Monotonic();
  std::thread upload([&] { Send(Kind::kUpload, 600'000); });
  std::thread result([&] { Send(Kind::kResult, 600'000); });
  upload.join();
  result.join();
  ExpectPaced(Clock::Real().Monotonic() - begin, 1'200'000);
  EXPECT_EQ(sink_.received().size(), 2u);
}

TEST_F(PacingTest, ASmallResultDoesNotWaitForALargeUpload) {
  std::thread upload([&] { Send(Kind::kUpload, 800'000); });
  while (sink_.begun() == 0) std::this_thread::yield();
  EXPECT_LT(Send(Kind::kResult, 8'000), absl::Seconds(1));
  EXPECT_EQ(sink_.received().size(), 1u) << "the upload is not over";
  upload.join();
}

}  // namespace
}  // namespace flowmesh::sidecar
