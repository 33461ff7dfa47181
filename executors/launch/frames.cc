#include "executors/launch/frames.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace flowmesh::executor {
namespace {

// A frame's memory grows by at most this much ahead of the bytes received.
constexpr size_t kReadChunk = size_t{1} << 20;

void PutLength(uint32_t length, char* out) {
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) out[i] = static_cast<char>(length >> (8 * i));
}

uint32_t GetLength(const char* in) {
  uint32_t length = 0;
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) {
    length |= static_cast<uint32_t>(static_cast<unsigned char>(in[i])) << (8 * i);
  }
  return length;
}

absl::Status TooLarge(uint64_t bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("frame of ", bytes, " bytes; the limit is ", kMaxFrameBytes));
}

// Reads `size` bytes; fewer only at the end of the stream.
absl::StatusOr<size_t> ReadFully(int fd, char* out, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(fd, out + done, size - done);
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (got == 0 || errno == ECONNRESET) {
      break;
    } else if (errno != EINTR) {
      return absl::UnavailableError(absl::StrCat("cannot read a frame: ", std::strerror(errno)));
    }
  }
  return done;
}

}  // namespace

absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  if (size > kMaxFrameBytes) return TooLarge(size);
  std::string frame(kFrameHeaderBytes + size, '\0');
  PutLength(static_cast<uint32_t>(size), frame.data());
  message.SerializeWithCachedSizesToArray(
      reinterpret_cast<uint8_t*>(frame.data() + kFrameHeaderBytes));
  return frame;
}

void FrameDecoder::Feed(std::string_view bytes) {
  if (start_ > 0 && start_ >= buffer_.size() / 2) {
    buffer_.erase(0, start_);
    start_ = 0;
  }
  buffer_.append(bytes);
}

absl::StatusOr<std::optional<std::string>> FrameDecoder::Next() {
  const size_t available = buffer_.size() - start_;
  if (available < kFrameHeaderBytes) return std::nullopt;
  const uint64_t length = GetLength(buffer_.data() + start_);
  if (length > kMaxFrameBytes) return TooLarge(length);
  if (available - kFrameHeaderBytes < length) return std::nullopt;
  std::string message = buffer_.substr(start_ + kFrameHeaderBytes, length);
  start_ += kFrameHeaderBytes + length;
  if (start_ == buffer_.size()) {
    buffer_ = std::string();  // gives a large frame's memory back
    start_ = 0;
  }
  return message;
}

absl::Status ReadFrame(int fd, google::protobuf::MessageLite* message) {
  char header[kFrameHeaderBytes];
  ASSIGN_OR_RETURN(size_t got, ReadFully(fd, header, sizeof(header)));
  if (got == 0) return absl::NotFoundError("the peer has closed the connection");
  if (got < sizeof(header)) return absl::InvalidArgumentError("the stream ended within a frame");
  const uint64_t length = GetLength(header);
  if (length > kMaxFrameBytes) return TooLarge(length);
  std::string bytes;
  while (bytes.size() < length) {
    const size_t before = bytes.size();
    const size_t step = std::min<size_t>(kReadChunk, length - before);
    bytes.resize(before + step);
    ASSIGN_OR_RETURN(size_t read, ReadFully(fd, bytes.data() + before, step));
    if (read < step) return absl::InvalidArgumentError("the stream ended within a frame");
  }
  if (!message->ParseFromString(bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a frame of ", length, " bytes is no ", message->GetTypeName()));
  }
  return absl::OkStatus();
}

absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message) {
  ASSIGN_OR_RETURN(const std::string frame, EncodeFrame(message));
  size_t done = 0;
  while (done < frame.size()) {
    // MSG_NOSIGNAL: a closed peer is an error value here, never SIGPIPE.
    const ssize_t sent = ::send(fd, frame.data() + done, frame.size() - done, MSG_NOSIGNAL);
    if (sent > 0) {
      done += static_cast<size_t>(sent);
    } else if (sent < 0 && errno != EINTR) {
      return absl::UnavailableError(absl::StrCat("cannot write a frame: ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::executor
