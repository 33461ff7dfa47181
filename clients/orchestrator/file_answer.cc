#include "clients/orchestrator/file_answer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

std::string HttpDate(time_t seconds) {
  return absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::FromTimeT(seconds),
                          absl::UTCTimeZone());
}

// Changes with every rename over the file, and with writes in place.
std::string EntityTag(const struct stat& info) {
  return absl::StrCat("\"", absl::Hex(info.st_ino), "-", absl::Hex(info.st_size), "-",
                      absl::Hex(info.st_mtim.tv_sec), ".", info.st_mtim.tv_nsec, "\"");
}

// Feeds `length` bytes from `offset` on, in pieces.
bool SendPiece(int fd, uint64_t offset, size_t length, httplib::DataSink& sink) {
  std::array<char, 1 << 16> buffer;
  ssize_t n;
  do {
    n = ::pread(fd, buffer.data(), std::min(length, buffer.size()), static_cast<off_t>(offset));
  } while (n < 0 && errno == EINTR);
  return n > 0 && sink.write(buffer.data(), static_cast<size_t>(n));
}

}  // namespace

absl::StatusOr<std::optional<ByteRange>> ParseRange(std::string_view header, uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  header = Trim(header);
  if (header.substr(0, kUnit.size()) != kUnit) return std::nullopt;
  header.remove_prefix(kUnit.size());
  const size_t dash = header.find('-');
  if (dash == std::string_view::npos || header.find(',') != std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view first_text = Trim(header.substr(0, dash));
  const std::string_view last_text = Trim(header.substr(dash + 1));
  uint64_t first = 0;
  uint64_t last = size - 1;
  if (!last_text.empty() && !absl::SimpleAtoi(ToAbsl(last_text), &last)) return std::nullopt;
  if (first_text.empty()) {  // the last `last` bytes
    if (last_text.empty()) return std::nullopt;
    if (last == 0 || size == 0) return absl::OutOfRangeError("an empty range");
    const uint64_t length = std::min(last, size);
    return ByteRange{.offset = size - length, .length = length};
  }
  if (!absl::SimpleAtoi(ToAbsl(first_text), &first)) return std::nullopt;
  if (!last_text.empty() && last < first) return std::nullopt;
  if (first >= size) return absl::OutOfRangeError("a range behind the end");
  last = std::min(last, size - 1);
  return ByteRange{.offset = first, .length = last - first + 1};
}

absl::Status AnswerWithFile(const std::filesystem::path& path, const httplib::Request& request,
                            httplib::Response& response) {
  // Opened once: a new upload of that name does not change an answer under way.
  const auto fd = std::make_shared<UniqueFd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info;
  if (!fd->valid() || ::fstat(fd->get(), &info) != 0) return ErrnoError("cannot open", path);
  const auto size = static_cast<uint64_t>(info.st_size);
  const std::string tag = EntityTag(info);
  const std::string date = HttpDate(info.st_mtim.tv_sec);
  response.set_header("ETag", tag);
  response.set_header("Last-Modified", date);
  response.set_header("Accept-Ranges", "bytes");

  const std::string known = request.get_header_value("If-None-Match");
  if (!known.empty() && (known == "*" || absl::StrContains(known, tag))) {
    response.status = 304;
    return absl::OkStatus();
  }
  const std::string condition = request.get_header_value("If-Range");
  const bool ranges_apply = condition.empty() || condition == tag || condition == date;
  const absl::StatusOr<std::optional<ByteRange>> range =
      ParseRange(ranges_apply ? request.get_header_value("Range") : "", size);
  if (!range.ok()) {
    response.status = 416;
    response.set_header("Content-Range", absl::StrCat("bytes */", size));
    return absl::OkStatus();
  }
  const ByteRange part = range->value_or(ByteRange{.offset = 0, .length = size});
  response.status = *range ? 206 : 200;
  if (*range) {
    response.set_header("Content-Range", absl::StrCat("bytes ", part.offset, "-",
                                                      part.offset + part.length - 1, "/", size));
  }
  if (part.length == 0) {
    response.set_content("", "application/octet-stream");
    return absl::OkStatus();
  }
  response.set_content_provider(part.length, "application/octet-stream",
                                [fd, part](size_t offset, size_t length, httplib::DataSink& sink) {
                                  return SendPiece(fd->get(), part.offset + offset, length, sink);
                                });
  return absl::OkStatus();
}

}  // namespace flowmesh::orchestrator
