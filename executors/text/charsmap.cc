#include "executors/text/charsmap.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh::text {
namespace {

static_assert(std::endian::native == std::endian::little, "charsmaps are little-endian");

// The parts of a unit. A value unit has its highest bit set, so that its label is no byte.
constexpr uint32_t kIsValue = uint32_t{1} << 31;
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Label(uint32_t unit) { return unit & (kIsValue | 0xFF); }
uint32_t Value(uint32_t unit) { return unit & ~kIsValue; }
// Long ways are kept in steps of 256.
uint32_t Offset(uint32_t unit) { return unit >> 10 << ((unit & (uint32_t{1} << 9)) >> 6); }

}  // namespace

absl::StatusOr<Charsmap> Charsmap::Parse(std::string_view bytes) {
  uint32_t trie_size = 0;
  if (bytes.size() < sizeof(trie_size)) return absl::InvalidArgumentError("is too short");
  std::memcpy(&trie_size, bytes.data(), sizeof(trie_size));
  bytes.remove_prefix(sizeof(trie_size));
  if (trie_size > bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("is too short: its trie has ", trie_size,
                                                   " bytes, ", bytes.size(), " are there"));
  }
  Charsmap made;
  made.units_.resize(trie_size / sizeof(uint32_t));
  if (made.units_.empty()) return absl::InvalidArgumentError("has an empty trie");
  const size_t unit_bytes = made.units_.size() * sizeof(uint32_t);
  std::memcpy(made.units_.data(), bytes.data(), unit_bytes);
  made.replacements_ = bytes.substr(unit_bytes);
  RETURN_IF_ERROR(made.Check());
  return made;
}

// Whatever the bytes of a text, Find must stay within the lists.
absl::Status Charsmap::Check() const {
  if (!IsValidUtf8(replacements_)) {
    return absl::InvalidArgumentError("has replacements that are no UTF-8");
  }
  for (size_t i = 0; i < units_.size(); ++i) {
    const uint32_t unit = units_[i];
    if ((unit & kIsValue) != 0) continue;
    const size_t child = i ^ Offset(unit);
    if ((child | 0xFF) >= units_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("has a trie whose unit ", i, " leads to unit ",
                                                     child, " of ", units_.size()));
    }
    if (!HasLeaf(unit)) continue;
    const size_t value = Value(units_[child]);
    const bool starts_character =
        value < replacements_.size() && (replacements_[value] & 0xC0) != 0x80;
    if (!starts_character) {
      return absl::InvalidArgumentError(
          absl::StrCat("has a trie whose unit ", child, " names no replacement"));
    }
  }
  return absl::OkStatus();
}

std::optional<std::string_view> Charsmap::Find(std::string_view text) const {
  uint32_t place = Offset(units_[0]);
  for (const char c : text) {
    const uint32_t label = static_cast<unsigned char>(c);
    place ^= label;
    const uint32_t unit = units_[place];
    if (label == 0 || Label(unit) != label) return std::nullopt;
    place ^= Offset(unit);
    if (HasLeaf(unit)) return replacements_.c_str() + Value(units_[place]);
  }
  return std::nullopt;
}

}  // namespace flowmesh::text
