// Frames of the rank protocol (proto/flowmesh/v1/rank.proto): a message's length as a 32-bit
// little-endian number, then the message. Both sides use this; it knows neither gRPC nor libtorch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"
#include "google/protobuf/message_lite.h"

namespace flowmesh::executor {

inline constexpr uint64_t kMaxFrameBytes = uint64_t{256} << 20;
inline constexpr size_t kFrameHeaderBytes = 4;

// The descriptor's number in a rank is in this variable.
inline constexpr char kRankFdVariable[] = "FLOWMESH_RANK_FD";
// The pid of the executor: a rank checks that its parent has not died before it could watch it.
inline constexpr char kRankParentVariable[] = "FLOWMESH_RANK_PARENT_PID";
// `cpu` or `cuda`: what the rank computes on.
inline constexpr char kRankDeviceVariable[] = "FLOWMESH_RANK_DEVICE";

// A whole frame. ResourceExhausted when the message is over kMaxFrameBytes.
absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message);

// Cuts a byte stream into frames, however the bytes arrive. Memory: at most one frame and what was
// fed beyond it; a frame's memory grows with the bytes received, never with a length merely
// announced. Not thread-safe.
class FrameDecoder {
 public:
  void Feed(std::string_view bytes);

  // The next whole message's bytes; nothing while it is incomplete. ResourceExhausted when the next
  // frame announces more than kMaxFrameBytes: the stream is then unusable.
  absl::StatusOr<std::optional<std::string>> Next();

  // Whether the stream may end here: no frame has begun.
  bool AtBoundary() const { return buffer_.size() == start_; }

 private:
  std::string buffer_;
  size_t start_ = 0;  // bytes before it are consumed
};

// One blocking read of a whole frame into `message`. NotFound: the peer closed between two frames.
// InvalidArgument: it closed within one, or the bytes are no such message. ResourceExhausted: too
// large. Unavailable: the system's error.
absl::Status ReadFrame(int fd, google::protobuf::MessageLite* message);

// Writes a whole frame, blocking. Not atomic between threads: callers serialise. ResourceExhausted:
// too large, nothing was written. Unavailable: the peer is gone.
absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message);

}  // namespace flowmesh::executor
