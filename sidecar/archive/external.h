// The programs that MODEL_ARCHIVE_TAR_BIN and MODEL_ARCHIVE_PIGZ_BIN name, as stages of the
// pipeline: through pipes, with nothing in between on disk.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/subprocess.h"
#include "sidecar/archive/byte_sink.h"

namespace flowmesh::sidecar {

// The tar of `folder` as `program` makes it, of the entries that belong into it (WalkFolder).
// NotFound when there is no such program, Unavailable when it failed, Cancelled.
absl::Status RunTar(const std::string& program, const std::filesystem::path& folder,
                    const ByteSink& sink, const std::function<bool()>& is_cancelled,
                    std::vector<std::string>& skipped);

// A program that turns its input into its output. Not thread-safe.
class Filter {
 public:
  // NotFound when there is no such program.
  static absl::StatusOr<Filter> Start(const std::vector<std::string>& argv, ByteSink sink,
                                      std::function<bool()> is_cancelled);

  // Unavailable when the program failed, Cancelled, or the sink's error.
  absl::Status Write(std::string_view bytes);
  // Ends the input and waits for the output's end.
  absl::Status Finish();

 private:
  Filter(std::string program, Subprocess process, UniqueFd input, UniqueFd output, ByteSink sink,
         std::function<bool()> is_cancelled);

  std::string program_;
  Subprocess process_;
  UniqueFd input_, output_;
  ByteSink sink_;
  std::function<bool()> is_cancelled_;
  bool output_ended_ = false;
};

}  // namespace flowmesh::sidecar
