// A real HTTP server on a free loopback port, for tests of what speaks HTTP.
#pragma once

#include <gtest/gtest.h>
#include <httplib.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace flowmesh {

// Answers every request with `handler` (from threads of its own) and keeps what it was sent.
class TestHttpServer {
 public:
  using Handler = httplib::Server::Handler;

  // `port` 0: a free one. An answer without a status is a 200.
  explicit TestHttpServer(Handler handler, int port = 0) : handler_(std::move(handler)) {
    const Handler keep = [this](const httplib::Request& request, httplib::Response& reply) {
      {
        absl::MutexLock lock(&mutex_);
        requests_.push_back(request);
      }
      reply.status = 200;
      handler_(request, reply);
    };
    server_.Get(".*", keep).Post(".*", keep).Put(".*", keep).Patch(".*", keep).Delete(".*", keep);
    server_.set_keep_alive_max_count(1);  // the end waits for no idle connection
    port_ = port == 0                                 ? server_.bind_to_any_port("127.0.0.1")
            : server_.bind_to_port("127.0.0.1", port) ? port
                                                      : -1;
    EXPECT_GT(port_, 0);
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();  // stop() before that would be lost
  }

  ~TestHttpServer() {
    server_.stop();
    thread_.join();
  }

  std::string url(const std::string& path = "") const {
    return absl::StrCat("http://127.0.0.1:", port_, path);
  }

  // Those that came so far, in their order.
  std::vector<httplib::Request> requests() const {
    absl::MutexLock lock(&mutex_);
    return requests_;
  }

 private:
  const Handler handler_;
  httplib::Server server_;
  std::thread thread_;
  int port_ = -1;
  mutable absl::Mutex mutex_;
  std::vector<httplib::Request> requests_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace flowmesh
