#include "executors/chat/lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/strings.h"
#include "executors/chat/python_text.h"

namespace flowmesh::chat {
namespace {

constexpr std::string_view kSpace = " \t\n\r\f\v";

bool IsNameStart(char c) { return absl::ascii_isalpha(c) || c == '_'; }
bool IsNamePart(char c) { return absl::ascii_isalnum(c) || c == '_'; }

// Lines end with `\n`, and one at the very end is dropped, as Jinja does.
std::string Normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) {
      const size_t tag = FindTag();
      EmitText(tag);
      if (tag == std::string::npos) break;
      const char kind = source_[tag + 1];
      MoveTo(tag + 2);
      if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
      if (kind == '#') {
        RETURN_IF_ERROR(SkipComment());
      } else if (kind == '%' && IsRaw()) {
        RETURN_IF_ERROR(ReadRaw());
      } else {
        RETURN_IF_ERROR(ReadTag(kind));
      }
    }
    Emit(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", ToAbsl(what)));
  }

  void Emit(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void MoveTo(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + to, '\n'));
    at_ = to;
  }

  size_t FindTag() const {
    for (size_t i = source_.find('{', at_); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() &&
          std::string_view("{%#").find(source_[i + 1]) != std::string::npos) {
        return i;
      }
    }
    return std::string::npos;
  }

  // The text from here to `tag`, less what the tag takes away on its left.
  void EmitText(size_t tag) {
    std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    if (tag == std::string::npos) text = std::string_view(source_).substr(at_);
    if (tag != std::string::npos) text = StripLeftOfTag(text, tag);
    if (!text.empty()) Emit(TokenKind::kData, std::string(text));
  }

  std::string_view StripLeftOfTag(std::string_view text, size_t tag) const {
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') {
      const size_t last = text.find_last_not_of(kSpace);
      return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
    }
    if (sign == '+' || source_[tag + 1] == '{') return text;
    const size_t line_end = text.rfind('\n');
    const size_t begin = line_end == std::string_view::npos ? 0 : line_end + 1;
    const bool is_line_start = begin > 0 || at_ == 0 || source_[at_ - 1] == '\n';
    const bool is_blank = text.find_first_not_of(kSpace, begin) == std::string_view::npos;
    return is_line_start && is_blank ? text.substr(0, begin) : text;
  }

  // Behind the end of a tag, whose sign says what is taken away on its right.
  void StripRightOfTag(char sign, bool is_block) {
    if (sign == '-') {
      const size_t next = source_.find_first_not_of(kSpace, at_);
      MoveTo(next == std::string::npos ? source_.size() : next);
    } else if (is_block && sign != '+' && at_ < source_.size() && source_[at_] == '\n') {
      MoveTo(at_ + 1);
    }
  }

  absl::Status SkipComment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) return Error("a comment without its end `#}`");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    MoveTo(end + 2);
    StripRightOfTag(sign, true);
    return absl::OkStatus();
  }

  // Whether `{%` is followed by `raw %}` (without being moved).
  bool IsRaw() const {
    const size_t name = source_.find_first_not_of(kSpace, at_);
    if (name == std::string::npos || source_.compare(name, 3, "raw") != 0) return false;
    const size_t end = source_.find_first_not_of(kSpace, name + 3);
    return end != std::string::npos &&
           (source_.compare(end, 2, "%}") == 0 || source_.compare(end, 3, "-%}") == 0);
  }

  absl::Status ReadRaw() {
    const size_t open = source_.find("%}", at_);
    const char sign = source_[open - 1];
    MoveTo(open + 2);
    StripRightOfTag(sign, true);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos;
         tag = source_.find("{%", tag + 2)) {
      size_t name = tag + 2;
      if (name < source_.size() && (source_[name] == '-' || source_[name] == '+')) ++name;
      name = source_.find_first_not_of(kSpace, name);
      if (name == std::string::npos || source_.compare(name, 6, "endraw") != 0) continue;
      const size_t end = source_.find("%}", name);
      if (end == std::string::npos) break;
      EmitText(tag);
      const char end_sign = source_[end - 1];
      MoveTo(end + 2);
      StripRightOfTag(end_sign, true);
      return absl::OkStatus();
    }
    return Error("a raw block without `{% endraw %}`");
  }

  absl::Status ReadTag(char kind) {
    const bool is_block = kind == '%';
    const std::string_view end = is_block ? "%}" : "}}";
    Emit(is_block ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    std::string closers;  // of the brackets that are open
    while (true) {
      const size_t next = source_.find_first_not_of(kSpace, at_);
      if (next == std::string::npos) {
        return Error(absl::StrCat("a tag without its end `", ToAbsl(end), "`"));
      }
      MoveTo(next);
      if (closers.empty()) {
        const bool has_sign = source_[at_] == '-' || source_[at_] == '+';
        if (source_.compare(at_ + has_sign, 2, end) == 0) {
          Emit(is_block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
          const char sign = has_sign ? source_[at_] : '\0';
          at_ += 2 + has_sign;
          StripRightOfTag(sign, is_block);
          return absl::OkStatus();
        }
      }
      RETURN_IF_ERROR(ReadToken(closers));
    }
  }

  absl::Status ReadToken(std::string& closers) {
    const char c = source_[at_];
    if (IsNameStart(c)) {
      size_t end = at_;
      while (end < source_.size() && IsNamePart(source_[end])) ++end;
      Emit(TokenKind::kName, source_.substr(at_, end - at_));
      at_ = end;
      return absl::OkStatus();
    }
    if (absl::ascii_isdigit(c)) return ReadNumber();
    if (c == '\'' || c == '"') return ReadString();
    for (const std::string_view op : {"//", "**", "==", "!=", "<=", ">="}) {
      if (source_.compare(at_, 2, op) == 0) {
        Emit(TokenKind::kOperator, std::string(op));
        at_ += 2;
        return absl::OkStatus();
      }
    }
    if (std::string_view("+-*/%~<>=.,:|()[]{}").find(c) == std::string_view::npos) {
      return Error(
          absl::StrCat("unexpected character ", ToAbsl(DescribeJson(Json(std::string(1, c))))));
    }
    if (c == '(' || c == '[' || c == '{') closers += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (closers.empty()) return Error(absl::StrCat("`", std::string(1, c), "` closes nothing"));
      if (closers.back() != c) {
        return Error(absl::StrCat("expected `", closers.substr(closers.size() - 1), "`, got `",
                                  std::string(1, c), "`"));
      }
      closers.pop_back();
    }
    Emit(TokenKind::kOperator, std::string(1, c));
    ++at_;
    return absl::OkStatus();
  }

  absl::Status ReadNumber() {
    const auto skip_digits = [this](size_t from) {
      while (from < source_.size() &&
             (absl::ascii_isdigit(source_[from]) || source_[from] == '_')) {
        ++from;
      }
      return from;
    };
    const auto is_digit = [this](size_t i) {
      return i < source_.size() && absl::ascii_isdigit(source_[i]);
    };
    size_t end = skip_digits(at_);
    bool is_float = false;
    if (end < source_.size() && source_[end] == '.' && is_digit(end + 1)) {
      is_float = true;
      end = skip_digits(end + 1);
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool has_sign =
          end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
      if (is_digit(end + 1 + has_sign)) {
        is_float = true;
        end = skip_digits(end + 1 + has_sign);
      }
    }
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    Emit(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    at_ = end;
    return absl::OkStatus();
  }

  absl::Status ReadString() {
    const char quote = source_[at_];
    const int first_line = line_;
    std::string text;
    size_t i = at_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] == '\\' && i + 1 < source_.size()) {
        i = ReadEscape(i, text);
      } else {
        text += source_[i++];
      }
    }
    if (i >= source_.size()) return Error("a string without its end");
    MoveTo(i + 1);
    tokens_.push_back({TokenKind::kString, std::move(text), first_line});
    return absl::OkStatus();
  }

  // The escape at source_[i]; returns where it ends. An unknown one stays as it is.
  size_t ReadEscape(size_t i, std::string& text) const {
    static constexpr std::string_view kNames = "ntrbfva0\\'\"";
    static constexpr std::string_view kMeanings("\n\t\r\b\f\v\a\0\\'\"", 11);
    const char c = source_[i + 1];
    if (c == '\n') return i + 2;
    if (c == 'x' || c == 'u') {
      const size_t digits = c == 'x' ? 2 : 4;
      const std::string hex = source_.substr(i + 2, digits);
      const bool is_hex = hex.size() == digits && std::all_of(hex.begin(), hex.end(), [](char d) {
                            return absl::ascii_isxdigit(d);
                          });
      const int32_t code = is_hex ? std::stoi(hex, nullptr, 16) : 0xD800;
      if (code < 0xD800 || code > 0xDFFF) {
        AppendCodePoint(code, text);
        return i + 2 + digits;
      }
    }
    const size_t name = kNames.find(c);
    if (name == std::string_view::npos) {
      text += '\\';
      text += c;
    } else {
      text += kMeanings[name];
    }
    return i + 2;
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  if (!IsValidUtf8(source)) return absl::InvalidArgumentError("a chat template that is not UTF-8");
  return Lexer(Normalize(source)).Run();
}

}  // namespace flowmesh::chat
