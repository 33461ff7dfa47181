#include "executors/device/allocator.h"

#include <malloc.h>

#include <limits>

namespace flowmesh::device {

void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc takes
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 64 << 20);
}

void ReturnFreedMemory() { malloc_trim(0); }

}  // namespace flowmesh::device
