#include "common/sse.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace flowmesh {

absl::Status SseParser::CheckSize(size_t bytes) const {
  if (bytes <= max_event_bytes_) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("an event of the stream is larger than ", max_event_bytes_, " bytes"));
}

absl::Status SseParser::Feed(std::string_view piece) {
  while (!piece.empty()) {
    if (after_carriage_return_) {
      after_carriage_return_ = false;
      if (piece.front() == '\n') piece.remove_prefix(1);
      continue;
    }
    const size_t end = piece.find_first_of("\r\n");
    RETURN_IF_ERROR(CheckSize(line_.size() + std::min(end, piece.size())));
    line_.append(piece.substr(0, end));
    if (end == std::string_view::npos) break;
    after_carriage_return_ = piece[end] == '\r';
    piece.remove_prefix(end + 1);
    const std::string line = std::exchange(line_, "");
    RETURN_IF_ERROR(OnLine(line));
  }
  return absl::OkStatus();
}

absl::Status SseParser::OnLine(std::string_view line) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (std::exchange(is_first_line_, false) && line.starts_with(kByteOrderMark)) {
    line.remove_prefix(kByteOrderMark.size());
  }
  if (line.empty()) return Dispatch();
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);  // empty: a comment
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "data") {
    RETURN_IF_ERROR(CheckSize(event_.data.size() + value.size()));
    if (std::exchange(has_data_, true)) event_.data += '\n';
    event_.data += value;
  } else if (name == "event") {
    event_.type = value;
  } else if (name == "id" && value.find('\0') == std::string_view::npos) {
    event_.id = value;
  }
  return absl::OkStatus();
}

absl::Status SseParser::Dispatch() {
  SseEvent event{.id = event_.id};
  std::swap(event, event_);
  if (!std::exchange(has_data_, false)) return absl::OkStatus();  // nothing but a type
  if (event.type.empty()) event.type = "message";
  return on_event_(event);
}

}  // namespace flowmesh
