#include "tests/chaos/gate.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace flowmesh::testing {
namespace {

absl::Duration Now() { return Clock::Real().Monotonic(); }

// Addresses of both kinds as the system takes them.
struct SocketAddress {
  explicit SocketAddress(const Endpoint& endpoint) {
    if (endpoint.is_unix()) {
      auto* un = reinterpret_cast<sockaddr_un*>(&storage);
      un->sun_family = AF_UNIX;
      std::strncpy(un->sun_path, endpoint.unix_path.c_str(), sizeof(un->sun_path) - 1);
      size = sizeof(sockaddr_un);
    } else {
      auto* in = reinterpret_cast<sockaddr_in*>(&storage);
      in->sin_family = AF_INET;
      in->sin_port = htons(static_cast<uint16_t>(endpoint.port));
      EXPECT_EQ(::inet_pton(AF_INET, endpoint.host.c_str(), &in->sin_addr), 1) << endpoint.host;
      size = sizeof(sockaddr_in);
    }
  }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }

  sockaddr_storage storage{};
  socklen_t size;
};

UniqueFd NewSocket(const Endpoint& endpoint) {
  const int family = endpoint.is_unix() ? AF_UNIX : AF_INET;
  return UniqueFd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// Small pieces go on their way at once; for a unix socket that is so anyhow.
void SetNoDelay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// The faults of `direction`, for a verb to change.
std::vector<Fault*> Of(Gate::Direction direction, Fault& forward, Fault& backward) {
  std::vector<Fault*> faults;
  if (direction != Gate::Direction::kBackward) faults.push_back(&forward);
  if (direction != Gate::Direction::kForward) faults.push_back(&backward);
  return faults;
}

}  // namespace

Gate::Gate(Endpoint target, const std::filesystem::path& listen)
    : target_(std::move(target)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  endpoint_.unix_path = listen;
  if (listen.empty()) endpoint_.host = "127.0.0.1";
  listener_ = Bind();
  EXPECT_EQ(::listen(listener_.get(), SOMAXCONN), 0);
  thread_ = std::thread([this] { Loop(); });
}

Gate::~Gate() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  const uint64_t one = 1;
  EXPECT_EQ(::write(wake_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  thread_.join();
}

size_t Gate::connections() const {
  absl::MutexLock lock(&mutex_);
  return marked_;
}

// --- Verbs ---------------------------------------------------------------------------------------

template <typename Change>
void Gate::Do(const Change& change) {
  absl::MutexLock lock(&mutex_);
  change();
  const uint64_t mine = ++asked_;
  const uint64_t one = 1;
  EXPECT_EQ(::write(wake_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  const auto in_force = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return done_ >= mine; };
  mutex_.Await(absl::Condition(&in_force));
}

void Gate::Only(std::string marker) {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { wanted_.marker = std::move(marker); });
}

void Gate::Pass() {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { wanted_ = Plan(); });
}

void Gate::Drop() {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { drop_ = true; });
}

void Gate::Refuse() {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { wanted_.refuse = true; });
}

void Gate::Delay(absl::Duration delay, Direction direction) {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Fault* fault : Of(direction, wanted_.forward, wanted_.backward)) fault->delay = delay;
  });
}

void Gate::Blackhole(Direction direction) {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Fault* fault : Of(direction, wanted_.forward, wanted_.backward)) fault->blackhole = true;
  });
}

void Gate::Corrupt(Direction direction) {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Fault* fault : Of(direction, wanted_.forward, wanted_.backward)) fault->corrupt = true;
  });
}

void Gate::CutAfter(uint64_t bytes, Direction direction) {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Fault* fault : Of(direction, wanted_.forward, wanted_.backward)) {
      fault->cut_after = bytes;
      fault->cut_round = asked_ + 1;
    }
  });
}

void Gate::Throttle(double bytes_per_second, Direction direction) {
  Do([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (Fault* fault : Of(direction, wanted_.forward, wanted_.backward)) {
      fault->bytes_per_second = bytes_per_second;
    }
  });
}

// --- The thread ----------------------------------------------------------------------------------

void Gate::Loop() {
  while (true) {
    Accept();
    Serve();
    bool changed = false;
    if (!TakePlan(changed)) return;
    if (changed) Serve();
    WaitForWork();
  }
}

void Gate::Serve() {
  const absl::Duration now = Now();
  open_.remove_if([&](Connection& connection) { return !Move(connection, now); });
  absl::MutexLock lock(&mutex_);
  CountMarked();
}

