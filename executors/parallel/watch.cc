#include "executors/parallel/watch.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/clock.h"

namespace flowmesh::parallel {
namespace {

constexpr absl::Duration kBeat = absl::Milliseconds(200);
// A rank without a new beat in this time is gone, or stopped.
constexpr absl::Duration kSilence = absl::Seconds(2);
// More than any caller keeps in flight.
constexpr size_t kRecent = 1024;

std::string KeyOf(int rank) { return absl::StrCat("flowmesh/rank/", rank); }

// The readable part: libtorch appends where an exception was raised.
std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string Watch::Collective::ToString() const {
  return absl::StrCat(kind, " #", sequence, " (", bytes, " bytes)");
}

Watch::Watch(StorePointer store, const GroupOptions& options, std::function<void()> abort)
    : options_(options), abort_(std::move(abort)), store_(std::move(store)) {
  Publish(/*left=*/false);
  thread_ = std::thread([this] { Loop(); });
}

Watch::~Watch() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
  Publish(/*left=*/true);
  if (options_.rank == 0 && !failure().ok()) LetOthersRead();
}

uint64_t Watch::Begin(const char* kind, int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  if (recent_.size() == kRecent) recent_.pop_front();
  recent_.push_back({.sequence = ++sequence_,
                     .kind = kind,
                     .bytes = bytes,
                     .began = Clock::Real().Monotonic(),
                     .done = nullptr});
  return sequence_;
}

void Watch::AbortWhenLate(uint64_t sequence, std::function<bool()> done) {
  absl::MutexLock lock(&mutex_);
  for (Collective& collective : recent_) {
    if (collective.sequence == sequence) collective.done = std::move(done);
  }
}

void Watch::Post(const std::string& key) {
  absl::MutexLock lock(&store_mutex_);
  store_->set(key, std::string("here"));
}

bool Watch::IsPosted(const std::string& key) {
  absl::MutexLock lock(&store_mutex_);
  return store_->check({key});
}

absl::Status Watch::failure() const {
  absl::MutexLock lock(&failure_mutex_);
  return failure_;
}

absl::Status Watch::Fail(uint64_t sequence, const std::string& what) {
  absl::MutexLock one_at_a_time(&diagnosis_mutex_);
  if (absl::Status known = failure(); !known.ok()) return known;
  absl::Status found = Diagnose(Find(sequence), what);
  absl::MutexLock lock(&failure_mutex_);
  failure_ = found;
  failed_sequence_ = sequence;
  return found;
}

Watch::Collective Watch::Find(uint64_t sequence) const {
  absl::MutexLock lock(&mutex_);
  for (const Collective& collective : recent_) {
    if (collective.sequence == sequence) return collective;
  }
  return {.sequence = sequence, .kind = "collective", .began = Clock::Real().Monotonic()};
}

// --- The thread ----------------------------------------------------------------------------------

void Watch::Loop() {
  if (options_.use_cuda) SelectDevice();
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (Clock::Real().Await(mutex_, absl::Condition(&stop_), kBeat)) return;
    }
    Publish(/*left=*/false);
    AbortLate();
  }
}

// The events of collectives are the rank's GPU's; a question to another one would take memory
// there.
void Watch::SelectDevice() {
  try {
    const c10::Device gpu(c10::kCUDA, static_cast<c10::DeviceIndex>(options_.device_index));
    c10::impl::VirtualGuardImpl(c10::kCUDA).setDevice(gpu);
  } catch (const std::exception&) {
    // Then the collectives themselves fail.
  }
}

void Watch::Publish(bool left) {
  Collective last;
  {
    absl::MutexLock lock(&mutex_);
    if (!recent_.empty()) last = recent_.back();
  }
  absl::MutexLock lock(&store_mutex_);
  const std::string note =
      absl::StrJoin({absl::StrCat(++beat_), std::string(left ? "left" : "here"),
                     absl::StrCat(last.sequence), last.ToString()},
                    "|");
  try {
    store_->set(KeyOf(options_.rank), note);
  } catch (const std::exception&) {
    // The store went with rank 0. Whoever waits for that rank learns of it.
  }
}

void Watch::AbortLate() {
  const absl::Duration now = Clock::Real().Monotonic();
  uint64_t failed = 0;
  std::string what = "it did not end";
  {
    absl::MutexLock lock(&mutex_);
    for (Collective& collective : recent_) {
      if (collective.done == nullptr) continue;
      bool is_done = false;
      try {
        is_done = collective.done();
      } catch (const std::exception& error) {
        what = error.what();
        failed = collective.sequence;
      }
      if (is_done || failed != 0) collective.done = nullptr;  // and with it, its tensors
      if (!is_done && now - collective.began > options_.timeout) failed = collective.sequence;
      if (failed != 0) break;
    }
  }
  if (failed == 0 || !failure().ok()) return;
  (void)Fail(failed, what);
  try {
    abort_();
  } catch (const std::exception&) {
    // The group has its error already.
  }
}

