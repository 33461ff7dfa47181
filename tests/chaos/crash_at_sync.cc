// Preloaded into the sidecar: kills it, as kill -9 does, at a chosen write to disk. While the file
// that CRASH_AT_SYNC names exists, calls of fsync and fdatasync are counted; it holds
// `<n> before` or `<n> after`: the call at which the process ends, and whether that call still
// takes effect.
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<int> calls{0};

int Sync(const char* name, int fd) {
  const auto real = reinterpret_cast<int (*)(int)>(::dlsym(RTLD_NEXT, name));
  const char* order = std::getenv("CRASH_AT_SYNC");
  FILE* file = order == nullptr ? nullptr : std::fopen(order, "re");
  if (file == nullptr) return real(fd);
  int at = 0;
  char when[16] = "";
  const bool read = std::fscanf(file, "%d %15s", &at, when) == 2;
  std::fclose(file);
  if (!read || ++calls != at) return real(fd);
  if (std::strcmp(when, "after") == 0) real(fd);
  ::kill(::getpid(), SIGKILL);
  return -1;
}

}  // namespace

extern "C" int fsync(int fd) { return Sync("fsync", fd); }
extern "C" int fdatasync(int fd) { return Sync("fdatasync", fd); }
