#include "clients/cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace flowmesh::cli {
namespace {

constexpr uint64_t kMegabyte = 1'000'000;

size_t TerminalWidth() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string TimeText(absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  if (seconds < 100) return absl::StrFormat("%.0f s", seconds);
  if (seconds < 100 * 60) return absl::StrFormat("%.0f min", seconds / 60);
  return absl::StrFormat("%.1f h", seconds / 3600);
}

}  // namespace

std::string Bar(double fraction, int width) {
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * width);
  return absl::StrCat("[", std::string(static_cast<size_t>(filled), '#'),
                      std::string(static_cast<size_t>(width - filled), '.'), "]");
}

std::string ProgressText(const v1::TaskProgress& progress, absl::Duration elapsed,
                         std::optional<absl::Duration> left, size_t width) {
  std::string text = progress.stage().empty() ? "running" : progress.stage();
  const size_t before_bar = text.size();
  const uint64_t most = std::max(progress.done(), progress.total());
  if (progress.unit() == "bytes" && most >= kMegabyte) {
    absl::StrAppendFormat(&text, " %d", progress.done() / kMegabyte);
    if (progress.total() > 0) absl::StrAppendFormat(&text, "/%d", progress.total() / kMegabyte);
    text += " MB";
  } else if (progress.total() > 0) {
    absl::StrAppendFormat(&text, " %d/%d %s", progress.done(), progress.total(), progress.unit());
  } else if (progress.done() > 0) {
    absl::StrAppendFormat(&text, " %d %s", progress.done(), progress.unit());
  }
  // Four digits, zeros too: the line must not shiver.
  if (progress.has_loss()) absl::StrAppendFormat(&text, "  loss %#.4g", progress.loss());
  if (progress.tokens_per_second() > 0) {
    absl::StrAppendFormat(&text, "  %.1f tokens/s", progress.tokens_per_second());
  }
  absl::StrAppendFormat(&text, "  %.1f s", absl::ToDoubleSeconds(elapsed));
  if (left) absl::StrAppend(&text, ", ", TimeText(*left), " left");
  if (progress.total() == 0) return text;
  const size_t taken = text.size() + 3;  // with the bar's blank and brackets
  const size_t room = std::clamp<size_t>(width - std::min(width, taken), 4, 24);
  const std::string bar =
      Bar(static_cast<double>(progress.done()) / progress.total(), static_cast<int>(room));
  return text.insert(before_bar, absl::StrCat(" ", bar));
}

std::optional<absl::Duration> TimeLeft::After(const v1::TaskProgress& progress, absl::Time time) {
  if (!progress.has_loss() || progress.total() == 0) {
    first_ = last_ = std::nullopt;
    return std::nullopt;
  }
  const Point now = {.done = progress.done(), .time = time};
  // A training that was started anew goes on from an earlier step, at its own pace.
  if (!last_ || now.done < last_->done) first_ = now;
  last_ = now;
  if (now.done <= first_->done) return std::nullopt;
  const absl::Duration per_step =
      (now.time - first_->time) / static_cast<double>(now.done - first_->done);
  const uint64_t steps_left = progress.total() - std::min(progress.total(), now.done);
  return per_step * static_cast<double>(steps_left);
}

ProgressLine::ProgressLine() : on_terminal_(::isatty(STDERR_FILENO) == 1) {}

size_t ProgressLine::width() const { return TerminalWidth() - 1; }

void ProgressLine::Show(std::string_view text) {
  if (!on_terminal_) return;
  // A line that wraps could not be wiped.
  const std::string line(text.substr(0, width()));
  if (line == shown_) return;
  std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
  std::fflush(stderr);
  shown_ = line;
}

void ProgressLine::Clear() {
  if (shown_.empty()) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  shown_.clear();
}

void ProgressLine::Print(std::string_view text) {
  const std::string again = shown_;
  Clear();
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
  if (!again.empty()) Show(again);
}

}  // namespace flowmesh::cli
