// Any bytes as a page: text or an error, never a crash, a hang or unbounded memory.
#include <cstdint>

#include "executors/html/html_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)flowmesh::html::ReadHtml(
      {reinterpret_cast<const char*>(data), size},
      {.url = "http://host/path", .max_tree = 64u << 20, .max_time = absl::Seconds(2)});
  return 0;
}
