// Gumbo's parser with bounds on memory and time, which it has not by itself.
#pragma once

#include <gumbo.h>

#include <csetjmp>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/status.h"

namespace flowmesh::html {

// A parsed page, whose nodes point into the text that it was parsed from. All memory is taken from
// an arena and given back at once: Gumbo's own destructor recurses as deep as the page nests.
class Tree {
 public:
  // ResourceExhausted: it would take more than `max_bytes` or `max_time`.
  static absl::StatusOr<std::unique_ptr<Tree>> Parse(std::string_view html, size_t max_bytes,
                                                     absl::Duration max_time);

  const GumboNode& root() const { return *output_->root; }

 private:
  Tree(size_t max_bytes, absl::Duration deadline) : bytes_left_(max_bytes), deadline_(deadline) {}

  static void* Allocate(void* tree, size_t bytes);
  bool Fill(std::string_view html);  // false: a bound was reached

  size_t bytes_left_;
  const absl::Duration deadline_;
  unsigned allocations_ = 0;
  std::vector<std::unique_ptr<char[]>> chunks_;
  char* next_ = nullptr;  // free bytes of the last chunk
  size_t chunk_left_ = 0;
  std::jmp_buf out_;  // the way out of Gumbo, whose allocator may not fail
  GumboOutput* output_ = nullptr;
};

}  // namespace flowmesh::html
