// Tells which rank keeps the others waiting. Each rank notes its last collective in the group's
// store, with a beat that shows that it lives; when a collective fails here, the notes of the
// others say who has not come, who is elsewhere, and who is gone. A collective that cannot end by
// itself (on a GPU) is aborted when its time is over.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/status.h"
#include "executors/parallel/collectives.h"

namespace flowmesh::parallel {

// Any thread.
class Watch {
 public:
  // `store` is for the watch alone. `abort` ends what waits; called once, on the watch's thread.
  Watch(StorePointer store, const GroupOptions& options, std::function<void()> abort);
  // Notes that this rank has left. After a failure the rank that holds the store gives the others
  // a moment to read it first.
  ~Watch();

  // A collective begins: gives its number, from 1 on.
  uint64_t Begin(const char* kind, int64_t bytes);
  // From now on it is aborted when `done` is still false after its time, or throws.
  void AbortWhenLate(uint64_t sequence, std::function<bool()> done);

  // Collective `sequence` failed with the backend's text: the group's error from now on, with what
  // is known of the other ranks. Takes some beats of time. Keeps to the first error.
  absl::Status Fail(uint64_t sequence, const std::string& what);

  // Words between ranks, by way of the store. Throw when that is gone.
  void Post(const std::string& key);
  bool IsPosted(const std::string& key);

  // The first error, if there was one.
  absl::Status failure() const;

 private:
  struct Collective {
    uint64_t sequence = 0;
    std::string kind;
    int64_t bytes = 0;
    absl::Duration began;  // monotonic
    std::function<bool()> done;
    std::string ToString() const;
  };
  // What a rank says of itself in the store.
  struct Note {
    uint64_t beat = 0;  // 0: it has said nothing yet
    bool left = false;
    uint64_t sequence = 0;
    std::string collective;  // its last one
  };

  void Loop();
  void SelectDevice();
  void Publish(bool left);
  void AbortLate();
  bool Others(const std::function<bool(size_t rank)>& predicate) const;
  std::vector<Note> ReadNotes();
  absl::Status Diagnose(const Collective& stuck, const std::string& what);
  void LetOthersRead();
  Collective Find(uint64_t sequence) const;

  const GroupOptions options_;
  const std::function<void()> abort_;

  absl::Mutex store_mutex_;
  const StorePointer store_ ABSL_PT_GUARDED_BY(store_mutex_);
  uint64_t beat_ ABSL_GUARDED_BY(store_mutex_) = 0;

  mutable absl::Mutex mutex_;
  // The last ones: before one falls out, many have begun behind it that are late with it.
  std::deque<Collective> recent_ ABSL_GUARDED_BY(mutex_);
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;

  absl::Mutex diagnosis_mutex_;  // one at a time; taken before the others
  mutable absl::Mutex failure_mutex_;
  absl::Status failure_ ABSL_GUARDED_BY(failure_mutex_);
  uint64_t failed_sequence_ ABSL_GUARDED_BY(failure_mutex_) = 0;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace flowmesh::parallel