// --- The diagnosis -------------------------------------------------------------------------------

std::vector<Watch::Note> Watch::ReadNotes() {
  std::vector<Note> notes(static_cast<size_t>(options_.world_size));
  absl::MutexLock lock(&store_mutex_);
  for (int rank = 0; rank < options_.world_size; ++rank) {
    if (!store_->check({KeyOf(rank)})) continue;
    const std::vector<std::string> parts =
        absl::StrSplit(store_->get_to_str(KeyOf(rank)), absl::MaxSplits('|', 3));
    Note& note = notes[static_cast<size_t>(rank)];
    if (parts.size() != 4 || !absl::SimpleAtoi(parts[0], &note.beat) ||
        !absl::SimpleAtoi(parts[2], &note.sequence)) {
      continue;
    }
    note.left = parts[1] == "left";
    note.collective = note.sequence == 0 ? "none" : parts[3];
  }
  return notes;
}

bool Watch::Others(const std::function<bool(size_t rank)>& predicate) const {
  for (int rank = 0; rank < options_.world_size; ++rank) {
    if (rank != options_.rank && !predicate(static_cast<size_t>(rank))) return false;
  }
  return true;
}

absl::Status Watch::Diagnose(const Collective& stuck, const std::string& what) {
  const bool late = Clock::Real().Monotonic() - stuck.began >= options_.timeout;
  const std::string failed = late ? absl::StrCat(stuck.ToString(), " did not finish within ",
                                                 absl::FormatDuration(options_.timeout))
                                  : absl::StrCat(stuck.ToString(), " failed");
  std::vector<Note> before, after;
  try {
    before = after = ReadNotes();
    const absl::Duration start = Clock::Real().Monotonic();
    const auto shows_life = [&](size_t rank) {
      return after[rank].left || after[rank].beat != before[rank].beat;
    };
    while (!Others(shows_life) && Clock::Real().Monotonic() - start < kSilence) {
      absl::SleepFor(kBeat);
      after = ReadNotes();
    }
  } catch (const std::exception&) {
    return absl::AbortedError(
        absl::StrCat(failed, ": rank 0 is gone or stopped, and with it the store of the group"));
  }
  std::vector<std::string> causes, left;
  bool gone = false;
  Others([&](size_t rank) {
    const Note& note = after[rank];
    const std::string last = absl::StrCat(" (its last: ", note.collective, ")");
    if (!note.left && note.beat == before[rank].beat) {
      gone = true;
      causes.push_back(absl::StrCat("rank ", rank, " is gone or stopped (last heard of at ",
                                    note.collective, ")"));
    } else if (note.sequence < stuck.sequence) {
      gone |= note.left;
      causes.push_back(
          absl::StrCat("rank ", rank, note.left ? " has left the group" : " has not come", last));
    } else if (note.sequence == stuck.sequence && note.collective != stuck.ToString()) {
      causes.push_back(absl::StrCat("rank ", rank, " is at another one, ", note.collective));
    } else if (note.left) {
      // It came, so it is no cause while there is another: it may have failed for the same one.
      left.push_back(absl::StrCat("rank ", rank, " has left the group", last));
    }
    return true;
  });
  if (causes.empty()) causes = left;
  const std::string text =
      absl::StrCat(failed, ": ", causes.empty() ? FirstLine(what) : absl::StrJoin(causes, ", "));
  if (late && !gone) return absl::DeadlineExceededError(text);
  return causes.empty() ? absl::InternalError(text) : absl::AbortedError(text);
}

void Watch::LetOthersRead() {
  const absl::Duration start = Clock::Real().Monotonic();
  uint64_t failed = 0;
  {
    absl::MutexLock lock(&failure_mutex_);
    failed = failed_sequence_;
  }
  std::vector<Note> notes;
  // Who has not come to the stuck collective does not wait for it either.
  const auto needs_nothing = [&](size_t rank) {
    return notes[rank].left || notes[rank].sequence < failed;
  };
  try {
    notes = ReadNotes();
    while (!Others(needs_nothing) && Clock::Real().Monotonic() - start < kSilence + kBeat) {
      absl::SleepFor(kBeat);
      notes = ReadNotes();
    }
  } catch (const std::exception&) {
    // Then nobody can read it.
  }
}

}  // namespace flowmesh::parallel
