#include "executors/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh::model {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF", little-endian
constexpr uint32_t kVersion = 3;
constexpr uint32_t kMaxDimensions = 4;
constexpr uint64_t kMaxNameBytes = 1024;

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

std::string TypeName(uint32_t type) {
  static constexpr const char* kNames[] = {
      "F32",     "F16",    "Q4_0",    "Q4_1",  "Q4_2",   "Q4_3",  "Q5_0",  "Q5_1",
      "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
      "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
      "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16"};
  if (type < std::size(kNames)) return kNames[type];
  return absl::StrCat("number ", type);
}

bool IsSupported(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kF32:
    case GgufType::kF16:
    case GgufType::kQ4_0:
    case GgufType::kQ5_0:
    case GgufType::kQ8_0:
    case GgufType::kQ4_K:
    case GgufType::kQ5_K:
    case GgufType::kQ6_K:
    case GgufType::kBF16:
      return true;
  }
  return false;
}

}  // namespace

GgufBlock BlockOf(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return {1, 4};
    case GgufType::kF16:
    case GgufType::kBF16:
      return {1, 2};
    case GgufType::kQ4_0:
      return {32, 18};
    case GgufType::kQ5_0:
      return {32, 22};
    case GgufType::kQ8_0:
      return {32, 34};
    case GgufType::kQ4_K:
      return {256, 144};
    case GgufType::kQ5_K:
      return {256, 176};
    case GgufType::kQ6_K:
      return {256, 210};
  }
  return {1, 4};
}

