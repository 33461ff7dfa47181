// Writes folders that Transformers opens (TASKS.md 5.5): a trained model beside the files of the
// one that it started from.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "executors/model/checkpoint.h"
#include "executors/model/decoder.h"
#include "executors/model/safetensors_writer.h"

namespace flowmesh::model {

// A folder that gets its name when it is whole: Path() until Commit, then `folder`, in place of an
// older one. The destructor removes what was not committed.
class FolderInTheMaking {
 public:
  static absl::StatusOr<FolderInTheMaking> Create(const std::filesystem::path& folder);
  FolderInTheMaking(FolderInTheMaking&& other) noexcept;
  ~FolderInTheMaking();

  const std::filesystem::path& path() const { return temporary_; }
  absl::Status Commit();

 private:
  FolderInTheMaking(std::filesystem::path folder, std::filesystem::path temporary)
      : folder_(std::move(folder)), temporary_(std::move(temporary)) {}

  std::filesystem::path folder_, temporary_;  // temporary_ is empty once it is committed
};

// The stored form of a model's parameters: stacks taken apart, matrices turned as the family stores
// them. `tensor_of` gives each parameter's tensor, of its shape. A tied head is not stored.
std::vector<NamedTensor> StoredTensors(
    const ParameterList& parameters, const std::function<at::Tensor(const Parameter&)>& tensor_of);

// Into `folder`, which exists: weights of one dtype, config.json of the base with that dtype,
// generation_config.json and the tokenizer's files where the base has them. Those of a GGUF file
// are made from its metadata; Unimplemented: they cannot be (WriteConfig).
absl::Status WriteModelFiles(const std::filesystem::path& folder, const Checkpoint& base,
                             const std::vector<NamedTensor>& tensors);

// The tokenizer's files alone, those that there are.
absl::Status WriteTokenizerFiles(const Checkpoint& base, const std::filesystem::path& folder);

}  // namespace flowmesh::model
