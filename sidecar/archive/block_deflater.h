// One block of a deflate stream, by itself: it looks back at no earlier block and ends on a byte
// border, so that blocks made in any order by any thread can be put one after the other.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

struct isal_zstream;

namespace flowmesh::sidecar {

// The largest output of Deflate for `size` bytes.
size_t StoredSize(size_t size);

// Not thread-safe; each thread has its own. The same input gives the same output, whatever was
// deflated before.
class BlockDeflater {
 public:
  // `level`: 0 (stored) to 9, as people give it to gzip. ISA-L knows three: 1-3 give its fastest,
  // 4-6 its middle one (as fast on weights, and smaller), 7-9 its smallest.
  explicit BlockDeflater(int level);
  ~BlockDeflater();

  // Replaces `output`; input that does not get smaller is stored. No block is marked as the last.
  void Deflate(std::string_view input, std::vector<unsigned char>& output);

 private:
  const int isal_level_;  // 0: store
  std::unique_ptr<isal_zstream> stream_;
  std::vector<unsigned char> level_buffer_;
};

}  // namespace flowmesh::sidecar