int64_t GgufTensor::num_weights() const {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

// Reads the file from front to back. Every method fails rather than passing the end.
class GgufFile::Parser {
 public:
  explicit Parser(GgufFile* gguf) : gguf_(*gguf), bytes_(gguf->file_->bytes()) {}

  absl::Status Run() {
    RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < num_values_; ++i) RETURN_IF_ERROR(ReadEntry(i));
    RETURN_IF_ERROR(ReadAlignment());
    for (uint64_t i = 0; i < num_tensors_; ++i) RETURN_IF_ERROR(ReadTensorInfo(i));
    RETURN_IF_ERROR(PlaceTensors());
    return CheckOverlaps();
  }

 private:
  absl::Status Error(std::string_view text) const {
    return absl::InvalidArgumentError(absl::StrCat(gguf_.path().string(), ": ", ToAbsl(text)));
  }

  absl::Status Truncated(std::string_view what) const {
    return Error(absl::StrCat("truncated: ", ToAbsl(what), " goes beyond the end of the file (",
                              bytes_.size(), " bytes)"));
  }

  uint64_t left() const { return bytes_.size() - at_; }

  absl::StatusOr<std::span<const std::byte>> Take(uint64_t size, std::string_view what) {
    if (size > left()) return Truncated(what);
    const std::span<const std::byte> part = bytes_.subspan(at_, size);
    at_ += size;
    return part;
  }

  template <typename T>
  absl::StatusOr<T> Read(std::string_view what) {
    ASSIGN_OR_RETURN(const std::span<const std::byte> part, Take(sizeof(T), what));
    return Load<T>(part.data());
  }

  absl::StatusOr<std::string> ReadName(std::string_view what) {
    ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
    if (size > kMaxNameBytes) {
      return Error(absl::StrCat(ToAbsl(what), ": a name of ", size, " bytes, at most ",
                                kMaxNameBytes, " are allowed"));
    }
    ASSIGN_OR_RETURN(const std::span<const std::byte> part, Take(size, what));
    return std::string(reinterpret_cast<const char*>(part.data()), part.size());
  }

  absl::Status ReadHeader() {
    if (bytes_.size() < sizeof kMagic || Load<uint32_t>(bytes_.data()) != kMagic) {
      return Error("not a GGUF file");
    }
    at_ = sizeof kMagic;
    ASSIGN_OR_RETURN(const uint32_t version, Read<uint32_t>("the header"));
    if (version != kVersion) {
      return Error(absl::StrCat("GGUF version ", version, ", only version ", kVersion,
                                " (little-endian) is supported"));
    }
    ASSIGN_OR_RETURN(num_tensors_, Read<uint64_t>("the header"));
    ASSIGN_OR_RETURN(num_values_, Read<uint64_t>("the header"));
    // The shortest entries: an empty key with a byte; an empty name of no dimension.
    constexpr uint64_t kMinValueBytes = 8 + 4 + 1, kMinTensorBytes = 8 + 4 + 4 + 8;
    if (num_values_ > left() / kMinValueBytes) {
      return Truncated(absl::StrCat("a table of ", num_values_, " metadata values"));
    }
    if (num_tensors_ > left() / kMinTensorBytes) {
      return Truncated(absl::StrCat("a table of ", num_tensors_, " tensors"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadEntry(uint64_t index) {
    ASSIGN_OR_RETURN(std::string key, ReadName(absl::StrCat("metadata key ", index)));
    ASSIGN_OR_RETURN(uint32_t type, Read<uint32_t>(key));
    Value value;
    if (static_cast<ValueType>(type) == ValueType::kArray) {
      value.is_list = true;
      ASSIGN_OR_RETURN(type, Read<uint32_t>(key));
      ASSIGN_OR_RETURN(value.count, Read<uint64_t>(key));
    }
    value.type = static_cast<ValueType>(type);
    if (type > static_cast<uint32_t>(ValueType::kFloat64) || value.type == ValueType::kArray) {
      return Error(absl::StrCat(key, ": unsupported value type ", type));
    }
    const uint64_t begin = at_;
    if (const size_t size = SizeOf(value.type); size != 0) {
      if (value.count > left() / size) return Truncated(key);
      at_ += value.count * size;
    } else {
      if (value.count > left() / sizeof(uint64_t)) return Truncated(key);
      for (uint64_t i = 0; i < value.count; ++i) {
        ASSIGN_OR_RETURN(const uint64_t length, Read<uint64_t>(key));
        RETURN_IF_ERROR(Take(length, key).status());
      }
    }
    value.data = bytes_.subspan(begin, at_ - begin);
    if (!gguf_.metadata_.emplace(key, value).second) {
      return Error(absl::StrCat(key, ": the key occurs twice"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadAlignment() {
    if (!gguf_.Has("general.alignment")) return absl::OkStatus();
    ASSIGN_OR_RETURN(const int64_t alignment, gguf_.Int("general.alignment"));
    if (alignment < 1 || alignment > (1 << 20) || !std::has_single_bit<uint64_t>(alignment)) {
      return Error(absl::StrCat("general.alignment: expected a power of two, got ", alignment));
    }
    alignment_ = alignment;
    return absl::OkStatus();
  }

  absl::Status ReadTensorInfo(uint64_t index) {
    GgufTensor tensor;
    ASSIGN_OR_RETURN(tensor.name, ReadName(absl::StrCat("tensor ", index)));
    const std::string what = absl::StrCat("tensor ", tensor.name);
    ASSIGN_OR_RETURN(const uint32_t dimensions, Read<uint32_t>(what));
    if (dimensions < 1 || dimensions > kMaxDimensions) {
      return Error(
          absl::StrCat(what, ": ", dimensions, " dimensions, expected 1 to ", kMaxDimensions));
    }
    // No tensor in bounds has more weights: the densest type has two of them in a byte.
    const uint64_t max_weights = 2 * bytes_.size();
    uint64_t weights = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
      if (size == 0 || size > max_weights / weights) {
        return Error(absl::StrCat(what, ": a dimension of ", size, " does not fit into a file of ",
                                  bytes_.size(), " bytes"));
      }
      weights *= size;
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(what));
    if (!IsSupported(type)) {
      return Error(
          absl::StrCat(what, ": unsupported type ", TypeName(type),
                       " (supported: F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q4_K, Q5_K, Q6_K)"));
    }
    tensor.type = static_cast<GgufType>(type);
    if (const int64_t block = BlockOf(tensor.type).weights; tensor.shape.back() % block != 0) {
      return Error(absl::StrCat(what, ": rows of ", tensor.shape.back(),
                                " weights are no whole number of ", TypeName(type), " blocks of ",
                                block));
    }
    ASSIGN_OR_RETURN(const uint64_t offset, Read<uint64_t>(what));
    offsets_.push_back(offset);
    gguf_.tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  // Offsets count from the first aligned byte after the tables.
  absl::Status PlaceTensors() {
    const uint64_t begin = (at_ + alignment_ - 1) / alignment_ * alignment_;
    for (size_t i = 0; i < gguf_.tensors_.size(); ++i) {
      GgufTensor& tensor = gguf_.tensors_[i];
      const GgufBlock block = BlockOf(tensor.type);
      const uint64_t size = tensor.num_weights() / block.weights * block.bytes;
      const std::string what = absl::StrCat("tensor ", tensor.name);
      if (offsets_[i] % alignment_ != 0) {
        return Error(
            absl::StrCat(what, ": offset ", offsets_[i], " is not a multiple of ", alignment_));
      }
      if (begin > bytes_.size() || offsets_[i] > bytes_.size() - begin ||
          size > bytes_.size() - begin - offsets_[i]) {
        return Truncated(what);
      }
      tensor.data = bytes_.subspan(begin + offsets_[i], size);
    }
    for (size_t i = 0; i < gguf_.tensors_.size(); ++i) {
      if (!gguf_.tensor_index_.emplace(gguf_.tensors_[i].name, i).second) {
        return Error(absl::StrCat("tensor ", gguf_.tensors_[i].name, ": the name occurs twice"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckOverlaps() const {
    std::vector<const GgufTensor*> order;
    for (const GgufTensor& tensor : gguf_.tensors_) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
      return a->data.data() < b->data.data();
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const std::span<const std::byte> before = order[i - 1]->data;
      if (before.data() + before.size() > order[i]->data.data()) {
        return Error(
            absl::StrCat("tensor ", order[i]->name, " overlaps tensor ", order[i - 1]->name));
      }
    }
    return absl::OkStatus();
  }

  GgufFile& gguf_;
  const std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  uint64_t num_values_ = 0, num_tensors_ = 0;
  uint64_t alignment_ = 32;
  std::vector<uint64_t> offsets_;  // of each tensor, from the start of the tensor data
};

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  std::unique_ptr<GgufFile> gguf(new GgufFile(std::move(file)));
  RETURN_IF_ERROR(Parser(gguf.get()).Run());
  return gguf;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

bool GgufFile::Has(std::string_view key) const { return FindValue(key) != nullptr; }

const GgufFile::Value* GgufFile::FindValue(std::string_view key) const {
  const auto it = metadata_.find(std::string(key));
  return it == metadata_.end() ? nullptr : &it->second;
}

size_t GgufFile::SizeOf(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
    case ValueType::kInt8:
    case ValueType::kBool:
      return 1;
    case ValueType::kUint16:
    case ValueType::kInt16:
      return 2;
    case ValueType::kUint32:
    case ValueType::kInt32:
    case ValueType::kFloat32:
      return 4;
    case ValueType::kUint64:
    case ValueType::kInt64:
    case ValueType::kFloat64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      break;
  }
  return 0;
}

bool GgufFile::IsInteger(ValueType type) {
  return SizeOf(type) != 0 && type != ValueType::kFloat32 && type != ValueType::kFloat64 &&
         type != ValueType::kBool;
}

std::string GgufFile::Describe(const Value* value) {
  if (value == nullptr) return "nothing";
  if (value->is_list) return absl::StrCat("a list of ", value->count);
  if (value->type == ValueType::kString) return "a string";
  if (value->type == ValueType::kBool) return "a boolean";
  if (IsInteger(value->type)) return absl::StrCat(DecodeInt(value->type, value->data.data()));
  return absl::StrCat(DecodeNumber(value->type, value->data.data()));
}

// Values above the largest int64 become it.
int64_t GgufFile::DecodeInt(ValueType type, const std::byte* data) {
  switch (type) {
    case ValueType::kUint8:
      return Load<uint8_t>(data);
    case ValueType::kInt8:
      return Load<int8_t>(data);
    case ValueType::kUint16:
      return Load<uint16_t>(data);
    case ValueType::kInt16:
      return Load<int16_t>(data);
    case ValueType::kUint32:
      return Load<uint32_t>(data);
    case ValueType::kInt32:
      return Load<int32_t>(data);
    case ValueType::kUint64:
      return static_cast<int64_t>(
          std::min<uint64_t>(Load<uint64_t>(data), std::numeric_limits<int64_t>::max()));
    default:
      return Load<int64_t>(data);
  }
}

double GgufFile::DecodeNumber(ValueType type, const std::byte* data) {
  if (type == ValueType::kFloat32) return Load<float>(data);
  if (type == ValueType::kFloat64) return Load<double>(data);
  return static_cast<double>(DecodeInt(type, data));
}

absl::Status GgufFile::Expected(std::string_view key, std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(path().string(), ": ", ToAbsl(key), ": expected ",
                                                 ToAbsl(what), ", got ", Describe(FindValue(key))));
}

absl::StatusOr<int64_t> GgufFile::Int(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr || value->is_list || !IsInteger(value->type)) {
    return Expected(key, "an integer");
  }
  return DecodeInt(value->type, value->data.data());
}

absl::StatusOr<double> GgufFile::Number(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr || value->is_list || SizeOf(value->type) == 0 ||
      value->type == ValueType::kBool) {
    return Expected(key, "a number");
  }
  return DecodeNumber(value->type, value->data.data());
}

absl::StatusOr<bool> GgufFile::Bool(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr || value->is_list || value->type != ValueType::kBool) {
    return Expected(key, "a boolean");
  }
  return Load<uint8_t>(value->data.data()) != 0;
}

absl::StatusOr<std::string> GgufFile::String(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr || value->is_list || value->type != ValueType::kString) {
    return Expected(key, "a string");
  }
  const std::span<const std::byte> text = value->data.subspan(sizeof(uint64_t));
  return std::string(reinterpret_cast<const char*>(text.data()), text.size());
}

absl::StatusOr<std::vector<std::string>> GgufFile::StringList(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr || !value->is_list || value->type != ValueType::kString) {
    return Expected(key, "a list of strings");
  }
  std::vector<std::string> list;
  list.reserve(value->count);
  const std::byte* at = value->data.data();
  for (uint64_t i = 0; i < value->count; ++i) {
    const uint64_t size = Load<uint64_t>(at);
    list.emplace_back(reinterpret_cast<const char*>(at + sizeof size), size);
    at += sizeof size + size;
  }
  return list;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::IntList(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr || !value->is_list || !IsInteger(value->type)) {
    return Expected(key, "a list of integers");
  }
  std::vector<int64_t> list(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    list[i] = DecodeInt(value->type, value->data.data() + i * SizeOf(value->type));
  }
  return list;
}

absl::StatusOr<std::vector<double>> GgufFile::NumberList(std::string_view key) const {
  const Value* value = FindValue(key);
  if (value == nullptr || !value->is_list || SizeOf(value->type) == 0 ||
      value->type == ValueType::kBool) {
    return Expected(key, "a list of numbers");
  }
  std::vector<double> list(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    list[i] = DecodeNumber(value->type, value->data.data() + i * SizeOf(value->type));
  }
  return list;
}

}  // namespace flowmesh::model
