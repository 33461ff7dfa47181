// For tests: a server that is as rude as a test wants it.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/test_listener.h"

namespace flowmesh {

// Serves one connection after the other: reads a request's head, calls the handler with it, sends
// what that returns as it is, and closes.
class RawServer {
 public:
  using Handler = std::function<std::string(const std::string& head)>;

  explicit RawServer(Handler handler) : handler_(std::move(handler)) {
    thread_ = std::thread([this] { Loop(); });
  }
  ~RawServer() {
    ending_ = true;
    thread_.join();
  }

  std::string url(const std::string& path = "") const {
    return absl::StrCat("http://127.0.0.1:", listener_.port(), path);
  }
  int requests() const { return requests_; }

 private:
  bool WaitFor(int fd) {
    pollfd wait{fd, POLLIN, 0};
    while (!ending_) {
      if (::poll(&wait, 1, 20) > 0) return true;
    }
    return false;
  }

  void Loop() {
    while (WaitFor(listener_.fd())) {
      const UniqueFd connection = listener_.Accept();
      std::string head;
      char buffer[4096];
      while (head.find("\r\n\r\n") == std::string::npos && WaitFor(connection.get())) {
        const ssize_t n = ::recv(connection.get(), buffer, sizeof(buffer), 0);
        if (n <= 0) break;
        head.append(buffer, static_cast<size_t>(n));
      }
      ++requests_;
      const std::string answer = handler_(head);
      for (size_t sent = 0; sent < answer.size();) {
        const ssize_t n =
            ::send(connection.get(), answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<size_t>(n);
      }
    }
  }

  const Handler handler_;
  TestListener listener_;
  std::atomic<bool> ending_ = false;
  std::atomic<int> requests_ = 0;
  std::thread thread_;
};

}  // namespace flowmesh
