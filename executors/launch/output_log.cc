#include "executors/launch/output_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/strings.h"

namespace flowmesh::executor {
namespace {

void WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written > 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (written < 0 && errno != EINTR) {
      return;  // a full disk loses log text, never a task
    }
  }
}

}  // namespace

void OutputLog::Append(std::string_view bytes) {
  if (file_.valid() && file_bytes_ < limits_.file_bytes) {
    const std::string_view fits = bytes.substr(0, limits_.file_bytes - file_bytes_);
    WriteAll(file_.get(), fits);
    file_bytes_ += fits.size();
    if (fits.size() < bytes.size()) WriteAll(file_.get(), "\n[output beyond the limit is lost]\n");
  }
  while (!bytes.empty()) {
    const size_t newline = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, newline);
    partial_ += piece.substr(0, limits_.line_bytes - std::min(limits_.line_bytes, partial_.size()));
    if (newline == std::string_view::npos) return;
    EndLine();
    bytes.remove_prefix(newline + 1);
  }
}

void OutputLog::EndLine() {
  if (!partial_.empty() && partial_.back() == '\r') partial_.pop_back();
  lines_.push_back(std::exchange(partial_, std::string()));
  if (lines_.size() > limits_.lines) lines_.pop_front();
}

absl::Status OutputLog::WriteTo(const std::filesystem::path& path) {
  file_.Reset();
  file_bytes_ = 0;
  if (path.empty()) return absl::OkStatus();
  file_ = UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!file_.valid()) return ErrnoError("cannot open", path);
  return absl::OkStatus();
}

std::vector<std::string> OutputLog::LastLines() const {
  std::vector<std::string> result;
  for (const std::string& line : lines_) result.push_back(ToValidUtf8(line));
  if (!partial_.empty()) result.push_back(ToValidUtf8(partial_));
  return result;
}

}  // namespace flowmesh::executor
