// GGUF version 3 files: typed metadata, and tensors as they lie in the file (quantised or not).
// The whole file is checked when it is opened, so that what is read from it later is in bounds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/status.h"
#include "executors/model/mapped_file.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::model {

// The tensor types that are read; their numbers are those of the file format.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ5_0 = 6,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

// Weights are stored in blocks along the fastest dimension.
struct GgufBlock {
  int64_t weights = 1;
  int64_t bytes = 4;
};
GgufBlock BlockOf(GgufType type);

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<int64_t> shape;  // slowest dimension first, as in torch (the file has the reverse)
  std::span<const std::byte> data;  // inside the mapped file

  int64_t num_weights() const;
};

// Immutable after Open; thread-safe.
class GgufFile {
 public:
  // NotFound: no such file. InvalidArgument, naming the file and the key or tensor: another magic
  // or version, truncated, counts or lengths beyond the file's end, duplicate names, a tensor of an
  // unsupported type, misaligned, out of bounds or overlapping another.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const MappedFile& file() const { return *file_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* FindTensor(std::string_view name) const;  // null when there is none

  bool Has(std::string_view key) const;
  // Metadata by key. InvalidArgument `<file>: <key>: expected an integer, got a string`, also when
  // the key is absent. Integers of any width are integers, and numbers too.
  absl::StatusOr<int64_t> Int(std::string_view key) const;
  absl::StatusOr<double> Number(std::string_view key) const;
  absl::StatusOr<bool> Bool(std::string_view key) const;
  absl::StatusOr<std::string> String(std::string_view key) const;
  absl::StatusOr<std::vector<std::string>> StringList(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> IntList(std::string_view key) const;
  absl::StatusOr<std::vector<double>> NumberList(std::string_view key) const;

 private:
  // The numbers of the file format.
  enum class ValueType : uint32_t {
    kUint8 = 0,
    kInt8 = 1,
    kUint16 = 2,
    kInt16 = 3,
    kUint32 = 4,
    kInt32 = 5,
    kFloat32 = 6,
    kBool = 7,
    kString = 8,
    kArray = 9,
    kUint64 = 10,
    kInt64 = 11,
    kFloat64 = 12,
  };
  // One metadata value, still encoded; its extent has been checked.
  struct Value {
    ValueType type = ValueType::kUint8;  // of the elements, for a list
    bool is_list = false;
    uint64_t count = 1;
    std::span<const std::byte> data;
  };
  class Parser;

  explicit GgufFile(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}

  static size_t SizeOf(ValueType type);  // 0: strings and lists
  static bool IsInteger(ValueType type);
  static std::string Describe(const Value* value);
  static int64_t DecodeInt(ValueType type, const std::byte* data);
  static double DecodeNumber(ValueType type, const std::byte* data);
  const Value* FindValue(std::string_view key) const;
  absl::Status Expected(std::string_view key, std::string_view what) const;

  std::unique_ptr<MappedFile> file_;
  std::unordered_map<std::string, Value> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> tensor_index_;  // keys point into tensors_
};

// The tokenizer part of the metadata (`tokenizer.ggml.*`, `tokenizer.chat_template`).
// InvalidArgument: it is absent, or a key has another type.
absl::StatusOr<text::GgufVocabulary> ReadGgufVocabulary(const GgufFile& file);

}  // namespace flowmesh::model
