// A status line on a terminal that is redrawn in place; on anything else it stays silent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::cli {

// `[########............]`
std::string Bar(double fraction, int width);

// `generating [####....] 3/10 items  72.1 tokens/s  4.2 s`, and of a training
// `training [####....] 30/100 steps  loss 2.134  812.3 tokens/s  9.1 s, 21 s left`; the bar becomes
// shorter where that would be longer than `width`.
std::string ProgressText(const v1::TaskProgress& progress, absl::Duration elapsed,
                         std::optional<absl::Duration> left = std::nullopt, size_t width = 120);

// Foretells the end of a training from its mean pace since it was first seen at work, which a slow
// step or a checkpoint hardly moves.
class TimeLeft {
 public:
  // What is left after `progress`, which was made at `time`. Nothing: it does not train (it has no
  // loss), or the pace is not known yet.
  std::optional<absl::Duration> After(const v1::TaskProgress& progress, absl::Time time);

 private:
  struct Point {
    uint64_t done;
    absl::Time time;
  };
  std::optional<Point> first_, last_;  // of the training that goes on
};

// Not thread-safe. Writes to stderr.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { Clear(); }

  bool on_terminal() const { return on_terminal_; }
  size_t width() const;  // of a text that it shows whole
  void Show(std::string_view text);
  void Clear();
  // A line of its own, above the status line; written on a terminal or not.
  void Print(std::string_view text);

 private:
  const bool on_terminal_;
  std::string shown_;
};

}  // namespace flowmesh::cli
