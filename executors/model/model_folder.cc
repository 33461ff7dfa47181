#include "executors/model/model_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/text/gguf_export.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxShardBytes = 5'000'000'000;
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "vocab.txt",
                                           "tokenizer.model",
                                           "chat_template.json",
                                           "chat_template.jinja",
                                           "additional_chat_templates/tool_use.jinja"};

absl::Status SyncFolder(const fs::path& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return ErrnoError("cannot sync", folder);
  return absl::OkStatus();
}

absl::Status CopyIfThere(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (!fs::exists(from, error)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string content, ReadFile(from));
  RETURN_IF_ERROR(MakeDirectories(to.parent_path()));
  return WriteFileAtomically(to, content);
}

std::string DtypeName(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bfloat16";
  return dtype == at::kHalf ? "float16" : "float32";
}

// Transformers' class for a configuration that does not name one.
std::string ArchitectureOf(Family family) {
  switch (family) {
    case Family::kGpt2:
      return "GPT2LMHeadModel";
    case Family::kLlama:
      return "LlamaForCausalLM";
    case Family::kMistral:
      return "MistralForCausalLM";
    case Family::kQwen2:
      return "Qwen2ForCausalLM";
    case Family::kQwen3:
      return "Qwen3ForCausalLM";
    case Family::kGemma2:
      return "Gemma2ForCausalLM";
    case Family::kGemma3:
      break;
  }
  return "Gemma3ForCausalLM";
}

// What config.json says of the model that was trained.
absl::StatusOr<Json> BaseConfig(const Checkpoint& base) {
  if (base.gguf == nullptr) {
    ASSIGN_OR_RETURN(Json config, ReadJsonFile(base.path / "config.json"));
    if (config.contains("text_config"))
      config = Json(config["text_config"]);  // the text part alone
    return config;
  }
  auto config = WriteConfig(base.config);
  if (!config.ok()) return Annotate(config.status(), base.path.string());
  for (const auto& [key, stored] : {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                    std::pair{"pad_token_id", "tokenizer.ggml.padding_token_id"}}) {
    if (!base.gguf->Has(stored)) continue;
    ASSIGN_OR_RETURN((*config)[key], base.gguf->Int(stored));
  }
  return config;
}

}  // namespace

absl::StatusOr<FolderInTheMaking> FolderInTheMaking::Create(const fs::path& folder) {
  RETURN_IF_ERROR(MakeDirectories(folder.parent_path()));
  RemoveDotNames(folder);
  const fs::path temporary = DotName(folder);
  RETURN_IF_ERROR(MakeDirectories(temporary));
  return FolderInTheMaking(folder, temporary);
}

FolderInTheMaking::FolderInTheMaking(FolderInTheMaking&& other) noexcept
    : folder_(std::move(other.folder_)), temporary_(std::exchange(other.temporary_, fs::path())) {}

FolderInTheMaking::~FolderInTheMaking() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

absl::Status FolderInTheMaking::Commit() {
  RETURN_IF_ERROR(SyncFolder(temporary_));
  std::error_code error;
  // The older one makes way under a name that a later run removes.
  const fs::path old = DotName(folder_);
  if (fs::exists(folder_, error)) fs::rename(folder_, old, error);
  fs::rename(temporary_, folder_, error);
  if (error) {
    return absl::InternalError(
        absl::StrCat("cannot rename ", temporary_.string(), ": ", error.message()));
  }
  temporary_.clear();
  fs::remove_all(old, error);
  return SyncFolder(folder_.parent_path());
}

std::vector<NamedTensor> StoredTensors(
    const ParameterList& parameters, const std::function<at::Tensor(const Parameter&)>& tensor_of) {
  std::vector<NamedTensor> stored;
  for (const Parameter& parameter : parameters.all()) {
    const at::Tensor tensor = tensor_of(parameter);
    int64_t row = 0;
    for (const StoredName& part : parameter.parts) {
      const at::Tensor rows = tensor.narrow(0, row, part.shape[0]);
      stored.push_back({part.name, part.transposed ? rows.t() : rows});
      row += part.shape[0];
    }
  }
  return stored;
}

absl::Status WriteModelFiles(const fs::path& folder, const Checkpoint& base,
                             const std::vector<NamedTensor>& tensors) {
  ASSIGN_OR_RETURN(Json config, BaseConfig(base));
  config["architectures"] = {ArchitectureOf(base.config.family)};
  const auto is_head = [](const NamedTensor& one) { return one.name == "lm_head.weight"; };
  if (std::any_of(tensors.begin(), tensors.end(), is_head)) config["tie_word_embeddings"] = false;
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] =
      DtypeName(tensors[0].tensor.scalar_type());
  RETURN_IF_ERROR(WriteShardedSafetensors(folder, tensors, kMaxShardBytes));
  RETURN_IF_ERROR(WriteFileAtomically(folder / "config.json", DumpJson(config, 2) + "\n"));
  if (base.gguf == nullptr) {
    RETURN_IF_ERROR(
        CopyIfThere(base.path / "generation_config.json", folder / "generation_config.json"));
  }
  return WriteTokenizerFiles(base, folder);
}

absl::Status WriteTokenizerFiles(const Checkpoint& base, const fs::path& folder) {
  if (base.tokenizer.extension() == ".gguf") {
    ASSIGN_OR_RETURN(text::GgufVocabulary vocabulary, ReadTokenizerVocabulary(base));
    const auto files = text::ExportGgufTokenizer(std::move(vocabulary), base.config.max_positions);
    if (!files.ok()) return Annotate(files.status(), base.tokenizer.string());
    RETURN_IF_ERROR(WriteFileAtomically(folder / "tokenizer.json", files->tokenizer_json));
    return WriteFileAtomically(folder / "tokenizer_config.json", files->tokenizer_config_json);
  }
  for (const char* name : kTokenizerFiles) {
    RETURN_IF_ERROR(CopyIfThere(base.tokenizer / name, folder / name));
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::model
