// The one bridge between absl::string_view and std::string_view, which are distinct types in
// Debian's Abseil, and the few string helpers that both sides need.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/string_view.h"

namespace flowmesh {

inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }

// Without leading and trailing ASCII white space.
std::string_view Trim(std::string_view s);

// ASCII letters in lower case; other bytes as they are.
std::string ToLower(std::string_view s);

// Split at `separator`, parts trimmed, empty parts dropped.
std::vector<std::string> SplitTrimmed(std::string_view s, char separator);

// `count` random bytes from the system's generator as 2 * count lower-case hex digits.
std::string RandomHex(int count);

// A random UUID, version 4, in lower case.
std::string RandomUuid();

// Whether `s` is valid UTF-8 (no surrogates, no overlong forms).
bool IsValidUtf8(std::string_view s);

// `text` with every byte that is not part of valid UTF-8 replaced by U+FFFD.
std::string ToValidUtf8(std::string_view text);

// Whether a byte of UTF-8 is the first of a character.
inline bool StartsCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

// The beginning of `text`, at most `max_bytes` long, that ends where a character does.
std::string_view CutUtf8(std::string_view text, size_t max_bytes);

// True for `[A-Za-z0-9._-]{1,200}` other than `.` and `..`: the only task ids that become file
// names.
bool IsPlainFileName(std::string_view s);

// Lower-case hex SHA-256 of `data`.
std::string Sha256Hex(std::string_view data);

// A float as Python's repr prints it: shortest form that reads back equal, `.0` when whole,
// exponent below 1e-4 and from 1e16 on (TASKS.md 2.14).
std::string PythonFloat(double value);

}  // namespace flowmesh
