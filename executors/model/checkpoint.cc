#include "executors/model/checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <new>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/files.h"
#include "common/json.h"
#include "executors/device/cuda_library.h"
#include "executors/kernels/few_rows.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 16u << 20;
constexpr int kBf16Capability = 8;  // from which on GPUs compute in bfloat16

// The names of the files in a folder, sorted.
std::vector<std::string> FileNames(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<Checkpoint> OpenGguf(const fs::path& path) {
  Checkpoint checkpoint;
  checkpoint.path = checkpoint.tokenizer = path;
  ASSIGN_OR_RETURN(checkpoint.gguf, GgufFile::Open(path));
  ASSIGN_OR_RETURN(checkpoint.config, ReadGgufConfig(*checkpoint.gguf));
  checkpoint.weights = MakeGgufSource(*checkpoint.gguf, checkpoint.config);
  return checkpoint;
}

// config.json and generation_config.json of a folder.
absl::StatusOr<ModelConfig> ReadFolderConfig(const fs::path& folder) {
  const fs::path config_path = folder / "config.json";
  ASSIGN_OR_RETURN(const Json document, ReadJsonFile(config_path));
  auto config = ParseConfig(Field(&document, ""));
  if (!config.ok()) return Annotate(config.status(), config_path.string());

  const fs::path generation_path = folder / "generation_config.json";
  std::error_code ignored;
  if (!fs::exists(generation_path, ignored)) return config;
  ASSIGN_OR_RETURN(const Json generation, ReadJsonFile(generation_path));
  const auto eos_ids = ParseEosIds(Field(&generation, ""));
  if (!eos_ids.ok()) return Annotate(eos_ids.status(), generation_path.string());
  config->eos_ids.insert(config->eos_ids.end(), eos_ids->begin(), eos_ids->end());
  return config;
}

absl::StatusOr<Checkpoint> OpenFolder(const fs::path& folder) {
  ASSIGN_OR_RETURN(const fs::path file, FindWeights(folder));
  if (file.extension() == ".gguf") return OpenGguf(file);
  Checkpoint checkpoint;
  checkpoint.path = checkpoint.tokenizer = folder;
  ASSIGN_OR_RETURN(checkpoint.config, ReadFolderConfig(folder));
  ASSIGN_OR_RETURN(std::unique_ptr<Safetensors> tensors, OpenSafetensors(file));
  checkpoint.weights =
      MakeSafetensorsSource(std::move(tensors), checkpoint.config, folder.string());
  return checkpoint;
}

}  // namespace

absl::StatusOr<Json> ReadJsonFile(const fs::path& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  auto document = ParseJson(text);
  if (!document.ok()) return Annotate(document.status(), path.string());
  return document;
}

absl::StatusOr<fs::path> FindWeights(const fs::path& folder) {
  const std::vector<std::string> names = FileNames(folder);
  const auto has = [&](const std::string& name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  for (const char* weights : {"model.safetensors", "model.safetensors.index.json"}) {
    if (has(weights)) return folder / weights;
  }
  std::vector<std::string> gguf_files, other_weights;
  for (const std::string& name : names) {
    if (absl::EndsWith(name, ".gguf")) gguf_files.push_back(name);
    for (const char* ending :
         {".bin", ".bin.index.json", ".pt", ".pth", ".h5", ".msgpack", ".safetensors"}) {
      if (absl::EndsWith(name, ending)) other_weights.push_back(name);
    }
  }
  if (gguf_files.size() == 1) return folder / gguf_files[0];
  constexpr char kNeeded[] = "model.safetensors, model.safetensors.index.json or one .gguf file";
  if (gguf_files.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": several GGUF files (",
                                                   absl::StrJoin(gguf_files, ", "),
                                                   "): give the path of one of them"));
  }
  if (!other_weights.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": found ",
                                                   absl::StrJoin(other_weights, ", "),
                                                   ", but needed is ", kNeeded));
  }
  return absl::NotFoundError(
      absl::StrCat(folder.string(), ": no model in this folder: looked for ", kNeeded));
}

absl::StatusOr<std::unique_ptr<Safetensors>> OpenSafetensors(const fs::path& file) {
  return file.extension() == ".json" ? Safetensors::OpenIndex(file) : Safetensors::OpenFile(file);
}

absl::StatusOr<Checkpoint> OpenCheckpoint(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": no such file or folder"));
  }
  if (fs::is_directory(path, ignored)) return OpenFolder(path);
  if (absl::EndsWith(path.string(), ".gguf")) return OpenGguf(path);
  return absl::InvalidArgumentError(
      absl::StrCat(path.string(), ": expected a model folder or a .gguf file"));
}

at::ScalarType ChooseDtype(const Checkpoint& checkpoint, const LoadOptions& options,
                           std::optional<int> capability) {
  if (options.dtype) return *options.dtype;
  const at::ScalarType stored = checkpoint.config.dtype;
  if (!options.device.is_cpu()) {
    if (stored != at::kFloat) return stored;
    return capability.value_or(kBf16Capability) < kBf16Capability ? at::kHalf : at::kBFloat16;
  }
  if (checkpoint.gguf == nullptr || stored != at::kBFloat16) return at::kFloat;
  return kernels::HasNativeBf16() ? at::kBFloat16 : at::kFloat;
}

absl::StatusOr<std::unique_ptr<Decoder>> LoadDecoder(const Checkpoint& checkpoint,
                                                     const LoadOptions& options,
                                                     std::vector<std::string>* warnings) {
  try {
    const at::NoGradGuard no_grad;
    const auto capability =
        options.device.is_cuda() ? device::ComputeCapability(options.device.index()) : std::nullopt;
    const Precision precision = {ChooseDtype(checkpoint, options, capability), options.autocast};
    std::unique_ptr<Decoder> model = MakeDecoder(checkpoint.config, precision, options.device);
    RETURN_IF_ERROR(model->Load(*checkpoint.weights, options, warnings));
    return model;
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat(checkpoint.path.string(), ": cannot load: ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat(checkpoint.path.string(), ": not enough memory for the weights"));
  }
}

absl::StatusOr<std::unique_ptr<CausalLm>> LoadCausalLm(const fs::path& path,
                                                       const LoadOptions& options,
                                                       std::vector<std::string>* warnings) {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenCheckpoint(path));
  return LoadDecoder(checkpoint, options, warnings);
}

}  // namespace flowmesh::model
