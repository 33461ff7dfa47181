#include "executors/text/normalizer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/text/charsmap.h"
#include "executors/text/regex.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

// Keeps the characters for which `keep` holds. Whether the first one is kept.
template <typename Predicate>
bool KeepIf(std::string& text, Predicate keep) {
  std::string out;
  out.reserve(text.size());
  bool keeps_first = true;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (keep(NextCodePoint(text, pos))) {
      out.append(text, begin, pos - begin);
    } else if (begin == 0) {
      keeps_first = false;
    }
  }
  text = std::move(out);
  return keeps_first;
}

class Unicode : public Normalizer {
 public:
  explicit Unicode(NormalForm form) : form_(form) {}
  bool Apply(std::string& text) const override {
    text = Normalize(text, form_);
    return true;
  }

 private:
  NormalForm form_;
};

class LowercaseText : public Normalizer {
 public:
  bool Apply(std::string& text) const override {
    text = Lowercase(text);
    return true;
  }
};

class StripAccents : public Normalizer {
 public:
  bool Apply(std::string& text) const override {
    return KeepIf(text, [](char32_t c) { return !IsMark(c); });
  }
};

class ByteLevel : public Normalizer {
 public:
  bool Apply(std::string& text) const override {
    text = EncodeByteLevel(text);
    return true;
  }
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  bool Apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
    return true;
  }

 private:
  std::string prefix_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  bool Apply(std::string& text) const override {
    // [begin, end) spans the first to the last character that is no white space.
    size_t begin = text.size(), end = 0;
    for (size_t pos = 0; pos < text.size();) {
      const size_t start = pos;
      if (IsWhiteSpace(NextCodePoint(text, pos))) continue;
      begin = std::min(begin, start);
      end = pos;
    }
    if (right_) text.resize(end);
    if (left_) text.erase(0, std::min(begin, text.size()));
    return !left_ || begin == 0;
  }

 private:
  bool left_, right_;
};

// Whether `to`, in the place of `match` at the start of a text, comes from the text's first
// character.
bool ReplacementIsFirst(std::string_view match, std::string_view to) {
  if (match.empty()) return true;
  return !to.empty() && Utf8Length(static_cast<unsigned char>(match[0])) == match.size();
}

class ReplaceLiteral : public Normalizer {
 public:
  ReplaceLiteral(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  bool Apply(std::string& text) const override {
    size_t found = text.find(from_);
    if (found == std::string::npos) return true;
    const bool keeps_first = found > 0 || ReplacementIsFirst(from_, to_);
    std::string out;
    size_t done = 0;
    for (; found != std::string::npos; found = text.find(from_, done)) {
      out.append(text, done, found - done).append(to_);
      done = found + from_.size();
    }
    text = out.append(text, done);
    return keeps_first;
  }

 private:
  std::string from_, to_;
};

class ReplaceRegex : public Normalizer {
 public:
  ReplaceRegex(Regex regex, std::string to) : regex_(std::move(regex)), to_(std::move(to)) {}
  bool Apply(std::string& text) const override {
    std::string out;
    bool keeps_first = true;
    for (const Span& span : regex_.FindSpans(text)) {
      if (span.match) {
        if (span.begin == 0) {
          keeps_first = ReplacementIsFirst(std::string_view(text).substr(0, span.end), to_);
        }
        out += to_;
      } else {
        out.append(text, span.begin, span.end - span.begin);
      }
    }
    text = std::move(out);
    return keeps_first;
  }

 private:
  Regex regex_;
  std::string to_;
};

// As SentencePiece cleans text for translation: white space of all kinds becomes a space, control
// characters go.
class Nmt : public Normalizer {
 public:
  bool Apply(std::string& text) const override {
    const bool keeps_first = KeepIf(text, [](char32_t c) { return !IsDropped(c); });
    std::string out;
    out.reserve(text.size());
    for (size_t pos = 0; pos < text.size();) {
      const char32_t c = NextCodePoint(text, pos);
      AppendCodePoint(out, IsSpace(c) ? ' ' : c);
    }
    text = std::move(out);
    return keeps_first;
  }

 private:
  static bool IsDropped(char32_t c) {
    return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
           c == 0x8F || c == 0x9F;
  }
  static bool IsSpace(char32_t c) {
    return c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
  }
};

class Precompiled : public Normalizer {
 public:
  explicit Precompiled(Charsmap charsmap) : charsmap_(std::move(charsmap)) {}

  bool Apply(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = GraphemeEnd(text, begin);
      const std::string_view grapheme = std::string_view(text).substr(begin, end - begin);
      begin = end;
      // As in the reference: all of a short cluster goes for the rule that its start has.
      constexpr size_t kLongestWhole = 5;
      const auto whole = grapheme.size() <= kLongestWhole ? charsmap_.Find(grapheme) : std::nullopt;
      if (whole.has_value()) {
        out += *whole;
      } else {
        ReplaceCharacters(grapheme, out);
      }
    }
    text = std::move(out);
    return true;
  }

 private:
  void ReplaceCharacters(std::string_view text, std::string& out) const {
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      NextCodePoint(text, pos);
      const std::string_view character = text.substr(begin, pos - begin);
      out += charsmap_.Find(character).value_or(character);
    }
  }

  Charsmap charsmap_;
};

bool IsChinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

