// One direction of a connection through a gate.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace flowmesh::testing {

// What happens to the bytes of a direction; by default they pass.
struct Fault {
  bool blackhole = false;
  bool corrupt = false;
  absl::Duration delay;
  std::optional<double> bytes_per_second;
  std::optional<uint64_t> cut_after;  // bytes since `cut_round` changed
  uint64_t cut_round = 0;
};

// Takes bytes from one socket and gives them to another; neither may block. Owns neither.
class Pipe {
 public:
  Pipe(int from, int to) : from_(from), to_(to) {}

  // Moves what can be moved now. False: the connection is to be closed, because a socket broke or
  // the fault cuts it.
  bool Move(const Fault& fault, absl::Duration now);

  bool finished() const { return finished_; }  // the end of the bytes was passed on
  bool wants_to_read(const Fault& fault) const;
  bool wants_to_write() const { return blocked_; }
  // When Move has something to do although no socket is ready; infinite: never.
  absl::Duration due() const { return due_; }
  const std::string& head() const { return head_; }  // the first bytes taken

 private:
  struct Piece {
    absl::Duration due;
    std::string bytes;  // empty: the end
  };

  bool Read(const Fault& fault, absl::Duration now);
  bool Write(const Fault& fault, absl::Duration now);
  // How many bytes the throttle lets pass now; sets due_ when that is none.
  size_t Allowance(const Fault& fault, size_t wanted, absl::Duration now);

  const int from_, to_;
  std::deque<Piece> pieces_;
  size_t held_ = 0;  // bytes in pieces_
  std::string head_;
  bool ended_ = false;  // the end was read
  bool finished_ = false;
  bool blocked_ = false;
  absl::Duration due_ = absl::InfiniteDuration();
  uint64_t cut_round_ = 0;
  uint64_t passed_ = 0;  // since cut_round_ changed
  double tokens_ = 0;
  std::optional<absl::Duration> refilled_;
};

}  // namespace flowmesh::testing
