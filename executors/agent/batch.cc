#include "executors/agent/batch.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/files.h"

namespace flowmesh::agent {
namespace {

constexpr absl::Duration kLookAround = absl::Milliseconds(50);

// The tasks' threads, and what they say, which the calling thread passes on.
class Batch {
 public:
  Batch(const Assistant& assistant, const std::vector<std::string>& tasks,
        const BatchOptions& options)
      : assistant_(assistant), tasks_(tasks), options_(options), ends_(tasks.size()) {}

  absl::StatusOr<std::vector<TaskEnd>> Run() {
    const size_t count = std::min(tasks_.size(), static_cast<size_t>(options_.concurrency));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < count; ++i) threads.emplace_back([this] { Work(); });
    Listen();
    for (std::thread& thread : threads) thread.join();
    if (stopped_) return absl::CancelledError("cancelled");
    return std::move(ends_);
  }

 private:
  struct Event {
    size_t task;
    std::string text;
    bool is_line;
  };

  // In a task's thread.
  void Work() {
    for (size_t i; !stopped_ && (i = next_++) < tasks_.size();) {
      const absl::Duration begin = Clock::Real().Monotonic();
      ends_[i].answer = Guarded(i);
      ends_[i].seconds = absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin);
      absl::MutexLock lock(&mutex_);
      ++finished_;
    }
    absl::MutexLock lock(&mutex_);
    ++gone_;
  }

  absl::StatusOr<std::string> Guarded(size_t i) {
    try {
      return One(i);
    } catch (const std::exception& e) {  // of memory, and what the standard library throws
      return absl::InternalError(e.what());
    }
  }

  absl::StatusOr<std::string> One(size_t i) {
    const std::string name = absl::StrCat("task_", i + 1);
    const std::filesystem::path workspace =
        tasks_.size() == 1 ? options_.workspaces : options_.workspaces / name;
    RETURN_IF_ERROR(MakeDirectories(workspace));
    Transcript transcript(options_.logs / (name + ".jsonl"), options_.secrets,
                          [&](const std::string& line) {
                            Push({i, line, true});
                          });
    const RunContext context{.tools = {.workspace = workspace,
                                       .deadline = Clock::Real().Monotonic() + options_.timeout,
                                       .is_stopped = [this] { return stopped_.load(); }},
                             .transcript = &transcript,
                             .on_step = [&](const std::string& step) {
                               Push({i, step, false});
                             }};
    absl::StatusOr<std::string> answer = assistant_.Run(tasks_[i], context);
    std::error_code ignored;
    std::filesystem::remove(workspace, ignored);  // when nothing is in it
    ends_[i].usage = transcript.usage();
    ends_[i].model_calls = transcript.replies();
    if (!answer.ok()) {
      answer =
          absl::Status(answer.status().code(), transcript.WithoutSecrets(Message(answer.status())));
      transcript.Line(absl::StrCat("failed: ", answer.status().message()));
    }
    if (!transcript.status().ok()) {
      transcript.Line(absl::StrCat("the transcript is not whole: ", transcript.status().message()));
    }
    return answer;
  }

  void Push(Event event) {
    absl::MutexLock lock(&mutex_);
    events_.push_back(std::move(event));
  }

  // In the calling thread, until all others are gone.
  void Listen() {
    const size_t threads = std::min(tasks_.size(), static_cast<size_t>(options_.concurrency));
    for (bool is_over = false; !is_over;) {
      std::vector<Event> events;
      size_t finished = 0;
      {
        absl::MutexLock lock(&mutex_);
        const auto has_news = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return !events_.empty() || gone_ == threads;
        };
        mutex_.AwaitWithTimeout(absl::Condition(&has_news), kLookAround);
        events.swap(events_);
        finished = finished_;
        is_over = gone_ == threads;
      }
      if (options_.is_stopped && options_.is_stopped()) stopped_ = true;
      for (const Event& event : events) {
        if (event.is_line && options_.on_line) options_.on_line(event.task, event.text);
        if (!event.is_line && options_.on_step) options_.on_step(event.task, event.text, finished);
      }
    }
  }

  const Assistant& assistant_;
  const std::vector<std::string>& tasks_;
  const BatchOptions& options_;
  std::vector<TaskEnd> ends_;  // each of its own thread
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stopped_ = false;
  absl::Mutex mutex_;
  std::vector<Event> events_ ABSL_GUARDED_BY(mutex_);
  size_t finished_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t gone_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

absl::StatusOr<std::vector<TaskEnd>> RunBatch(const Assistant& assistant,
                                              const std::vector<std::string>& tasks,
                                              const BatchOptions& options) {
  RETURN_IF_ERROR(MakeDirectories(options.logs));
  absl::StatusOr<std::vector<TaskEnd>> ends = Batch(assistant, tasks, options).Run();
  std::error_code ignored;
  std::filesystem::remove(options.workspaces, ignored);  // when nothing is in it
  return ends;
}

}  // namespace flowmesh::agent
