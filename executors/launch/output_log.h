// What a rank writes to stdout and stderr: cut into lines, the last ones kept in memory for error
// texts, all of them written to a file while a task runs.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/files.h"
#include "common/status.h"

namespace flowmesh::executor {

struct OutputLogLimits {
  size_t lines = 100;              // kept in memory
  size_t line_bytes = 4096;        // longer lines are cut in memory, never in the file
  uint64_t file_bytes = 64 << 20;  // a file ends with a note that says so
};

// Not thread-safe.
class OutputLog {
 public:
  explicit OutputLog(OutputLogLimits limits = {}) : limits_(limits) {}

  // Appends raw output.
  void Append(std::string_view bytes);

  // From now on output also goes to `path` (appended to); an empty path ends that. A file that
  // cannot be written is an error here and costs nothing but the file.
  absl::Status WriteTo(const std::filesystem::path& path);

  // The last lines, oldest first, valid UTF-8, an unfinished one included.
  std::vector<std::string> LastLines() const;

 private:
  void EndLine();

  const OutputLogLimits limits_;
  std::deque<std::string> lines_;
  std::string partial_;  // at most line_bytes of the unfinished line
  UniqueFd file_;
  uint64_t file_bytes_ = 0;
};

}  // namespace flowmesh::executor
