#include "tests/chaos/gate_pipe.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace flowmesh::testing {
namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kMaxHeld = 256 << 10;
constexpr size_t kMaxHead = 4 << 10;
// A throttle lets so much time's worth of bytes pass at once.
constexpr absl::Duration kBurst = absl::Milliseconds(20);

bool WouldBlock() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

bool Pipe::wants_to_read(const Fault& fault) const {
  return !fault.blackhole && !ended_ && held_ < kMaxHeld;
}

bool Pipe::Move(const Fault& fault, absl::Duration now) {
  if (fault.cut_round != cut_round_) {
    cut_round_ = fault.cut_round;
    passed_ = 0;
  }
  if (!fault.bytes_per_second) refilled_.reset();
  due_ = absl::InfiniteDuration();
  blocked_ = false;
  if (fault.blackhole || finished_) return true;
  if (wants_to_read(fault) && !Read(fault, now)) return false;
  return Write(fault, now);
}

bool Pipe::Read(const Fault& fault, absl::Duration now) {
  char buffer[kReadBytes];
  const ssize_t got = ::recv(from_, buffer, sizeof(buffer), 0);
  if (got < 0) return WouldBlock();
  std::string bytes(buffer, static_cast<size_t>(got));
  head_.append(bytes, 0, kMaxHead - std::min(kMaxHead, head_.size()));
  if (fault.corrupt && !bytes.empty()) bytes[0] = static_cast<char>(~bytes[0]);
  ended_ = bytes.empty();
  held_ += bytes.size();
  pieces_.push_back({now + fault.delay, std::move(bytes)});
  return true;
}

size_t Pipe::Allowance(const Fault& fault, size_t wanted, absl::Duration now) {
  if (!fault.bytes_per_second) return wanted;
  const double rate = *fault.bytes_per_second;
  if (!refilled_) tokens_ = 0;
  tokens_ += rate * absl::ToDoubleSeconds(now - refilled_.value_or(now));
  tokens_ = std::min(tokens_, std::max(1.0, rate * absl::ToDoubleSeconds(kBurst)));
  refilled_ = now;
  const size_t allowed = std::min(wanted, static_cast<size_t>(tokens_));
  if (allowed == 0) due_ = now + absl::Seconds((1 - tokens_) / rate);
  return allowed;
}

bool Pipe::Write(const Fault& fault, absl::Duration now) {
  while (!pieces_.empty()) {
    Piece& piece = pieces_.front();
    if (piece.due > now) {
      due_ = piece.due;
      return true;
    }
    if (piece.bytes.empty()) {
      ::shutdown(to_, SHUT_WR);
      finished_ = true;
      return true;
    }
    size_t size = Allowance(fault, piece.bytes.size(), now);
    if (fault.cut_after) {
      size = std::min<uint64_t>(size, *fault.cut_after - std::min(*fault.cut_after, passed_));
    }
    if (size > 0) {
      const ssize_t sent = ::send(to_, piece.bytes.data(), size, MSG_NOSIGNAL);
      if (sent < 0) return blocked_ = WouldBlock();
      passed_ += static_cast<uint64_t>(sent);
      held_ -= static_cast<size_t>(sent);
      if (fault.bytes_per_second) tokens_ -= static_cast<double>(sent);
      piece.bytes.erase(0, static_cast<size_t>(sent));
      if (piece.bytes.empty()) pieces_.pop_front();
    }
    if (fault.cut_after && passed_ >= *fault.cut_after) return false;
    if (size == 0) return true;
  }
  return true;
}

}  // namespace flowmesh::testing
