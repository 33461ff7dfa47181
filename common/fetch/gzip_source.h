// The content of a gzip file, checked: libarchive's own decoder ignores the checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "common/files.h"
#include "common/status.h"

struct inflate_state;

namespace flowmesh {

// Not thread-safe.
class GzipSource {
 public:
  static bool IsGzip(const std::filesystem::path& path);

  static absl::StatusOr<std::unique_ptr<GzipSource>> Open(const std::filesystem::path& path);
  ~GzipSource();

  // The next bytes, valid until the next call; none at the end. InvalidArgument when the file is
  // damaged or cut off. Several members are one content; what follows the last is ignored.
  absl::StatusOr<std::string_view> Read();

 private:
  GzipSource(std::filesystem::path path, UniqueFd fd);

  // Whether there is input, after reading some where there was none.
  absl::StatusOr<bool> Fill();
  // Whether another member begins.
  absl::StatusOr<bool> BeginNextMember();
  absl::Status Damaged() const;

  const std::filesystem::path path_;
  const UniqueFd fd_;
  std::unique_ptr<inflate_state> state_;
  std::vector<uint8_t> input_;
  std::vector<char> output_;
  bool ended_ = false;
};

}  // namespace flowmesh
