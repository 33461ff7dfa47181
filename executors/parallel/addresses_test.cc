#include "executors/parallel/addresses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/endpoint.h"

namespace flowmesh::parallel {
namespace {

using ::testing::HasSubstr;

TEST(AddressesTest, LoopbackIsReachedFromLoopback) {
  EXPECT_EQ(LocalAddressTowards("127.0.0.1").value(), "127.0.0.1");
}

TEST(AddressesTest, AHostThatDoesNotExistIsNamed) {
  const absl::Status status = LocalAddressTowards("no-such-host.invalid").status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(Message(status), HasSubstr("cannot find the host no-such-host.invalid"));
}

TEST(AddressesTest, ATakenPortIsNamed) {
  const int port = FreeLoopbackPort().value();
  const absl::StatusOr<UniqueFd> first = ListenAt("127.0.0.1", port);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = ListenAt("127.0.0.1", port).status();
  EXPECT_TRUE(absl::IsUnavailable(second));
  EXPECT_THAT(Message(second), HasSubstr(absl::StrCat("cannot listen at 127.0.0.1:", port)));
}

// The address of a service belongs to nobody here: its packets come to another one of ours.
TEST(AddressesTest, AnAddressThatIsNotOursIsListenedForEverywhere) {
  EXPECT_TRUE(ListenAt("192.0.2.1", FreeLoopbackPort().value()).ok());
}

}  // namespace
}  // namespace flowmesh::parallel
