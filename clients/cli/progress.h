// A status line on a terminal that is redrawn in place; on anything else it stays silent.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::cli {

// `[########............]`
std::string Bar(double fraction, int width);

// `generating [####....] 3/10 items  72.1 tokens/s  4.2 s`
std::string ProgressText(const v1::TaskProgress& progress, absl::Duration elapsed);

// Not thread-safe. Writes to stderr.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { Clear(); }

  bool on_terminal() const { return on_terminal_; }
  void Show(std::string_view text);
  void Clear();
  // A line of its own, above the status line; written on a terminal or not.
  void Print(std::string_view text);

 private:
  const bool on_terminal_;
  std::string shown_;
};

}  // namespace flowmesh::cli
