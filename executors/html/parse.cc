#include "executors/html/parse.h"

#include <algorithm>
#include <new>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace flowmesh::html {
namespace {

constexpr size_t kChunkBytes = 256 << 10;
constexpr unsigned kLookAtClock = 256;  // allocations

}  // namespace

void* Tree::Allocate(void* user, size_t bytes) {
  Tree& tree = *static_cast<Tree*>(user);
  constexpr size_t kAlign = alignof(std::max_align_t);
  bytes = (bytes + kAlign - 1) / kAlign * kAlign;
  const bool is_late =
      ++tree.allocations_ % kLookAtClock == 0 && Clock::Real().Monotonic() > tree.deadline_;
  if (is_late || bytes > tree.bytes_left_) std::longjmp(tree.out_, 1);
  if (bytes > tree.chunk_left_) {
    const size_t size = std::max(bytes, kChunkBytes);
    char* chunk = new (std::nothrow) char[size];
    if (chunk == nullptr) std::longjmp(tree.out_, 1);
    tree.chunks_.emplace_back(chunk);
    tree.next_ = chunk;
    tree.chunk_left_ = size;
  }
  tree.bytes_left_ -= bytes;
  tree.chunk_left_ -= bytes;
  return std::exchange(tree.next_, tree.next_ + bytes);
}

// Nothing here has a destructor that the jump would skip.
bool Tree::Fill(std::string_view html) {
  GumboOptions options = kGumboDefaultOptions;
  options.allocator = &Tree::Allocate;
  options.deallocator = [](void*, void*) {};
  options.userdata = this;
  options.max_errors = 0;
  if (setjmp(out_) != 0) return false;
  output_ = gumbo_parse_with_options(&options, html.data(), html.size());
  return true;
}

absl::StatusOr<std::unique_ptr<Tree>> Tree::Parse(std::string_view html, size_t max_bytes,
                                                  absl::Duration max_time) {
  auto tree = absl::WrapUnique(new Tree(max_bytes, Clock::Real().Monotonic() + max_time));
  if (tree->Fill(html)) return tree;
  return absl::ResourceExhaustedError(absl::StrCat("the page takes more than ", max_bytes >> 20,
                                                   " MiB or ", absl::FormatDuration(max_time),
                                                   " to read"));
}

}  // namespace flowmesh::html
