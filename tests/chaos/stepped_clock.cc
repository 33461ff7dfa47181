// Preloaded into a program, it steps the program's wall clock, as an administrator or a time
// service does with the machine's: CLOCK_REALTIME is off by the nanoseconds in the file
// STEPPED_CLOCK_FILE, an int64 that a test may change at any time. The monotonic clock stays.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace {

constexpr int64_t kSecond = 1000000000;
// How soon a wait notices a step.
constexpr int64_t kSlice = kSecond / 100;

int64_t Offset() {
  static const std::atomic<int64_t>* const offset = [] {
    const char* path = ::getenv("STEPPED_CLOCK_FILE");
    const int fd = path == nullptr ? -1 : ::open(path, O_RDONLY | O_CLOEXEC);
    void* mapped = ::mmap(nullptr, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) ::abort();
    return static_cast<const std::atomic<int64_t>*>(mapped);
  }();
  return offset->load();
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

int64_t ToNanoseconds(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }
timespec ToTimespec(int64_t nanoseconds) {
  return {.tv_sec = nanoseconds / kSecond, .tv_nsec = nanoseconds % kSecond};
}

using Syscall = long (*)(long, ...);
using ClockGettime = int (*)(clockid_t, timespec*);

int64_t SteppedNow() {
  static const auto next = Next<ClockGettime>("clock_gettime");
  timespec now;
  next(CLOCK_REALTIME, &now);
  return ToNanoseconds(now) + Offset();
}

// A wait until a time on the wall clock, as the kernel does it: a step makes it longer or shorter.
long WaitUntil(Syscall next, long word, long value, int64_t deadline, long bits) {
  while (true) {
    const int64_t left = deadline - SteppedNow();
    if (left <= 0) {
      errno = ETIMEDOUT;
      return -1;
    }
    timespec until;
    ::clock_gettime(CLOCK_MONOTONIC, &until);
    until = ToTimespec(ToNanoseconds(until) + (left < kSlice ? left : kSlice));
    const long result =
        next(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, &until, nullptr, bits);
    if (result == 0 || errno != ETIMEDOUT) return result;
  }
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) {
  static const auto next = Next<ClockGettime>("clock_gettime");
  const int result = next(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) *time = ToTimespec(ToNanoseconds(*time) + Offset());
  return result;
}

int gettimeofday(timeval* time, void*) {
  const timespec now = ToTimespec(SteppedNow());
  *time = {.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  return 0;
}

time_t time(time_t* out) {
  const time_t now = SteppedNow() / kSecond;
  if (out != nullptr) *out = now;
  return now;
}

// Abseil's locks call the kernel by this.
long syscall(long number, ...) {
  static const auto next = Next<Syscall>("syscall");
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  const auto* timeout = reinterpret_cast<const timespec*>(a[3]);
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) != 0 && timeout != nullptr) {
    return WaitUntil(next, a[0], a[2], ToNanoseconds(*timeout), a[5]);
  }
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

}  // extern "C"
