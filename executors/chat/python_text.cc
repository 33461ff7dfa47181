#include "executors/chat/python_text.h"

#include <utf8proc.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/strings.h"

namespace flowmesh::chat {
namespace {

// The code point that starts at `text[at]`, which is moved behind it.
utf8proc_int32_t NextCodePoint(std::string_view text, size_t& at) {
  utf8proc_int32_t code = 0;
  const auto size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                     static_cast<utf8proc_ssize_t>(text.size() - at), &code);
  at += size > 0 ? static_cast<size_t>(size) : 1;
  return code;
}

// str.isspace() of one code point.
bool IsSpace(utf8proc_int32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool IsSpaceText(std::string_view character) {
  size_t at = 0;
  return IsSpace(NextCodePoint(character, at));
}

template <typename Predicate>
std::string_view StripIf(std::string_view text, bool left, bool right, Predicate is_out) {
  const auto begin_of_last = [](std::string_view s) {
    size_t at = s.size() - 1;
    while (at > 0 && !StartsCharacter(s[at])) --at;
    return at;
  };
  while (left && !text.empty()) {
    size_t size = 0;
    NextCodePoint(text, size);
    if (!is_out(text.substr(0, size))) break;
    text.remove_prefix(size);
  }
  while (right && !text.empty()) {
    const size_t begin = begin_of_last(text);
    if (!is_out(text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return text;
}

template <typename Mapping>
std::string MapCodePoints(std::string_view text, Mapping mapping) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) AppendCodePoint(mapping(NextCodePoint(text, at)), out);
  return out;
}

}  // namespace

void AppendCodePoint(int32_t code, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(code, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

int64_t TextLength(std::string_view text) {
  return std::count_if(text.begin(), text.end(), StartsCharacter);
}

std::vector<std::string_view> Characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    NextCodePoint(text, at);
    out.push_back(text.substr(begin, at - begin));
  }
  return out;
}

std::string_view StripWhiteSpace(std::string_view text, bool left, bool right) {
  return StripIf(text, left, right, IsSpaceText);
}

std::string_view StripCharacters(std::string_view text, std::string_view characters, bool left,
                                 bool right) {
  const std::vector<std::string_view> set = Characters(characters);
  return StripIf(text, left, right, [&](std::string_view character) {
    return std::find(set.begin(), set.end(), character) != set.end();
  });
}

std::vector<std::string_view> SplitWhiteSpace(std::string_view text, int64_t limit) {
  std::vector<std::string_view> out;
  text = StripWhiteSpace(text, true, false);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.push_back(StripWhiteSpace(text, false, true));
      break;
    }
    size_t at = 0, end = 0;
    while (at < text.size()) {
      end = at;
      if (IsSpace(NextCodePoint(text, at))) break;
      end = at;
    }
    out.push_back(text.substr(0, end));
    text = StripWhiteSpace(text.substr(end), true, false);
  }
  return out;
}

std::vector<std::string_view> SplitBy(std::string_view text, std::string_view separator,
                                      int64_t limit) {
  std::vector<std::string_view> out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t found = text.find(separator);
    if (found == std::string_view::npos) break;
    out.push_back(text.substr(0, found));
    text.remove_prefix(found + separator.size());
  }
  out.push_back(text);
  return out;
}

std::vector<std::string_view> SplitFromRight(std::string_view text, std::string_view separator,
                                             int64_t limit) {
  std::vector<std::string_view> out;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const size_t found = text.rfind(separator);
    if (found == std::string_view::npos) break;
    out.push_back(text.substr(found + separator.size()));
    text = text.substr(0, found);
  }
  out.push_back(text);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> SplitLines(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    size_t at = 0, end = text.size();
    while (at < text.size()) {
      const size_t begin = at;
      const utf8proc_int32_t c = NextCodePoint(text, at);
      if ((c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
          c == 0x2029) {
        end = begin;
        if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
        break;
      }
    }
    out.push_back(text.substr(0, end));
    text.remove_prefix(at);
  }
  return out;
}

std::string EscapeHtml(std::string text) {
  for (const auto& [from, to] : {std::pair<std::string_view, std::string_view>{"&", "&amp;"},
                                 {"<", "&lt;"},
                                 {">", "&gt;"},
                                 {"'", "&#39;"},
                                 {"\"", "&#34;"}}) {
    text = ReplaceText(text, from, to, -1);
  }
  return text;
}

std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                        int64_t limit) {
  std::string out;
  if (from.empty()) {  // between all characters and at both ends, as Python does
    int64_t count = 0;
    const auto insert = [&] {
      if (limit < 0 || count < limit) out += to;
      ++count;
    };
    for (const std::string_view character : Characters(text)) {
      insert();
      out += character;
    }
    insert();
    return out;
  }
  const std::vector<std::string_view> parts = SplitBy(text, from, limit);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += to;
    out += parts[i];
  }
  return out;
}

std::string UpperText(std::string_view text) {
  // utf8proc maps a character to one character.
  return MapCodePoints(absl::StrReplaceAll(ToAbsl(text), {{"\u00df", "SS"}}), utf8proc_toupper);
}

std::string LowerText(std::string_view text) { return MapCodePoints(text, utf8proc_tolower); }

std::string CapitalizeText(std::string_view text) {
  bool first = true;
  return MapCodePoints(text, [&first](utf8proc_int32_t c) {
    return std::exchange(first, false) ? utf8proc_totitle(c) : utf8proc_tolower(c);
  });
}

std::string TitleText(std::string_view text) {
  bool is_first = true;
  return MapCodePoints(text, [&is_first](utf8proc_int32_t c) {
    const bool is_between = IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    return std::exchange(is_first, is_between) ? utf8proc_toupper(c) : utf8proc_tolower(c);
  });
}

std::string PythonRepr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const utf8proc_int32_t c = NextCodePoint(text, at);
    if (c == quote || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) {
      absl::StrAppendFormat(&out, "\\x%02x", c);
    } else {
      out += text.substr(begin, at - begin);
    }
  }
  return out + quote;
}

}  // namespace flowmesh::chat
