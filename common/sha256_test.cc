#include "common/sha256.h"

#include <gtest/gtest.h>

#include "common/strings.h"

namespace flowmesh {
namespace {

TEST(Sha256Test, PiecesGiveTheDigestOfTheWhole) {
  Sha256 sha256;
  EXPECT_EQ(sha256.Hex(), Sha256Hex(""));
  sha256.Update("a");
  sha256.Update("");
  sha256.Update("bc");
  EXPECT_EQ(sha256.Hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  sha256.Update("abc");
  EXPECT_EQ(sha256.Hex(), Sha256Hex("abc")) << "it begins anew";
}

}  // namespace
}  // namespace flowmesh
