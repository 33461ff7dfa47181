#include "executors/model/overlay.h"

#include "absl/strings/str_cat.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool HasTokenizer(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "vocab.json", "vocab.txt"}) {
    if (Exists(folder / name)) return true;
  }
  return false;
}

absl::StatusOr<OverlayKind> RecogniseFolder(const fs::path& folder) {
  const auto weights = FindWeights(folder);
  if (!weights.ok()) {
    if (Exists(folder / "adapter_config.json")) return OverlayKind::kAdapter;
    return weights.status();
  }
  if (weights->extension() == ".gguf") return OverlayKind::kWhole;
  if (!Exists(folder / "config.json")) return OverlayKind::kWeights;
  return HasTokenizer(folder) ? OverlayKind::kWhole : OverlayKind::kModel;
}

}  // namespace

absl::StatusOr<OverlayKind> RecogniseOverlay(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return RecogniseFolder(path);
  if (path.extension() == ".gguf") return OverlayKind::kWhole;
  for (const char* ending : {".bin", ".pt", ".pth", ".h5", ".msgpack"}) {
    if (path.extension() != ending) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("found ", path.string(), ", but needed is a .safetensors or .gguf file"));
  }
  return OverlayKind::kWeights;
}

absl::StatusOr<Checkpoint> OpenOverlay(const fs::path& path, OverlayKind kind, Checkpoint base) {
  switch (kind) {
    case OverlayKind::kWhole:
      return OpenCheckpoint(path);
    case OverlayKind::kModel: {
      ASSIGN_OR_RETURN(Checkpoint checkpoint, OpenCheckpoint(path));
      checkpoint.tokenizer = base.tokenizer;
      return checkpoint;
    }
    case OverlayKind::kWeights: {
      std::error_code ignored;
      const bool is_folder = fs::is_directory(path, ignored);
      ASSIGN_OR_RETURN(const fs::path file, is_folder ? FindWeights(path) : path);
      ASSIGN_OR_RETURN(std::unique_ptr<Safetensors> tensors, OpenSafetensors(file));
      base.weights = MakeSafetensorsSource(std::move(tensors), base.config, path.string());
      break;
    }
    case OverlayKind::kAdapter:
      break;
  }
  if (HasTokenizer(path)) base.tokenizer = path;
  return base;
}

}  // namespace flowmesh::model