void Gate::CountMarked() {
  marked_ = static_cast<size_t>(
      std::count_if(open_.begin(), open_.end(), [](const auto& one) { return one.marked; }));
}

bool Gate::TakePlan(bool& changed) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return false;
  changed = done_ != asked_;
  if (!changed) return true;
  const bool refused = plan_.refuse;
  plan_ = wanted_;
  for (Connection& connection : open_) connection.marked = IsMarked(connection);
  if (std::exchange(drop_, false)) {
    open_.remove_if([](const Connection& connection) { return connection.marked; });
  }
  if (plan_.refuse && !refused) {
    open_.clear();
    // A socket that is bound and does not listen refuses, and keeps the port ours.
    UniqueFd bound = Bind();
    listener_ = std::move(bound);
  } else if (refused && !plan_.refuse) {
    EXPECT_EQ(::listen(listener_.get(), SOMAXCONN), 0);
  }
  CountMarked();
  done_ = asked_;
  return true;
}

bool Gate::IsMarked(const Connection& connection) const {
  return connection.forward.head().find(plan_.marker) != std::string::npos;
}

UniqueFd Gate::Bind() {
  UniqueFd fd = NewSocket(endpoint_);
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (endpoint_.is_unix()) {
    ::unlink(endpoint_.unix_path.c_str());
  } else {
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  }
  SocketAddress address(endpoint_);
  EXPECT_EQ(::bind(fd.get(), address.get(), address.size), 0)
      << endpoint_.Target() << ": " << std::strerror(errno);
  if (!endpoint_.is_unix()) {
    EXPECT_EQ(::getsockname(fd.get(), address.get(), &address.size), 0);
    endpoint_.port = ntohs(reinterpret_cast<sockaddr_in*>(address.get())->sin_port);
  }
  return fd;
}

// It may still be under way: writing waits for it then.
UniqueFd Gate::Connect() const {
  UniqueFd fd = NewSocket(target_);
  SocketAddress address(target_);
  if (::connect(fd.get(), address.get(), address.size) != 0 && errno != EINPROGRESS) {
    return UniqueFd();
  }
  SetNoDelay(fd.get());
  return fd;
}

void Gate::Accept() {
  if (plan_.refuse) return;
  while (true) {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!client.valid()) return;
    SetNoDelay(client.get());
    UniqueFd server = Connect();
    if (!server.valid()) continue;  // and whoever connected is hung up on
    const int from = client.get(), to = server.get();
    open_.push_back({std::move(client), std::move(server), Pipe(from, to), Pipe(to, from),
                     plan_.marker.empty()});
  }
}

const Fault& Gate::FaultOf(const Connection& connection, const Fault& fault) const {
  static const Fault kNone;
  return connection.marked ? fault : kNone;
}

bool Gate::Move(Connection& connection, absl::Duration now) const {
  const bool alive = connection.forward.Move(FaultOf(connection, plan_.forward), now) &&
                     connection.backward.Move(FaultOf(connection, plan_.backward), now) &&
                     !(connection.forward.finished() && connection.backward.finished());
  connection.marked = connection.marked || IsMarked(connection);
  return alive;
}

void Gate::WaitForWork() {
  std::vector<pollfd> waits = {{wake_.get(), POLLIN, 0}};
  if (!plan_.refuse) waits.push_back({listener_.get(), POLLIN, 0});
  absl::Duration due = absl::InfiniteDuration();
  // A socket that nothing is wanted of is left out: poll would tell of its end again and again.
  const auto add = [&waits](int fd, bool read, bool write) {
    const int events = (read ? POLLIN : 0) | (write ? POLLOUT : 0);
    if (events != 0) waits.push_back({fd, static_cast<short>(events), 0});
  };
  for (const Connection& connection : open_) {
    const Pipe &forward = connection.forward, &backward = connection.backward;
    add(connection.client.get(), forward.wants_to_read(FaultOf(connection, plan_.forward)),
        backward.wants_to_write());
    add(connection.server.get(), backward.wants_to_read(FaultOf(connection, plan_.backward)),
        forward.wants_to_write());
    due = std::min({due, forward.due(), backward.due()});
  }
  int timeout = -1;
  if (due != absl::InfiniteDuration()) {
    timeout = static_cast<int>(
        std::max<int64_t>(0, absl::ToInt64Milliseconds(due - Now() + absl::Microseconds(999))));
  }
  ::poll(waits.data(), waits.size(), timeout);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
}

}  // namespace flowmesh::testing
