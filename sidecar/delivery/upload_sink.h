// For tests and benchmarks: a receiver of uploads and results that keeps no file, only its size and
// digest, and reads as slowly as it is told to.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/sha256.h"
#include "common/test_listener.h"

namespace flowmesh::sidecar {

class UploadSink {
 public:
  struct Received {
    bool is_file = false;  // by multipart/form-data; else a result
    uint64_t bytes = 0;
    std::string sha256;
    std::string body;  // of a result
  };

  UploadSink() {
    thread_ = std::thread([this] { Loop(); });
  }
  ~UploadSink() {
    ending_ = true;
    thread_.join();
  }

  int port() const { return listener_.port(); }

  // The statuses of the next answers to files; 200 after them.
  void AnswerFilesWith(std::vector<int> statuses) {
    absl::MutexLock lock(&mutex_);
    statuses_ = std::move(statuses);
  }
  // Called before each read.
  void BeforeRead(std::function<void()> pause) {
    absl::MutexLock lock(&mutex_);
    pause_ = std::move(pause);
  }
  // What came whole and was answered with 200, in its order.
  std::vector<Received> received() const {
    absl::MutexLock lock(&mutex_);
    return received_;
  }
  // Those that began, whole or not.
  int begun() const { return begun_; }

 private:
  void Loop() {
    std::vector<std::thread> connections;
    pollfd wait{listener_.fd(), POLLIN, 0};
    while (!ending_) {
      if (::poll(&wait, 1, 20) <= 0) continue;
      connections.emplace_back([this, fd = listener_.Accept().Release()] {
        const UniqueFd connection(fd);
        while (Serve(connection.get())) {
        }
      });
    }
    for (std::thread& connection : connections) connection.join();
  }

  // The next bytes, at most `size`; nothing at the end.
  std::string Read(int fd, size_t size) {
    std::function<void()> pause;
    {
      absl::MutexLock lock(&mutex_);
      pause = pause_;
    }
    if (pause) pause();
    pollfd wait{fd, POLLIN, 0};
    while (!ending_ && ::poll(&wait, 1, 20) <= 0) {
    }
    std::string bytes(size, '\0');
    const ssize_t n = ending_ ? 0 : ::recv(fd, bytes.data(), size, 0);
    bytes.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return bytes;
  }

  // One request and its answer. False when the connection is over.
  bool Serve(int fd) {
    std::string head;
    size_t end;
    while ((end = head.find("\r\n\r\n")) == std::string::npos) {
      const std::string more = Read(fd, 16 << 10);
      if (more.empty()) return false;
      head += more;
    }
    ++begun_;
    std::string body = head.substr(end + 4);
    head.resize(end + 2);
    uint64_t left = 0;
    if (!absl::SimpleAtoi(Header(head, "Content-Length"), &left)) return false;
    const std::string type = Header(head, "Content-Type");
    const bool is_file = absl::StartsWith(type, "multipart/form-data");
    Received got{.is_file = is_file};
    const bool whole = is_file
                           ? ReadFile(fd, body, left, type.substr(type.find("boundary=") + 9), got)
                           : ReadResult(fd, body, left, got);
    return whole && Answer(fd, got);
  }

  static std::string Header(const std::string& head, const std::string& name) {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }

  bool ReadResult(int fd, std::string body, uint64_t length, Received& got) {
    while (body.size() < length) {
      const std::string more = Read(fd, 64 << 10);
      if (more.empty()) return false;
      body += more;
    }
    got.bytes = body.size();
    got.body = std::move(body);
    return true;
  }

  // The file in between the part's header and the closing boundary, of a body of `length` bytes.
  bool ReadFile(int fd, std::string begin, uint64_t length, const std::string& boundary,
                Received& got) {
    while (begin.find("\r\n\r\n") == std::string::npos) {
      const std::string more = Read(fd, 4 << 10);
      if (more.empty()) return false;
      begin += more;
    }
    const size_t header = begin.find("\r\n\r\n") + 4;
    const uint64_t tail = absl::StrCat("\r\n--", boundary, "--\r\n").size();
    uint64_t left = length - begin.size();
    got.bytes = length - header - tail;
    Sha256 sha256;
    uint64_t to_hash = got.bytes;
    const auto hash = [&](std::string_view bytes) {
      bytes = bytes.substr(0, std::min<uint64_t>(to_hash, bytes.size()));
      sha256.Update(bytes);
      to_hash -= bytes.size();
    };
    hash(std::string_view(begin).substr(header));
    while (left > 0) {
      const std::string more = Read(fd, std::min<uint64_t>(left, 256 << 10));
      if (more.empty()) return false;
      hash(more);
      left -= more.size();
    }
    got.sha256 = sha256.Hex();
    return true;
  }

  bool Answer(int fd, Received& got) {
    int status = 200;
    {
      absl::MutexLock lock(&mutex_);
      if (got.is_file && !statuses_.empty()) {
        status = statuses_.front();
        statuses_.erase(statuses_.begin());
      }
      if (status == 200) received_.push_back(std::move(got));
    }
    const std::string answer =
        absl::StrCat("HTTP/1.1 ", status, " So\r\nContent-Length: 0\r\n\r\n");
    return ::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) > 0;
  }

  TestListener listener_;
  std::atomic<bool> ending_ = false;
  std::atomic<int> begun_ = 0;
  mutable absl::Mutex mutex_;
  std::vector<int> statuses_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> pause_ ABSL_GUARDED_BY(mutex_);
  std::vector<Received> received_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace flowmesh::sidecar
