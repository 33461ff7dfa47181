#include "sidecar/archive/block_deflater.h"

#include <gtest/gtest.h>
#include <isa-l/igzip_lib.h>

#include <random>
#include <string>

namespace flowmesh::sidecar {
namespace {

std::string Random(size_t size, int distinct) {
  std::mt19937 random(1);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() % distinct);
  return bytes;
}

// What a deflate stream of `blocks` and an empty last one holds.
std::string Inflate(std::vector<unsigned char> blocks, size_t size) {
  for (const unsigned char byte : {0x01, 0x00, 0x00, 0xff, 0xff}) blocks.push_back(byte);
  std::string output(size + 1, '\0');
  inflate_state state;
  isal_inflate_init(&state);
  state.next_in = blocks.data();
  state.avail_in = blocks.size();
  state.next_out = reinterpret_cast<uint8_t*>(output.data());
  state.avail_out = output.size();
  EXPECT_EQ(isal_inflate(&state), ISAL_DECOMP_OK);
  EXPECT_EQ(state.block_state, ISAL_BLOCK_FINISH);
  output.resize(state.total_out);
  return output;
}

TEST(BlockDeflaterTest, EveryLevelGivesBackWhatItGotHoweverLong) {
  for (int level = 0; level <= 9; ++level) {
    BlockDeflater deflater(level);
    for (const size_t size : {0, 1, 2, 3, 7, 100, 4096, 65534, 65535, 65536, 131070, 262144}) {
      for (const int distinct : {1, 2, 17, 256}) {
        const std::string input = Random(size, distinct);
        std::vector<unsigned char> output;
        deflater.Deflate(input, output);
        EXPECT_LE(output.size(), StoredSize(size));
        ASSERT_EQ(Inflate(output, size), input) << level << " " << size << " " << distinct;
      }
    }
  }
}

TEST(BlockDeflaterTest, WhatDoesNotGetSmallerIsStored) {
  const std::string noise = Random(200'000, 256);
  for (const int level : {0, 1, 6, 9}) {
    std::vector<unsigned char> output;
    BlockDeflater(level).Deflate(noise, output);
    EXPECT_EQ(output.size(), StoredSize(noise.size())) << level;
    EXPECT_EQ(output[0], 0) << "a stored block";
  }
}

TEST(BlockDeflaterTest, LevelZeroStoresEverything) {
  std::vector<unsigned char> output;
  BlockDeflater(0).Deflate(std::string(100'000, 'x'), output);
  EXPECT_EQ(output.size(), 100'000u + 2 * 5);
}

TEST(BlockDeflaterTest, HigherLevelsAreNotLarger) {
  // Words come again, near and far.
  std::mt19937 random(1);
  std::string text;
  while (text.size() < 250'000) {
    text += Random(3 + random() % 5, 26) + "word" + std::to_string(random() % 300) + " ";
    if (random() % 4 == 0) text += text.substr(random() % text.size(), 40);
  }
  size_t last = text.size();
  for (const int level : {1, 6, 9}) {
    std::vector<unsigned char> output;
    BlockDeflater(level).Deflate(text, output);
    EXPECT_LE(output.size(), last) << level;
    last = output.size();
  }
}

TEST(BlockDeflaterTest, WhatCameBeforeDoesNotShow) {
  const std::string first = Random(262144, 3), second = Random(100'000, 5);
  for (const int level : {1, 6, 9}) {
    std::vector<unsigned char> fresh, used;
    BlockDeflater(level).Deflate(second, fresh);
    BlockDeflater deflater(level);
    deflater.Deflate(first, used);
    deflater.Deflate(second, used);
    EXPECT_TRUE(fresh == used) << level;
  }
}

}  // namespace
}  // namespace flowmesh::sidecar
