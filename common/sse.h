// Server-sent events (`text/event-stream`): bytes in, events out.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "common/status.h"

namespace flowmesh {

struct SseEvent {
  std::string type = "message";
  std::string data;  // lines joined by newlines
  std::string id;    // the last one that the stream gave, also to an event without
};

// One stream. Not thread-safe.
class SseParser {
 public:
  using OnEvent = std::function<absl::Status(const SseEvent& event)>;

  // An event's data and each line may have `max_event_bytes`.
  explicit SseParser(OnEvent on_event, size_t max_event_bytes = 8u << 20)
      : on_event_(std::move(on_event)), max_event_bytes_(max_event_bytes) {}

  // The stream's next bytes, cut anywhere. Calls on_event for each event that they complete; its
  // error ends the piece and is returned. ResourceExhausted: an event is too large.
  absl::Status Feed(std::string_view piece);

  // Whether the stream would end inside an event, which then is lost.
  bool is_inside_event() const { return !line_.empty() || has_data_; }

 private:
  absl::Status OnLine(std::string_view line);
  absl::Status Dispatch();
  absl::Status CheckSize(size_t bytes) const;

  const OnEvent on_event_;
  const size_t max_event_bytes_;
  SseEvent event_;
  bool has_data_ = false;
  bool is_first_line_ = true;
  bool after_carriage_return_ = false;  // whose line feed may follow
  std::string line_;                    // the beginning of a line
};

}  // namespace flowmesh
