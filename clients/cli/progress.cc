#include "clients/cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace flowmesh::cli {
namespace {

size_t TerminalWidth() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string Bar(double fraction, int width) {
  const int filled = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * width);
  return absl::StrCat("[", std::string(static_cast<size_t>(filled), '#'),
                      std::string(static_cast<size_t>(width - filled), '.'), "]");
}

std::string ProgressText(const v1::TaskProgress& progress, absl::Duration elapsed) {
  std::string text = progress.stage().empty() ? "running" : progress.stage();
  if (progress.total() > 0) {
    absl::StrAppendFormat(&text, " %s %d/%d %s",
                          Bar(static_cast<double>(progress.done()) / progress.total(), 24),
                          progress.done(), progress.total(), progress.unit());
  } else if (progress.done() > 0) {
    absl::StrAppendFormat(&text, " %d %s", progress.done(), progress.unit());
  }
  if (progress.tokens_per_second() > 0) {
    absl::StrAppendFormat(&text, "  %.1f tokens/s", progress.tokens_per_second());
  }
  absl::StrAppendFormat(&text, "  %.1f s", absl::ToDoubleSeconds(elapsed));
  return text;
}

ProgressLine::ProgressLine() : on_terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::Show(std::string_view text) {
  if (!on_terminal_) return;
  // A line that wraps could not be wiped.
  const std::string line(text.substr(0, TerminalWidth() - 1));
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
