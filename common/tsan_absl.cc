// Part of builds with the thread sanitizer alone: tells it of Abseil's locks and counted
// references. Debian's Abseil is built without the sanitizer, so that all they guard would look
// like a race. The functions here stand in front of the library's, call them, and say when memory
// is handed over. Those that this project does not call are left out.
#include <dlfcn.h>

#include <cstdlib>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}

namespace {

// The library's function behind one of ours; `kSymbol` is its mangled name.
template <const char* kSymbol, typename Result, typename... Arguments>
Result CallNext(const void* self, Arguments... arguments) {
  using Function = Result (*)(const void*, Arguments...);
  static const auto next = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, kSymbol));
  if (next == nullptr) std::abort();
  return next(self, arguments...);
}

void Acquire(const void* self) { __tsan_acquire(const_cast<void*>(self)); }
void Release(const void* self) { __tsan_release(const_cast<void*>(self)); }

// A condition that whoever holds the lock evaluates: its waiter inside the library, or a thread
// that is about to unlock.
struct Watched {
  static bool Eval(const Watched* watched) {
    Acquire(watched->mutex);
    const bool holds = watched->condition->Eval();
    Release(watched->mutex);
    return holds;
  }

  const absl::Mutex* mutex;
  const absl::Condition* condition;
};

constexpr char kLock[] = "_ZN4absl7debian35Mutex4LockEv";
constexpr char kTryLock[] = "_ZN4absl7debian35Mutex7TryLockEv";
constexpr char kUnlock[] = "_ZN4absl7debian35Mutex6UnlockEv";
constexpr char kReaderLock[] = "_ZN4absl7debian35Mutex10ReaderLockEv";
constexpr char kReaderUnlock[] = "_ZN4absl7debian35Mutex12ReaderUnlockEv";
constexpr char kAwait[] = "_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE";
constexpr char kAwaitWithTimeout[] =
    "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE";
constexpr char kNotify[] = "_ZN4absl7debian312Notification6NotifyEv";
constexpr char kWait[] = "_ZNK4absl7debian312Notification19WaitForNotificationEv";
constexpr char kWaitWithTimeout[] =
    "_ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE";
constexpr char kUnref[] = "_ZN4absl7debian36Status15UnrefNonInlinedEm";

}  // namespace

void absl::Mutex::Lock() {
  CallNext<kLock, void>(this);
  Acquire(this);
}

bool absl::Mutex::TryLock() {
  const bool locked = CallNext<kTryLock, bool>(this);
  if (locked) Acquire(this);
  return locked;
}

void absl::Mutex::Unlock() {
  Release(this);
  CallNext<kUnlock, void>(this);
}

void absl::Mutex::ReaderLock() {
  CallNext<kReaderLock, void>(this);
  Acquire(this);
}

void absl::Mutex::ReaderUnlock() {
  Release(this);
  CallNext<kReaderUnlock, void>(this);
}

void absl::Mutex::Await(const Condition& condition) {
  const Watched watched{this, &condition};
  const Condition watching(&Watched::Eval, &watched);
  Release(this);
  CallNext<kAwait, void>(this, &watching);
  Acquire(this);
}

bool absl::Mutex::AwaitWithTimeout(const Condition& condition, absl::Duration timeout) {
  const Watched watched{this, &condition};
  const Condition watching(&Watched::Eval, &watched);
  Release(this);
  const bool holds = CallNext<kAwaitWithTimeout, bool>(this, &watching, timeout);
  Acquire(this);
  return holds;
}

void absl::Notification::Notify() {
  Release(this);
  CallNext<kNotify, void>(this);
}

void absl::Notification::WaitForNotification() const {
  CallNext<kWait, void>(this);
  Acquire(this);
}

bool absl::Notification::WaitForNotificationWithTimeout(absl::Duration timeout) const {
  const bool notified = CallNext<kWaitWithTimeout, bool>(this, timeout);
  Acquire(this);
  return notified;
}

// Whoever gives the last reference up deletes what the others have read.
void absl::Status::UnrefNonInlined(uintptr_t rep) {
  const auto* shared = reinterpret_cast<const void*>(rep);
  Release(shared);
  Acquire(shared);
  CallNext<kUnref, void>(shared);
}
