#include "sidecar/archive/archiver.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "sidecar/archive/external.h"
#include "sidecar/archive/hashed_file.h"
#include "sidecar/archive/parallel_gzip.h"
#include "sidecar/archive/tar_stream.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

int Threads(const ArchiveOptions& options) {
  if (options.threads > 0) return options.threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

absl::Status Tar(const fs::path& folder, const ArchiveOptions& options, const ByteSink& sink,
                 const std::function<bool()>& is_cancelled, std::vector<std::string>& skipped) {
  if (!options.tar_program.empty()) {
    return RunTar(options.tar_program, folder, sink, is_cancelled, skipped);
  }
  return WriteTar(
      folder,
      [&](std::string_view bytes) {
        return is_cancelled && is_cancelled() ? absl::CancelledError("cancelled") : sink(bytes);
      },
      skipped);
}

absl::Status TarAndGzip(const fs::path& folder, const ArchiveOptions& options, const ByteSink& sink,
                        const std::function<bool()>& is_cancelled,
                        std::vector<std::string>& skipped) {
  const auto write_to = [](auto& stage) {
    return [&stage](std::string_view bytes) { return stage.Write(bytes); };
  };
  if (options.gzip_program.empty()) {
    ParallelGzip gzip(options.level, Threads(options), sink);
    RETURN_IF_ERROR(Tar(folder, options, write_to(gzip), is_cancelled, skipped));
    return gzip.Finish();
  }
  ASSIGN_OR_RETURN(Filter gzip,
                   Filter::Start({options.gzip_program, "-c", absl::StrCat("-", options.level),
                                  "-p", absl::StrCat(Threads(options))},
                                 sink, is_cancelled));
  RETURN_IF_ERROR(Tar(folder, options, write_to(gzip), is_cancelled, skipped));
  return gzip.Finish();
}

absl::StatusOr<ArchiveFile> MakeOnce(const fs::path& folder, const ArchiveOptions& options,
                                     const std::function<bool()>& is_cancelled) {
  ArchiveFile archive;
  archive.path = absl::StrCat(folder.string(), ".tar.gz");
  ASSIGN_OR_RETURN(HashedFile file, HashedFile::Create(archive.path));
  RETURN_IF_ERROR(TarAndGzip(
      folder, options, [&](std::string_view bytes) { return file.Write(bytes); }, is_cancelled,
      archive.skipped));
  RETURN_IF_ERROR(file.Commit());
  archive.bytes = file.bytes();
  archive.sha256 = file.sha256();
  return archive;
}

}  // namespace

absl::StatusOr<ArchiveFile> MakeArchive(const fs::path& folder, const ArchiveOptions& options,
                                        const std::function<bool()>& is_cancelled) {
  // Absolute and without a trailing slash: the archive stands beside it.
  fs::path path = fs::absolute(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  absl::StatusOr<ArchiveFile> archive = MakeOnce(path, options, is_cancelled);
  const bool external = !options.tar_program.empty() || !options.gzip_program.empty();
  if (!archive.ok() && external && !absl::IsCancelled(archive.status())) {
    LogWarning("{}: archived without external programs: {}", path.string(),
               Message(archive.status()));
    archive = MakeOnce(path, {.level = options.level, .threads = options.threads}, is_cancelled);
  }
  if (!archive.ok()) return archive;
  for (const std::string& name : archive->skipped) {
    LogWarning("{}: {} is no file, directory or inner link and stays out", path.string(), name);
  }
  return archive;
}

}  // namespace flowmesh::sidecar
