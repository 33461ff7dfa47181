#include "executors/data/arrow_reader.h"

#include <dlfcn.h>

#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "executors/data/arrow_library.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;

// Beside the program, or in the `lib` beside its folder.
absl::StatusOr<ReadArrowFunction> OpenLibrary() {
  std::error_code ignored;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  std::string problem = "it was built without Arrow's libraries (./dev setup installs them)";
  for (const fs::path& path :
       {folder / kArrowLibrary, folder.parent_path() / "lib" / kArrowLibrary}) {
    if (!fs::exists(path, ignored)) continue;
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      problem = ::dlerror();
      continue;
    }
    if (void* symbol = ::dlsym(library, kReadArrowSymbol); symbol != nullptr) {
      return reinterpret_cast<ReadArrowFunction>(symbol);
    }
    problem = absl::StrCat(path.string(), " lacks ", kReadArrowSymbol);
  }
  return absl::FailedPreconditionError(
      absl::StrCat("this worker cannot read Parquet and Arrow files: ", problem));
}

}  // namespace

absl::StatusOr<Table> ReadArrow(const fs::path& path, bool is_parquet, const std::string& name) {
  static const absl::StatusOr<ReadArrowFunction> read = OpenLibrary();
  if (!read.ok()) return Annotate(read.status(), name);
  std::vector<Json> rows;
  std::string error;
  Table table{.files = {name}};
  if (!(*read)(path.string(), is_parquet, table.columns, rows, error)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": expected a whole ",
                                                   is_parquet ? "Parquet" : "Arrow",
                                                   " file, got one that cannot be read: ", error));
  }
  for (Json& row : rows) table.Add(std::move(row), 0);
  return table;
}

}  // namespace flowmesh::data
