#include "executors/rank/rank_link.h"

#include <sys/socket.h>

#include <utility>

#include "executors/launch/frames.h"

namespace flowmesh::rank {

RankLink::RankLink(UniqueFd socket, std::function<void(const absl::Status&)> on_lost)
    : socket_(std::move(socket)), on_lost_(std::move(on_lost)), reader_([this] { Read(); }) {}

RankLink::~RankLink() {
  closing_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);  // wakes the reading thread
  reader_.join();
}

void RankLink::Read() {
  while (true) {
    v1::ToRank message;
    const absl::Status status = executor::ReadFrame(socket_.get(), &message);
    if (closing_) return;
    if (!status.ok()) {
      Shutdown();
      on_lost_(status);
      return;
    }
    switch (message.kind_case()) {
      case v1::ToRank::kRun: {
        absl::MutexLock lock(&mutex_);
        tasks_.push_back(std::move(*message.mutable_run()));
        break;
      }
      case v1::ToRank::kStop:
        stopped_ = true;  // NextTask takes a late one back
        break;
      case v1::ToRank::kShutdown:
        Shutdown();
        break;
      case v1::ToRank::KIND_NOT_SET:
        break;  // a kind of a later version
    }
  }
}

std::optional<v1::RunTask> RankLink::NextTask() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &RankLink::HasTaskOrEnds));
  if (shutdown_) return std::nullopt;
  stopped_ = false;
  v1::RunTask task = std::move(tasks_.front());
  tasks_.pop_front();
  return task;
}

void RankLink::Shutdown() {
  absl::MutexLock lock(&mutex_);
  shutdown_ = true;
  stopped_ = true;
}

absl::Status RankLink::Send(const v1::FromRank& message) {
  absl::MutexLock lock(&write_mutex_);
  const absl::Status status = executor::WriteFrame(socket_.get(), message);
  return absl::IsResourceExhausted(status) ? status : absl::OkStatus();
}

}  // namespace flowmesh::rank
