#include "executors/model/safetensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/files.h"
#include "common/json.h"
#include "common/strings.h"

namespace flowmesh::model {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference library
constexpr uint64_t kMaxIndexBytes = 64u << 20;
constexpr size_t kMaxDimensions = 8;

std::optional<c10::ScalarType> ParseDtype(std::string_view name) {
  static const std::map<std::string_view, c10::ScalarType> kTypes = {
      {"F64", c10::ScalarType::Double}, {"F32", c10::ScalarType::Float},
      {"F16", c10::ScalarType::Half},   {"BF16", c10::ScalarType::BFloat16},
      {"I64", c10::ScalarType::Long},   {"I32", c10::ScalarType::Int},
      {"I16", c10::ScalarType::Short},  {"I8", c10::ScalarType::Char},
      {"U8", c10::ScalarType::Byte},    {"BOOL", c10::ScalarType::Bool}};
  const auto it = kTypes.find(name);
  if (it == kTypes.end()) return std::nullopt;
  return it->second;
}

// A header entry as it is written.
struct Entry {
  std::string name, dtype;
  std::vector<uint64_t> shape, offsets;
};

// Reads the header as a stream, because a parsed document drops duplicate names:
//   {"__metadata__": {"k": "v"}, "<tensor>": {"dtype": "F32", "shape": [2], "data_offsets": [0,
//   8]}}
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  std::string error;

  bool start_object(size_t) override {
    if (++depth_ > 2 || in_list_) return Fail("nested too deeply");
    if (depth_ == 2 && !in_metadata_) entries.push_back({name_, "", {}, {}});
    return true;
  }
  bool end_object() override {
    if (depth_-- == 2) in_metadata_ = false;
    return true;
  }
  bool key(std::string& text) override {
    if (depth_ == 1) {
      name_ = text;
      in_metadata_ = text == "__metadata__";
      if (!names_.insert(text).second) return Fail(absl::StrCat(text, ": the name occurs twice"));
    }
    field_ = text;
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || in_list_ ||
        (field_ != "shape" && field_ != "data_offsets")) {
      return Fail(absl::StrCat(name_, ": unexpected list"));
    }
    if (!list().empty()) return Fail(absl::StrCat(name_, ": ", field_, " occurs twice"));
    in_list_ = true;
    return true;
  }
  bool end_array() override {
    in_list_ = false;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (!in_list_) return Fail(absl::StrCat(name_, ".", field_, ": unexpected number"));
    if (list().size() >= kMaxDimensions) return Fail(absl::StrCat(name_, ": too many dimensions"));
    list().push_back(value);
    return true;
  }
  bool string(std::string& text) override {
    if (depth_ == 2 && in_metadata_) return true;
    if (depth_ != 2 || in_list_ || field_ != "dtype") {
      return Fail(absl::StrCat(name_, ": unexpected text"));
    }
    entries.back().dtype = text;
    return true;
  }
  bool null() override { return Fail(absl::StrCat(name_, ".", field_, ": unexpected null")); }
  bool boolean(bool) override { return Fail(absl::StrCat(name_, ": unexpected boolean")); }
  bool number_integer(int64_t value) override {
    return Fail(absl::StrCat(name_, ".", field_, ": unexpected number ", value));
  }
  bool number_float(double value, const std::string&) override {
    return Fail(absl::StrCat(name_, ".", field_, ": unexpected number ", value));
  }
  bool binary(nlohmann::json::binary_t&) override { return Fail("unexpected bytes"); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("no JSON at byte ", position));
  }

 private:
  bool Fail(std::string text) {
    if (error.empty()) error = std::move(text);
    return false;
  }
  std::vector<uint64_t>& list() {
    return field_ == "shape" ? entries.back().shape : entries.back().offsets;
  }

  int depth_ = 0;
  bool in_metadata_ = false, in_list_ = false;
  std::string name_, field_;
  std::set<std::string> names_;
};

// The tensor that an entry describes, in `data`, the part of the file after the header.
absl::StatusOr<SafetensorsTensor> ReadEntry(const Entry& entry, std::span<const std::byte> data) {
  SafetensorsTensor tensor;
  tensor.name = entry.name;
  const std::optional<c10::ScalarType> dtype = ParseDtype(entry.dtype);
  if (!dtype) {
    return absl::InvalidArgumentError(absl::StrCat("unsupported dtype \"", entry.dtype, "\""));
  }
  tensor.dtype = *dtype;
  if (entry.offsets.size() != 2 || entry.offsets[0] > entry.offsets[1]) {
    return absl::InvalidArgumentError("data_offsets must be two rising numbers");
  }
  const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
  if (end > data.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("truncated: ends at byte ", end, " of ", data.size(), " bytes of data"));
  }
  uint64_t size = c10::elementSize(tensor.dtype);
  for (uint64_t dimension : entry.shape) {
    if (dimension != 0 && size > data.size() / dimension) {
      return absl::InvalidArgumentError(absl::StrCat("shape [", absl::StrJoin(entry.shape, ", "),
                                                     "] does not fit into the file"));
    }
    size *= dimension;
    tensor.shape.push_back(static_cast<int64_t>(dimension));
  }
  if (size != end - begin) {
    return absl::InvalidArgumentError(absl::StrCat("shape [", absl::StrJoin(entry.shape, ", "),
                                                   "] of ", entry.dtype, " needs ", size,
                                                   " bytes, data_offsets give ", end - begin));
  }
  tensor.data = data.subspan(begin, size);
  return tensor;
}

