#include "executors/model/safetensors_writer.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/files.h"
#include "common/json.h"

namespace flowmesh::model {
namespace {

constexpr uint64_t kAlignment = 8;           // of the first tensor, by spaces after the header
constexpr size_t kPiece = size_t{64} << 20;  // written at a time

const char* DtypeName(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return "BF16";
    case at::kHalf:
      return "F16";
    case at::kLong:
      return "I64";
    case at::kByte:
      return "U8";
    default:
      return "F32";
  }
}

}  // namespace

absl::Status WriteSafetensors(const std::filesystem::path& path,
                              const std::vector<NamedTensor>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t offset = 0;
  for (const NamedTensor& named : tensors) {
    const uint64_t end = offset + named.tensor.nbytes();
    header[named.name] = {{"dtype", DtypeName(named.tensor.scalar_type())},
                          {"shape", named.tensor.sizes().vec()},
                          {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = DumpJson(header);
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  std::string size(8, '\0');
  for (size_t i = 0; i < 8; ++i) size[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);

  ASSIGN_OR_RETURN(DotFile file, DotFile::Create(path));
  RETURN_IF_ERROR(file.Write(size));
  RETURN_IF_ERROR(file.Write(text));
  for (const NamedTensor& named : tensors) {
    const at::Tensor tensor = named.tensor.to(at::kCPU).contiguous();
    const std::string_view bytes(static_cast<const char*>(tensor.const_data_ptr()),
                                 tensor.nbytes());
    for (size_t begin = 0; begin < bytes.size(); begin += kPiece) {
      RETURN_IF_ERROR(file.Write(bytes.substr(begin, kPiece)));
    }
  }
  return file.Commit();
}

absl::Status WriteShardedSafetensors(const std::filesystem::path& folder,
                                     const std::vector<NamedTensor>& tensors,
                                     uint64_t max_shard_bytes) {
  std::vector<std::vector<NamedTensor>> shards;
  uint64_t total = 0, used = 0;
  for (const NamedTensor& named : tensors) {
    const uint64_t bytes = named.tensor.nbytes();
    if (shards.empty() || used + bytes > max_shard_bytes) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(named);
    used += bytes;
    total += bytes;
  }
  if (shards.size() <= 1) return WriteSafetensors(folder / "model.safetensors", tensors);
  Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", Json::object()}};
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
    RETURN_IF_ERROR(WriteSafetensors(folder / name, shards[i]));
    for (const NamedTensor& named : shards[i]) index["weight_map"][named.name] = name;
  }
  return WriteFileAtomically(folder / "model.safetensors.index.json", DumpJson(index, 2) + "\n");
}

}  // namespace flowmesh::model
