// Preloaded into a program: while the file that BLOCKED_DISK names exists, whatever the program
// writes to files or syncs waits, as on a disk that does not answer.
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace {

void WaitForDisk(int fd) {
  struct stat info;
  const char* order = std::getenv("BLOCKED_DISK");
  if (order == nullptr || ::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return;
  while (::access(order, F_OK) == 0) ::usleep(10'000);
}

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int fsync(int fd) {
  WaitForDisk(fd);
  return Real<int(int)>("fsync")(fd);
}
extern "C" int fdatasync(int fd) {
  WaitForDisk(fd);
  return Real<int(int)>("fdatasync")(fd);
}
extern "C" ssize_t write(int fd, const void* bytes, size_t size) {
  WaitForDisk(fd);
  return Real<ssize_t(int, const void*, size_t)>("write")(fd, bytes, size);
}
extern "C" ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t at) {
  WaitForDisk(fd);
  return Real<ssize_t(int, const void*, size_t, off64_t)>("pwrite64")(fd, bytes, size, at);
}
// The log's.
extern "C" int fflush(FILE* file) {
  if (file != nullptr) WaitForDisk(::fileno(file));
  return Real<int(FILE*)>("fflush")(file);
}