absl::Status CheckOverlaps(std::span<const SafetensorsTensor> tensors) {
  std::vector<const SafetensorsTensor*> order;
  for (const SafetensorsTensor& tensor : tensors) {
    if (!tensor.data.empty()) order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
    return a->data.data() < b->data.data();
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const std::span<const std::byte> before = order[i - 1]->data;
    if (before.data() + before.size() > order[i]->data.data()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", order[i]->name, " overlaps tensor ", order[i - 1]->name));
    }
  }
  return absl::OkStatus();
}

// All tensors of one mapped file.
absl::StatusOr<std::vector<SafetensorsTensor>> ReadTensors(const MappedFile& file) {
  const std::span<const std::byte> bytes = file.bytes();
  uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size) {
    return absl::InvalidArgumentError("truncated: no safetensors header");
  }
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  if (header_size > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a header of ", header_size, " bytes: not a safetensors file, or corrupt"));
  }
  if (header_size > bytes.size() - sizeof header_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("truncated: a header of ", header_size, " bytes in a file of ", bytes.size()));
  }
  const char* header = reinterpret_cast<const char*>(bytes.data()) + sizeof header_size;
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(header, header + header_size, &reader)) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", reader.error));
  }
  std::vector<SafetensorsTensor> tensors;
  for (const Entry& entry : reader.entries) {
    auto tensor = ReadEntry(entry, bytes.subspan(sizeof header_size + header_size));
    if (!tensor.ok()) return Annotate(tensor.status(), absl::StrCat("tensor ", entry.name));
    tensor->file = &file;
    tensors.push_back(*std::move(tensor));
  }
  RETURN_IF_ERROR(CheckOverlaps(tensors));
  return tensors;
}

}  // namespace

at::Tensor SafetensorsTensor::Copy() const {
  at::Tensor copy = at::empty(shape, dtype);
  std::memcpy(copy.mutable_data_ptr(), data.data(), data.size());
  return copy;
}

absl::Status Safetensors::AddFile(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  auto tensors = ReadTensors(*file);
  if (!tensors.ok()) return Annotate(tensors.status(), path.string());
  files_.push_back(std::move(file));
  for (SafetensorsTensor& tensor : *tensors) {
    if (!index_.emplace(tensor.name, tensors_.size()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": tensor ", tensor.name, " is in another shard too"));
    }
    tensors_.push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Safetensors>> Safetensors::OpenFile(
    const std::filesystem::path& path) {
  auto result = std::make_unique<Safetensors>();
  RETURN_IF_ERROR(result->AddFile(path));
  return result;
}

absl::StatusOr<std::unique_ptr<Safetensors>> Safetensors::OpenIndex(
    const std::filesystem::path& index) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(index, kMaxIndexBytes));
  // Not ParseJson: its ordered maps make a large index quadratic.
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto error = [&](std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(index.string(), ": ", ToAbsl(what)));
  };
  if (!document.is_object() || !document.contains("weight_map") ||
      !document["weight_map"].is_object()) {
    return error("weight_map: expected a map of tensor names to file names");
  }
  std::map<std::string, std::vector<std::string>> names_by_file;
  for (const auto& [name, file] : document["weight_map"].items()) {
    if (!file.is_string() || !IsPlainFileName(file.get<std::string>())) {
      return error(absl::StrCat("weight_map.", name, ": expected the name of a file beside it"));
    }
    names_by_file[file.get<std::string>()].push_back(name);
  }
  auto result = std::make_unique<Safetensors>();
  for (const auto& [file, names] : names_by_file) {
    const size_t first = result->tensors_.size();
    RETURN_IF_ERROR(result->AddFile(index.parent_path() / file));
    for (const std::string& name : names) {
      const auto it = result->index_.find(name);
      if (it == result->index_.end() || it->second < first) {
        return error(absl::StrCat("tensor ", name, " is not in ", file, " as weight_map says"));
      }
    }
  }
  return result;
}

const SafetensorsTensor* Safetensors::Find(std::string_view name) const {
  const auto it = index_.find(std::string(name));
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace flowmesh::model
