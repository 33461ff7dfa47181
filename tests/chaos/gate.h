// A gate between two processes: whoever connects to it is connected to the target, and a test
// decides what becomes of the bytes.
//
//   Gate gate({.host = "127.0.0.1", .port = redis.port()});
//   ...  // a program with gate.endpoint() as the address of Redis
//   gate.Only("SUBSCRIBE");
//   gate.Blackhole();
//   ...
//   gate.Pass();
#pragma once

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/endpoint.h"
#include "common/files.h"
#include "tests/chaos/gate_pipe.h"

namespace flowmesh::testing {

// Thread-safe. Each verb is in force when it returns, for open connections and new ones, beside the
// verbs before it, until Pass. One thread moves the bytes.
class Gate {
 public:
  enum class Direction { kForward, kBackward, kBoth };  // forward: from whoever connected

  // Listens on a free loopback port, or on a unix socket where `listen` is a path. Target and
  // listener are of any kind.
  explicit Gate(Endpoint target, const std::filesystem::path& listen = {});
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  const Endpoint& endpoint() const { return endpoint_; }
  // Open connections whose bytes the next verb would concern.
  size_t connections() const;

  // The verbs that follow concern only connections whose first 4 KiB forward hold `marker`.
  void Only(std::string marker);
  // Ends all faults and Only. What was kept back goes on its way.
  void Pass();
  // Closes the connections, once.
  void Drop();
  // Closes the connections and refuses new ones, whatever Only says.
  void Refuse();
  // Each byte arrives `delay` after it was sent.
  void Delay(absl::Duration delay, Direction direction = Direction::kBoth);
  // Keeps everything back, the ends of connections too; nobody is told.
  void Blackhole(Direction direction = Direction::kBoth);
  // Inverts the first byte of each piece.
  void Corrupt(Direction direction = Direction::kBoth);
  // Closes a connection after `bytes` more of a direction.
  void CutAfter(uint64_t bytes, Direction direction = Direction::kBoth);
  void Throttle(double bytes_per_second, Direction direction = Direction::kBoth);

 private:
  struct Connection {
    UniqueFd client, server;
    Pipe forward, backward;
    bool marked = false;  // has sent the marker
  };
  struct Plan {
    std::string marker;
    bool refuse = false;
    Fault forward, backward;
  };

  // Changes the plan, and waits until the thread goes by it.
  template <typename Change>
  void Do(const Change& change);
  void Loop();
  // The wanted plan is in force from now on; false: to end.
  bool TakePlan(bool& changed);
  void Accept();
  void Serve();
  // False: the connection is over.
  bool Move(Connection& connection, absl::Duration now) const;
  void CountMarked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsMarked(const Connection& connection) const;
  void WaitForWork();
  UniqueFd Bind();
  UniqueFd Connect() const;
  const Fault& FaultOf(const Connection& connection, const Fault& fault) const;

  const Endpoint target_;
  Endpoint endpoint_;
  const UniqueFd wake_;  // an eventfd

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Plan wanted_ ABSL_GUARDED_BY(mutex_);
  bool drop_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t asked_ ABSL_GUARDED_BY(mutex_) = 0;  // how many changes there were
  uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;   // how many of them are in force
  size_t marked_ ABSL_GUARDED_BY(mutex_) = 0;

  // The thread's own.
  Plan plan_;
  UniqueFd listener_;  // bound, and listening unless the plan refuses
  std::list<Connection> open_;
  std::thread thread_;
};

}  // namespace flowmesh::testing