class Bert : public Normalizer {
 public:
  Bert(bool clean_text, bool spaced_chinese, bool strip_accents, bool lowercase)
      : clean_text_(clean_text),
        spaced_chinese_(spaced_chinese),
        strip_accents_(strip_accents),
        lowercase_(lowercase) {}

  bool Apply(std::string& text) const override {
    bool keeps_first = !clean_text_ || KeepIf(text, [](char32_t c) { return !IsBertControl(c); });
    std::string out;
    out.reserve(text.size());
    for (size_t pos = 0; pos < text.size();) {
      char32_t c = NextCodePoint(text, pos);
      if (clean_text_ && IsWhiteSpace(c)) c = ' ';
      const bool spaced = spaced_chinese_ && IsChinese(c);
      if (spaced) out += ' ';
      AppendCodePoint(out, c);
      if (spaced) out += ' ';
    }
    if (strip_accents_) {
      out = Normalize(out, NormalForm::kNfd);
      keeps_first &= KeepIf(out, [](char32_t c) { return !IsNonspacingMark(c); });
    }
    text = lowercase_ ? Lowercase(out) : std::move(out);
    return keeps_first;
  }

 private:
  bool clean_text_, spaced_chinese_, strip_accents_, lowercase_;
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  bool Apply(std::string& text) const override {
    bool keeps_first = true;
    for (const auto& step : steps_) keeps_first &= step->Apply(text);
    return keeps_first;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

using NormalizerOr = absl::StatusOr<std::unique_ptr<Normalizer>>;

NormalizerOr MakeSequence(const Field& steps) {
  RETURN_IF_ERROR(steps.CheckList());
  std::vector<std::unique_ptr<Normalizer>> made;
  for (size_t i = 0; i < steps.size(); ++i) {
    ASSIGN_OR_RETURN(auto step, MakeNormalizer(steps[i]));
    if (step != nullptr) made.push_back(std::move(step));
  }
  return std::make_unique<Sequence>(std::move(made));
}

NormalizerOr MakeBert(const Field& spec) {
  ASSIGN_OR_RETURN(const bool clean_text, spec["clean_text"].BoolOr(true));
  ASSIGN_OR_RETURN(const bool chinese, spec["handle_chinese_chars"].BoolOr(true));
  ASSIGN_OR_RETURN(const bool lowercase, spec["lowercase"].BoolOr(true));
  ASSIGN_OR_RETURN(const bool strip_accents, spec["strip_accents"].BoolOr(lowercase));
  return std::make_unique<Bert>(clean_text, chinese, strip_accents, lowercase);
}

NormalizerOr MakePrecompiled(const Field& charsmap) {
  ASSIGN_OR_RETURN(const std::string text, charsmap.String());
  std::string bytes;
  if (!absl::Base64Unescape(text, &bytes)) return charsmap.Error("is not base64");
  absl::StatusOr<Charsmap> made = Charsmap::Parse(bytes);
  if (!made.ok()) return charsmap.Error(ToStd(made.status().message()));
  return std::make_unique<Precompiled>(*std::move(made));
}

}  // namespace

absl::StatusOr<std::string> ReadPattern(const Field& pattern) {
  if (pattern["String"].present()) {
    ASSIGN_OR_RETURN(const std::string literal, pattern["String"].String());
    return EscapeRegex(literal);
  }
  if (pattern["Regex"].present()) return pattern["Regex"].String();
  return pattern.Expected("{\"String\": ...} or {\"Regex\": ...}");
}

NormalizerOr MakeReplace(const Field& spec) {
  ASSIGN_OR_RETURN(std::string content, spec["content"].String());
  const Field literal = spec["pattern"]["String"];
  if (literal.present()) {
    ASSIGN_OR_RETURN(std::string from, literal.String());
    if (!from.empty()) {
      return std::make_unique<ReplaceLiteral>(std::move(from), std::move(content));
    }
  }
  ASSIGN_OR_RETURN(const std::string pattern, ReadPattern(spec["pattern"]));
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return Annotate(regex.status(), spec["pattern"].path());
  return std::make_unique<ReplaceRegex>(*std::move(regex), std::move(content));
}

NormalizerOr MakeNormalizer(const Field& spec) {
  if (!spec.present()) return nullptr;
  RETURN_IF_ERROR(spec.CheckMap());
  ASSIGN_OR_RETURN(const std::string type, spec["type"].String());
  if (type == "Sequence") return MakeSequence(spec["normalizers"]);
  if (type == "NFC") return std::make_unique<Unicode>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<Unicode>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<Unicode>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<Unicode>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<LowercaseText>();
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "Replace") return MakeReplace(spec);
  if (type == "BertNormalizer") return MakeBert(spec);
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "Precompiled") return MakePrecompiled(spec["precompiled_charsmap"]);
  if (type == "Prepend") {
    ASSIGN_OR_RETURN(std::string prefix, spec["prepend"].String());
    return std::make_unique<Prepend>(std::move(prefix));
  }
  if (type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, spec["strip_left"].BoolOr(true));
    ASSIGN_OR_RETURN(const bool right, spec["strip_right"].BoolOr(true));
    return std::make_unique<Strip>(left, right);
  }
  return spec["type"].Error(absl::StrCat("the normalizer \"", type, "\" is not supported"));
}

}  // namespace flowmesh::text
