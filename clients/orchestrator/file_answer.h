// A file as an HTTP answer: streamed, with ETag, Last-Modified, one byte range, conditional GET.
#pragma once

#include <httplib.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "common/status.h"

namespace flowmesh::orchestrator {

struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

// The range that a `Range` header asks of `size` bytes. Nothing: the whole file is due (no header,
// another unit, several ranges, bad syntax). OutOfRange: 416 is due.
absl::StatusOr<std::optional<ByteRange>> ParseRange(std::string_view header, uint64_t size);

// Fills `response` with 200, 206, 304 or 416. An error when the file cannot be opened.
absl::Status AnswerWithFile(const std::filesystem::path& path, const httplib::Request& request,
                            httplib::Response& response);

}  // namespace flowmesh::orchestrator
