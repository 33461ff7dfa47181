#include "sidecar/delivery/model_archive.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/task_folder.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxNoteBytes = 1 << 20;

absl::Status Remove(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (!error) return absl::OkStatus();
  errno = error.value();
  return ErrnoError("cannot remove", path);
}

// Without a trailing slash: its last component is its name.
fs::path Normal(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

}  // namespace

ModelArchive::ModelArchive(const v1::OutputFile& file, const DeliveryUnit& unit)
    : unit_(unit),
      is_adapter_(file.kind() == v1::OutputFile::FINAL_LORA),
      prefix_(is_adapter_ ? "final_lora_archive" : "final_model_archive"),
      folder_(Normal(file.path())) {}

std::string ModelArchive::name() const {
  return absl::StrCat(folder_.filename().string(), ".tar.gz");
}

bool ModelArchive::is_wanted() const { return is_adapter_ || unit_.output.delivers(); }

bool ModelArchive::IsInside() const {
  std::error_code error;
  const fs::path parent = fs::canonical(folder_.parent_path(), error);
  if (error) return false;
  const fs::path dir = fs::canonical(unit_.dir, error);
  const fs::path below = parent.lexically_relative(dir);
  return !error && !below.empty() && *below.begin() != "..";
}

absl::StatusOr<ArchiveFile> ModelArchive::Make(const ArchiveOptions& options,
                                               const std::function<bool()>& is_cancelled) const {
  if (!IsInside()) {
    return absl::InvalidArgumentError(absl::StrCat("expected a folder inside ", unit_.dir.string(),
                                                   " to archive, got ", folder_.string()));
  }
  return MakeArchive(folder_, options, is_cancelled);
}

void ModelArchive::Forget(Json& result) const {
  for (const char* suffix : {"", "_path", "_bytes", "_sha256", "_url", "_uploaded", "_error"}) {
    result.erase(Key(suffix));
  }
}

void ModelArchive::SetMade(Json& result, const ArchiveFile& archive) const {
  Forget(result);
  result[Key("")] = name();
  result[Key("_path")] = archive.path.string();
}

void ModelArchive::SetUploaded(Json& result, const ArchiveFile& archive,
                               const std::string& link) const {
  result[Key("_bytes")] = archive.bytes;
  result[Key("_sha256")] = archive.sha256;
  result[Key("_url")] = link;
  result[Key("_uploaded")] = true;
}

void ModelArchive::SetFailed(Json& result, const absl::Status& status) const {
  result.erase(Key("_url"));
  result[Key("_error")] = Message(status);
  if (unit_.output.delivers()) result[Key("_uploaded")] = false;
}

fs::path ModelArchive::Note() const {
  return unit_.dir / kLogsDir / absl::StrCat(name(), ".uploaded.json");
}

bool ModelArchive::RestoreUploaded(Json& result, const std::string& link) const {
  std::error_code error;
  if (fs::exists(folder_, error) || error) return false;
  const absl::StatusOr<std::string> text = ReadFile(Note(), kMaxNoteBytes);
  const absl::StatusOr<Json> note = text.ok() ? ParseJson(*text) : text.status();
  if (!note.ok() || !note->is_object() || note->value(Key("_url"), Json()) != link) return false;
  Forget(result);
  result.update(*note);
  return true;
}

bool ModelArchive::IsCleanedUp() const {
  std::error_code error;
  return !fs::exists(folder_, error) && !error && fs::exists(Note(), error);
}

absl::Status ModelArchive::CleanUp(const Json& result) const {
  if (!IsInside()) return absl::OkStatus();  // it is gone already
  Json note = Json::object();
  for (const auto& [key, value] : result.items()) {
    if (key.rfind(prefix_, 0) == 0) note[key] = value;
  }
  RETURN_IF_ERROR(WriteFileAtomically(Note(), DumpJson(note, 2)));
  RETURN_IF_ERROR(Remove(folder_));
  return Remove(folder_.parent_path() / name());
}

}  // namespace flowmesh::sidecar
