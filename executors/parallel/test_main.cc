// The main of tests whose program runs itself as ranks (test_ranks.h).
#include <gtest/gtest.h>

#include "executors/parallel/test_ranks.h"

int main(int argc, char** argv) {
  if (flowmesh::parallel::IsRank()) return flowmesh::parallel::RunAsRank();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
