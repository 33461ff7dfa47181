// UTF-8 and the Unicode classes and mappings that tokenizers are defined by. The classes are those
// of HF tokenizers 0.22 (unicode_tables.inc), not of the system's Unicode version.
//
// Unless said otherwise a function takes valid UTF-8; ReplaceInvalidUtf8 makes any bytes so. Pure
// functions, safe from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace flowmesh::text {

struct CodePointRange {
  uint32_t first, last;  // inclusive
};

// Length in bytes of the character whose first byte is `lead`; 1 for a byte that cannot lead.
size_t Utf8Length(unsigned char lead);

// Decodes the character at text[pos] and advances `pos` past it.
char32_t NextCodePoint(std::string_view text, size_t& pos);
void AppendCodePoint(std::string& out, char32_t c);

// `bytes` with each maximal invalid part replaced by U+FFFD, as Rust's String::from_utf8_lossy.
std::string ReplaceInvalidUtf8(std::string_view bytes);

bool IsWhiteSpace(char32_t c);      // Unicode White_Space: Rust's char::is_whitespace, regex \s
bool IsPunctuation(char32_t c);     // categories P*, and all ASCII punctuation
bool IsNumeric(char32_t c);         // categories N*
bool IsWordCharacter(char32_t c);   // \w of Rust's regex crate
bool IsMark(char32_t c);            // categories M*
bool IsNonspacingMark(char32_t c);  // category Mn
bool IsBertControl(char32_t c);     // what BertNormalizer's clean_text removes

// The ranges behind \p{L} and \p{N} in regular expressions.
std::span<const CodePointRange> RegexLetters();
std::span<const CodePointRange> RegexNumbers();

// The end of the extended grapheme cluster that begins at text[begin].
size_t GraphemeEnd(std::string_view text, size_t begin);

// Full lower case without context, as Rust's char::to_lowercase.
std::string Lowercase(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string Normalize(std::string_view text, NormalForm form);

// GPT-2's printable stand-in character for each byte, in UTF-8.
const std::array<std::string, 256>& ByteLevelAlphabet();
// Every byte of `text` (any bytes) as its stand-in.
std::string EncodeByteLevel(std::string_view text);
// The byte that `c` stands for.
std::optional<uint8_t> ByteOfStandIn(char32_t c);

}  // namespace flowmesh::text
