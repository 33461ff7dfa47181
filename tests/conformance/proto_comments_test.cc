// Whoever writes an executor or a client has only the contracts: each RPC says its codes, the
// deadline of its callers, and whether it may be repeated.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "common/files.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

using ::testing::ContainsRegex;

TEST(ProtoCommentsTest, EveryRpcSaysItsCodesDeadlineAndIdempotency) {
  const auto folder =
      std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "proto/flowmesh/v1";
  int rpcs = 0;
  for (const char* name : {"executor.proto", "sidecar.proto"}) {
    std::string comment;
    for (const std::string& line : SplitTrimmed(ReadFile(folder / name).value(), '\n')) {
      if (line.rfind("//", 0) == 0) {
        comment += line + "\n";
        continue;
      }
      if (line.rfind("rpc ", 0) == 0) {
        ++rpcs;
        EXPECT_THAT(comment, ContainsRegex("Codes: ")) << line;
        EXPECT_THAT(comment, ContainsRegex("Deadline of the callers: |[Nn]o deadline")) << line;
        EXPECT_THAT(comment, ContainsRegex("Idempotent")) << line;
      }
      comment.clear();
    }
  }
  EXPECT_EQ(rpcs, 12);
}

}  // namespace
}  // namespace flowmesh
