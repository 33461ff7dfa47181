#include "sidecar/worker/run_end.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::sidecar {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(OutcomeTest, AFailureRecordHoldsNoSecret) {
  DeliveryJob job;
  job.task.output.headers = {{"X-Key", "canary-of-the-header"}};
  v1::TaskFailed failed;
  failed.set_message("refused: canary-of-the-header");
  failed.set_result_json(
      R"({"error_message": "refused: canary-of-the-header", "n": 2, "log": [{"line": "canary-of-the-token"}]})");
  const Outcome outcome = OutcomeOf({.end = failed, .job = job}, "e0", "canary-of-the-token");
  EXPECT_THAT(Message(outcome.status), Not(HasSubstr("canary")));
  EXPECT_THAT(DumpJson(outcome.failure_record), Not(HasSubstr("canary")));
  EXPECT_EQ(outcome.failure_record["n"], 2);
}

TEST(OutcomeTest, AResultThatCannotBeDeliveredIsKept) {
  v1::TaskFinished finished;
  finished.set_result_json(R"({"ok": true})");
  const Outcome outcome =
      OutcomeOf({.end = finished, .job = absl::InvalidArgumentError("no url")}, "e0", "");
  EXPECT_EQ(outcome.status,
            absl::InvalidArgumentError("its result is kept but cannot be delivered: no url"));
  EXPECT_EQ(outcome.keep, JournalKeep::kResult);
}

}  // namespace
}  // namespace flowmesh::sidecar
