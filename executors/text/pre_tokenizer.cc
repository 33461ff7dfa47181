#include "executors/text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "executors/text/normalizer.h"
#include "executors/text/regex.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

// What becomes of the places where a pattern matched.
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// `spans` (which cover a text) joined and dropped as `behavior` says.
std::vector<Span> Arrange(std::vector<Span> spans, Behavior behavior) {
  std::vector<Span> out;
  out.reserve(spans.size());
  bool previous_match = false;
  switch (behavior) {
    case Behavior::kIsolated:
      return spans;
    case Behavior::kRemoved:
      std::copy_if(spans.begin(), spans.end(), std::back_inserter(out),
                   [](const Span& span) { return !span.match; });
      return out;
    case Behavior::kContiguous:
    case Behavior::kMergedWithPrevious:
      for (const Span& span : spans) {
        const bool joins = behavior == Behavior::kContiguous ? span.match == previous_match
                                                             : span.match && !previous_match;
        if (joins && !out.empty()) {
          out.back().end = span.end;
        } else {
          out.push_back(span);
        }
        previous_match = span.match;
      }
      return out;
    case Behavior::kMergedWithNext:
      for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        if (span->match && !previous_match && !out.empty()) {
          out.back().begin = span->begin;
        } else {
          out.push_back(*span);
        }
        previous_match = span->match;
      }
      std::reverse(out.begin(), out.end());
      return out;
  }
  return spans;
}

// Every character for which `predicate` holds as a match of its own.
template <typename Predicate>
std::vector<Span> FindCharacters(std::string_view text, Predicate predicate) {
  std::vector<Span> spans;
  size_t covered = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (!predicate(NextCodePoint(text, pos))) continue;
    if (covered < begin) spans.push_back({covered, begin, false});
    spans.push_back({begin, pos, true});
    covered = pos;
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), false});
  return spans;
}

void AppendPieces(const Piece& piece, const std::vector<Span>& spans, std::vector<Piece>& out) {
  for (const Span& span : spans) {
    if (span.begin == span.end) continue;
    out.push_back({piece.text.substr(span.begin, span.end - span.begin),
                   piece.starts_input && span.begin == 0});
  }
}

// A pre-tokenizer that finds spans in each piece.
class Splitter : public PreTokenizer {
 public:
  void Apply(std::vector<Piece>& pieces) const override {
    std::vector<Piece> out;
    out.reserve(pieces.size());
    for (const Piece& piece : pieces) AppendPieces(piece, Cut(piece.text), out);
    pieces = std::move(out);
  }

 private:
  // The parts to keep, in order.
  virtual std::vector<Span> Cut(std::string_view text) const = 0;
};

template <typename Predicate>
class CharacterSplitter : public Splitter {
 public:
  CharacterSplitter(Predicate predicate, Behavior behavior)
      : predicate_(predicate), behavior_(behavior) {}

 private:
  std::vector<Span> Cut(std::string_view text) const override {
    return Arrange(FindCharacters(text, predicate_), behavior_);
  }

  Predicate predicate_;
  Behavior behavior_;
};

class RegexSplitter : public Splitter {
 public:
  RegexSplitter(Regex regex, Behavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}

 private:
  std::vector<Span> Cut(std::string_view text) const override {
    std::vector<Span> spans = regex_.FindSpans(text);
    if (invert_) {
      for (Span& span : spans) span.match = !span.match;
    }
    return Arrange(std::move(spans), behavior_);
  }

  Regex regex_;
  Behavior behavior_;
  bool invert_;
};

// Rust's `\w+|[^\w\s]+`: runs of word characters, runs of the rest, white space dropped.
class WhitespaceWords : public Splitter {
 private:
  std::vector<Span> Cut(std::string_view text) const override {
    enum class Kind { kSpace, kWord, kOther };
    std::vector<Span> spans;
    Kind previous = Kind::kSpace;
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      const char32_t c = NextCodePoint(text, pos);
      const Kind kind = IsWordCharacter(c) ? Kind::kWord
                        : IsWhiteSpace(c)  ? Kind::kSpace
                                           : Kind::kOther;
      if (kind != Kind::kSpace) {
        if (kind == previous) {
          spans.back().end = pos;
        } else {
          spans.push_back({begin, pos, true});
        }
      }
      previous = kind;
    }
    return spans;
  }
};

