#include "sidecar/archive/parallel_gzip.h"

#include <gtest/gtest.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <random>
#include <string>

namespace flowmesh::sidecar {
namespace {

// Compressible and not, in turn, over many blocks.
std::string Mixed(size_t size) {
  std::mt19937 random(7);
  std::string bytes;
  bytes.reserve(size);
  while (bytes.size() < size) {
    const bool noise = random() % 2 == 0;
    for (int i = 0; i < 50'000; ++i) bytes += static_cast<char>(noise ? random() : i / 100);
  }
  bytes.resize(size);
  return bytes;
}

std::string Gzip(const std::string& input, int level, int threads, size_t piece) {
  std::string output;
  ParallelGzip gzip(level, threads, [&](std::string_view bytes) {
    output.append(bytes);
    return absl::OkStatus();
  });
  for (size_t at = 0; at < input.size(); at += piece) {
    EXPECT_TRUE(gzip.Write(std::string_view(input).substr(at, piece)).ok());
  }
  EXPECT_TRUE(gzip.Finish().ok());
  return output;
}

// Checks header, CRC and length; exactly one member.
std::string Gunzip(std::string input, size_t size) {
  std::string output(size + 1, '\0');
  inflate_state state;
  isal_inflate_init(&state);
  state.crc_flag = ISAL_GZIP;
  state.next_in = reinterpret_cast<uint8_t*>(input.data());
  state.avail_in = input.size();
  state.next_out = reinterpret_cast<uint8_t*>(output.data());
  state.avail_out = output.size();
  EXPECT_EQ(isal_inflate(&state), ISAL_DECOMP_OK);
  EXPECT_EQ(state.block_state, ISAL_BLOCK_FINISH);
  EXPECT_EQ(state.avail_in, 0u);
  output.resize(state.total_out);
  return output;
}

TEST(ParallelGzipTest, OneMemberHoldsEverything) {
  for (const size_t size : {0, 1, 262143, 262144, 262145, 3'000'000}) {
    const std::string input = Mixed(size);
    for (const int level : {0, 1, 6, 9}) {
      ASSERT_TRUE(Gunzip(Gzip(input, level, 2, 100'000), size) == input) << size << " " << level;
    }
  }
}

TEST(ParallelGzipTest, NeitherThreadsNorPiecesShow) {
  const std::string input = Mixed(5'000'000);
  const std::string expected = Gzip(input, 6, 1, input.size());
  for (const int threads : {2, 5, 16}) {
    for (const size_t piece : {512, 10'240, 1'000'000}) {
      EXPECT_TRUE(Gzip(input, 6, threads, piece) == expected) << threads << " " << piece;
    }
  }
  EXPECT_TRUE(Gzip(input, 6, 0, 10'240) == expected) << "at least one thread";
  EXPECT_TRUE(Gzip(input, 6, 1'000'000, 10'240) == expected) << "no more than are of use";
}

TEST(ParallelGzipTest, NoiseGrowsByAThousandthAtMost) {
  std::mt19937 random(3);
  std::string noise(4'000'000, '\0');
  std::generate(noise.begin(), noise.end(), [&] { return static_cast<char>(random()); });
  EXPECT_LE(Gzip(noise, 6, 2, 100'000).size(), noise.size() + noise.size() / 1000);
}

TEST(ParallelGzipTest, AnErrorOfTheSinkComesBack) {
  size_t taken = 0;
  ParallelGzip gzip(6, 2, [&](std::string_view bytes) {
    taken += bytes.size();
    return taken > 1'000'000 ? absl::ResourceExhaustedError("no room") : absl::OkStatus();
  });
  const std::string input = Mixed(1'000'000);
  absl::Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) status = gzip.Write(input);
  EXPECT_EQ(status, absl::ResourceExhaustedError("no room"));
}

}  // namespace
}  // namespace flowmesh::sidecar
