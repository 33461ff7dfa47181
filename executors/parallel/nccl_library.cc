#include <dlfcn.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "executors/parallel/collectives.h"

namespace flowmesh::parallel {

absl::StatusOr<std::unique_ptr<Collectives>> LoadNccl(const StorePointer& store,
                                                      const GroupOptions& options) {
  std::error_code ignored;
  const std::filesystem::path beside_us =
      std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / kNcclLibrary;
  void* library = ::dlopen(beside_us.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* factory = library == nullptr ? nullptr : ::dlsym(library, kNcclFactory);
  if (factory == nullptr) {
    const char* problem = ::dlerror();  // null for a symbol that is there, but null
    return absl::FailedPreconditionError(absl::StrCat(
        "collectives between GPUs cannot be loaded: ",
        problem != nullptr ? problem : absl::StrCat(kNcclFactory, " is null").c_str()));
  }
  return std::unique_ptr<Collectives>(reinterpret_cast<NcclFactory>(factory)(store, options));
}

}  // namespace flowmesh::parallel
