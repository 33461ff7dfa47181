#include "executors/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

namespace flowmesh::text {
namespace {

// The characters from `first` to `last`, whose lower cases begin at `lower`.
struct LowerCaseRun {
  uint32_t first, last, lower;
};

#include "executors/text/unicode_tables.inc"

constexpr char32_t kReplacement = 0xFFFD;

bool Contains(std::span<const CodePointRange> ranges, char32_t c) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), static_cast<uint32_t>(c),
      [](uint32_t value, const CodePointRange& range) { return value < range.first; });
  return after != ranges.begin() && c <= std::prev(after)->last;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x80; });
}

struct Sequence {
  size_t length;  // bytes to take
  bool valid;
};

// The valid character, or the maximal invalid part, at bytes[pos] (Unicode 15, table 3-7).
Sequence ScanSequence(std::string_view bytes, size_t pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = byte(pos);
  if (lead < 0x80) return {1, true};
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;  // bounds of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  for (size_t i = 1; i < length; ++i) {
    if (pos + i >= bytes.size() || byte(pos + i) < low || byte(pos + i) > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true};
}

char32_t LowerCase(char32_t c) {
  for (const LowerCaseRun& run : kLaterLowerCase) {
    if (c >= run.first && c <= run.last) return run.lower + (c - run.first);
  }
  return static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c)));
}

void AppendNormalized(std::string_view text, NormalForm form, std::string& out) {
  int options = UTF8PROC_STABLE;
  options |=
      form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  const auto flags = static_cast<utf8proc_option_t>(options);
  std::vector<utf8proc_int32_t> points(text.size() + 16);
  utf8proc_ssize_t count = utf8proc_decompose(bytes, size, points.data(), points.size(), flags);
  if (count > static_cast<utf8proc_ssize_t>(points.size())) {
    points.resize(count);
    count = utf8proc_decompose(bytes, size, points.data(), points.size(), flags);
  }
  if (count >= 0) count = utf8proc_normalize_utf32(points.data(), count, flags);
  if (count < 0) {  // only for invalid UTF-8, which callers exclude
    out += text;
    return;
  }
  for (utf8proc_ssize_t i = 0; i < count; ++i) AppendCodePoint(out, points[i]);
}

}  // namespace

size_t Utf8Length(unsigned char lead) {
  if (lead < 0xC0) return 1;
  if (lead < 0xE0) return 2;
  return lead < 0xF0 ? 3 : 4;
}

char32_t NextCodePoint(std::string_view text, size_t& pos) {
  const unsigned char lead = static_cast<unsigned char>(text[pos]);
  const size_t length = std::min(Utf8Length(lead), text.size() - pos);
  char32_t c = length == 1 ? lead : lead & (0x7F >> length);
  for (size_t i = 1; i < length; ++i)
    c = c << 6 | (static_cast<unsigned char>(text[pos + i]) & 0x3F);
  pos += length;
  return c;
}

void AppendCodePoint(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t pos = 0; pos < bytes.size();) {
    const Sequence sequence = ScanSequence(bytes, pos);
    if (sequence.valid) {
      out += bytes.substr(pos, sequence.length);
    } else {
      AppendCodePoint(out, kReplacement);
    }
    pos += sequence.length;
  }
  return out;
}

bool IsWhiteSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsPunctuation(char32_t c) { return Contains(kPunctuation, c); }
bool IsNumeric(char32_t c) { return Contains(kNumeric, c); }
bool IsWordCharacter(char32_t c) { return Contains(kWord, c); }
bool IsMark(char32_t c) { return Contains(kMark, c); }
bool IsNonspacingMark(char32_t c) { return Contains(kNonspacingMark, c); }
bool IsBertControl(char32_t c) { return Contains(kBertControl, c); }

std::span<const CodePointRange> RegexLetters() { return kRegexLetter; }
std::span<const CodePointRange> RegexNumbers() { return kRegexNumber; }

size_t GraphemeEnd(std::string_view text, size_t begin) {
  const auto is_ascii = [&](size_t i) { return static_cast<unsigned char>(text[i]) < 0x80; };
  const auto class_of = [](char32_t c) {
    // utf8proc may know an older Unicode: of what joins the character before it, and of what
    // nothing joins, the reference's tables decide. U+0301 and U+0001 are such characters, the
    // joiner has a class of its own.
    constexpr char32_t kAcute = 0x301, kControl = 1, kZeroWidthJoiner = 0x200D;
    if (c != kZeroWidthJoiner && Contains(kGraphemeExtend, c)) return kAcute;
    return Contains(kGraphemeControl, c) ? kControl : c;
  };
  size_t end = begin;
  char32_t previous = NextCodePoint(text, end);
  utf8proc_int32_t state = 0;
  while (end < text.size()) {
    // Of ASCII only CR and LF belong together.
    if (previous < 0x80 && is_ascii(end)) return end + (previous == '\r' && text[end] == '\n');
    size_t next = end;
    const char32_t c = NextCodePoint(text, next);
    if (utf8proc_grapheme_break_stateful(static_cast<int32_t>(class_of(previous)),
                                         static_cast<int32_t>(class_of(c)), &state)) {
      break;
    }
    previous = c;
    end = next;
  }
  return end;
}

std::string Lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = NextCodePoint(text, pos);
    if (c < 0x80) {
      out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    } else if (c == 0x130) {  // the one character whose lower case is two: i and a combining dot
      out += "i\xCC\x87";
    } else {
      AppendCodePoint(out, LowerCase(c));
    }
  }
  return out;
}

std::string Normalize(std::string_view text, NormalForm form) {
  if (IsAscii(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (!Contains(kLaterThanNormalForms, NextCodePoint(text, pos))) continue;
    // To the reference it is a character without properties: nothing passes it.
    AppendNormalized(text.substr(done, begin - done), form, out);
    out += text.substr(begin, pos - begin);
    done = pos;
  }
  AppendNormalized(text.substr(done), form, out);
  return out;
}

const std::array<std::string, 256>& ByteLevelAlphabet() {
  static const auto* alphabet = [] {
    auto* table = new std::array<std::string, 256>;
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      AppendCodePoint((*table)[byte], printable ? static_cast<char32_t>(byte) : next++);
    }
    return table;
  }();
  return *alphabet;
}

std::string EncodeByteLevel(std::string_view text) {
  const auto& alphabet = ByteLevelAlphabet();
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) out += alphabet[static_cast<unsigned char>(c)];
  return out;
}

std::optional<uint8_t> ByteOfStandIn(char32_t c) {
  static const auto* bytes = [] {
    auto* table = new std::array<int16_t, 512>;
    table->fill(-1);
    for (int byte = 0; byte < 256; ++byte) {
      size_t pos = 0;
      (*table)[NextCodePoint(ByteLevelAlphabet()[byte], pos)] = static_cast<int16_t>(byte);
    }
    return table;
  }();
  if (c >= bytes->size() || (*bytes)[c] < 0) return std::nullopt;
  return static_cast<uint8_t>((*bytes)[c]);
}

}  // namespace flowmesh::text