// Pieces of so many characters; the last may have fewer.
class FixedLength : public Splitter {
 public:
  explicit FixedLength(int64_t length) : length_(length) {}

 private:
  std::vector<Span> Cut(std::string_view text) const override {
    std::vector<Span> spans;
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      for (int64_t i = 0; i < length_ && pos < text.size(); ++i) NextCodePoint(text, pos);
      spans.push_back({begin, pos, true});
    }
    return spans;
  }

  int64_t length_;  // in characters
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Regex> regex)
      : add_prefix_space_(add_prefix_space), regex_(std::move(regex)) {}

  void Apply(std::vector<Piece>& pieces) const override {
    std::vector<Piece> out;
    for (Piece& piece : pieces) {
      if (add_prefix_space_ && !piece.text.starts_with(' ')) piece.text.insert(0, 1, ' ');
      if (regex_.has_value()) {
        AppendPieces(piece, regex_->FindSpans(piece.text), out);
      } else {
        out.push_back(std::move(piece));
      }
    }
    for (Piece& piece : out) piece.text = EncodeByteLevel(piece.text);
    pieces = std::move(out);
  }

 private:
  bool add_prefix_space_;
  std::optional<Regex> regex_;
};

class Metaspace : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };

  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {
    size_t pos = 0;
    replacement_point_ = NextCodePoint(replacement_, pos);
  }

  void Apply(std::vector<Piece>& pieces) const override {
    std::vector<Piece> out;
    out.reserve(pieces.size());
    for (Piece& piece : pieces) {
      std::string text;
      text.reserve(piece.text.size() + replacement_.size());
      for (const char c : piece.text) {
        if (c == ' ') {
          text += replacement_;
        } else {
          text += c;
        }
      }
      const bool prepends =
          prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.starts_input);
      if (prepends && !text.starts_with(replacement_)) text.insert(0, replacement_);
      piece.text = std::move(text);
      if (!split_) {
        out.push_back(std::move(piece));
        continue;
      }
      const auto is_replacement = [this](char32_t c) { return c == replacement_point_; };
      AppendPieces(piece,
                   Arrange(FindCharacters(piece.text, is_replacement), Behavior::kMergedWithNext),
                   out);
    }
    pieces = std::move(out);
  }

 private:
  std::string replacement_;  // one character
  char32_t replacement_point_;
  Prepend prepend_;
  bool split_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void Apply(std::vector<Piece>& pieces) const override {
    for (const auto& step : steps_) step->Apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

using PreTokenizerOr = absl::StatusOr<std::unique_ptr<PreTokenizer>>;

template <typename Predicate>
std::unique_ptr<PreTokenizer> SplitAt(Predicate predicate, Behavior behavior) {
  return std::make_unique<CharacterSplitter<Predicate>>(predicate, behavior);
}

absl::StatusOr<Behavior> ReadBehavior(const Field& field, std::string_view fallback) {
  ASSIGN_OR_RETURN(const std::string name, field.StringOr(fallback));
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return field.Expected("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

PreTokenizerOr MakeByteLevel(const Field& spec) {
  ASSIGN_OR_RETURN(const bool add_prefix_space, spec["add_prefix_space"].BoolOr(true));
  ASSIGN_OR_RETURN(const bool use_regex, spec["use_regex"].BoolOr(true));
  std::optional<Regex> regex;
  if (use_regex) {
    ASSIGN_OR_RETURN(regex, Regex::Compile(kGpt2Pattern));
  }
  return std::make_unique<ByteLevel>(add_prefix_space, std::move(regex));
}

PreTokenizerOr MakeSplit(const Field& spec) {
  ASSIGN_OR_RETURN(const std::string pattern, ReadPattern(spec["pattern"]));
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return Annotate(regex.status(), spec["pattern"].path());
  ASSIGN_OR_RETURN(const Behavior behavior, ReadBehavior(spec["behavior"], ""));
  ASSIGN_OR_RETURN(const bool invert, spec["invert"].BoolOr(false));
  return std::make_unique<RegexSplitter>(*std::move(regex), behavior, invert);
}

// Whether `text` is one character.
bool IsCharacter(const std::string& text) {
  return !text.empty() && Utf8Length(static_cast<unsigned char>(text[0])) == text.size();
}

PreTokenizerOr MakeCharDelimiterSplit(const Field& spec) {
  ASSIGN_OR_RETURN(const std::string text, spec["delimiter"].String());
  if (!IsCharacter(text)) return spec["delimiter"].Expected("one character");
  size_t pos = 0;
  const char32_t delimiter = NextCodePoint(text, pos);
  return SplitAt([delimiter](char32_t c) { return c == delimiter; }, Behavior::kRemoved);
}

PreTokenizerOr MakeMetaspace(const Field& spec) {
  ASSIGN_OR_RETURN(std::string replacement, spec["replacement"].StringOr("\u2581"));
  if (!IsCharacter(replacement)) return spec["replacement"].Expected("one character");
  ASSIGN_OR_RETURN(const bool add_prefix_space, spec["add_prefix_space"].BoolOr(true));
  ASSIGN_OR_RETURN(const std::string scheme,
                   spec["prepend_scheme"].StringOr(add_prefix_space ? "always" : "never"));
  ASSIGN_OR_RETURN(const bool split, spec["split"].BoolOr(true));
  Metaspace::Prepend prepend;
  if (scheme == "always") {
    prepend = Metaspace::Prepend::kAlways;
  } else if (scheme == "first") {
    prepend = Metaspace::Prepend::kFirst;
  } else if (scheme == "never") {
    prepend = Metaspace::Prepend::kNever;
  } else {
    return spec["prepend_scheme"].Expected("always, first or never");
  }
  return std::make_unique<Metaspace>(std::move(replacement), prepend, split);
}

PreTokenizerOr MakeSequence(const Field& steps) {
  RETURN_IF_ERROR(steps.CheckList());
  std::vector<std::unique_ptr<PreTokenizer>> made;
  for (size_t i = 0; i < steps.size(); ++i) {
    ASSIGN_OR_RETURN(auto step, MakePreTokenizer(steps[i]));
    if (step != nullptr) made.push_back(std::move(step));
  }
  return std::make_unique<Sequence>(std::move(made));
}

std::unique_ptr<PreTokenizer> MakeBert() {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  steps.push_back(SplitAt(IsWhiteSpace, Behavior::kRemoved));
  steps.push_back(SplitAt(IsPunctuation, Behavior::kIsolated));
  return std::make_unique<Sequence>(std::move(steps));
}

}  // namespace

PreTokenizerOr MakePreTokenizer(const Field& spec) {
  if (!spec.present()) return nullptr;
  RETURN_IF_ERROR(spec.CheckMap());
  ASSIGN_OR_RETURN(const std::string type, spec["type"].String());
  if (type == "Sequence") return MakeSequence(spec["pretokenizers"]);
  if (type == "ByteLevel") return MakeByteLevel(spec);
  if (type == "Split") return MakeSplit(spec);
  if (type == "Metaspace") return MakeMetaspace(spec);
  if (type == "BertPreTokenizer") return MakeBert();
  if (type == "Whitespace") return std::make_unique<WhitespaceWords>();
  if (type == "WhitespaceSplit") return SplitAt(IsWhiteSpace, Behavior::kRemoved);
  if (type == "CharDelimiterSplit") return MakeCharDelimiterSplit(spec);
  if (type == "FixedLength") {
    ASSIGN_OR_RETURN(const int64_t length, spec["length"].IntOr(5, 1));
    return std::make_unique<FixedLength>(length);
  }
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual, spec["individual_digits"].BoolOr(false));
    return SplitAt(IsNumeric, individual ? Behavior::kIsolated : Behavior::kContiguous);
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const Behavior behavior, ReadBehavior(spec["behavior"], "Isolated"));
    return SplitAt(IsPunctuation, behavior);
  }
  return spec["type"].Error(absl::StrCat("the pre-tokenizer \"", type, "\" is not supported"));
}

}  // namespace flowmesh::text
