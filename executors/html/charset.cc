#include "executors/html/charset.h"

#include <iconv.h>

#include "common/strings.h"

namespace flowmesh::html {

std::string CharsetOf(const std::string& content_type) {
  const std::string type = ToLower(content_type);
  const size_t at = type.find("charset=");
  if (at == std::string::npos) return "";
  const std::string value = type.substr(at + 8, type.find(';', at) - at - 8);
  std::string charset;
  for (const char c : value) {
    if (c != '"' && c != '\'' && c != ' ') charset += c;
  }
  return charset;
}

std::string ToUtf8(const std::string& text, const std::string& charset) {
  if (IsValidUtf8(text)) return text;
  constexpr char kUsual[] = "WINDOWS-1252";
  const auto none = reinterpret_cast<iconv_t>(-1);
  const bool is_other = !charset.empty() && charset != "utf-8";
  iconv_t converter = is_other ? ::iconv_open("UTF-8", charset.c_str()) : none;
  if (converter == none) converter = ::iconv_open("UTF-8", kUsual);
  std::string out(text.size() * 4 + 16, '\0');
  char* from = const_cast<char*>(text.data());
  char* to = out.data();
  size_t from_left = text.size(), to_left = out.size();
  while (from_left > 0 && to_left > 0 &&
         ::iconv(converter, &from, &from_left, &to, &to_left) == static_cast<size_t>(-1)) {
    if (from_left == 0 || to_left == 0) break;
    ++from;  // a byte that means nothing there
    --from_left;
    *to++ = '?';
    --to_left;
  }
  ::iconv_close(converter);
  out.resize(out.size() - to_left);
  return out;
}

}  // namespace flowmesh::html
