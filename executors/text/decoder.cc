#include "executors/text/decoder.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/strings.h"
#include "executors/text/normalizer.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

class ByteLevel : public Decoder {
 public:
  void Apply(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) AppendBytes(token, bytes);
    tokens.assign(1, ReplaceInvalidUtf8(bytes));
  }

 private:
  // A token with a character that stands for no byte (an added token) is taken as it is.
  static void AppendBytes(const std::string& token, std::string& bytes) {
    const size_t before = bytes.size();
    for (size_t pos = 0; pos < token.size();) {
      const std::optional<uint8_t> byte = ByteOfStandIn(NextCodePoint(token, pos));
      if (!byte.has_value()) {
        bytes.resize(before);
        bytes += token;
        return;
      }
      bytes += static_cast<char>(*byte);
    }
  }
};

// `<0xNN>` tokens become bytes; a run of them that is not UTF-8 becomes one U+FFFD per byte.
class ByteFallback : public Decoder {
 public:
  void Apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> out;
    out.reserve(tokens.size());
    std::string run;
    const auto flush = [&] {
      if (run.empty()) return;
      if (IsValidUtf8(run)) {
        out.push_back(run);
      } else {
        out.insert(out.end(), run.size(), "\uFFFD");
      }
      run.clear();
    };
    for (std::string& token : tokens) {
      if (const std::optional<char> byte = ReadByte(token)) {
        run += *byte;
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  }

 private:
  static std::optional<char> ReadByte(const std::string& token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    int value = 0;
    for (const char c : {token[3], token[4]}) {
      const char lower = static_cast<char>(c | 0x20);
      if (c >= '0' && c <= '9') {
        value = value * 16 + (c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        value = value * 16 + (lower - 'a' + 10);
      } else {
        return std::nullopt;
      }
    }
    return static_cast<char>(value);
  }
};

class Fuse : public Decoder {
 public:
  void Apply(std::vector<std::string>& tokens) const override {
    std::string joined;
    for (const std::string& token : tokens) joined += token;
    tokens.assign(1, std::move(joined));
  }
};

class Replace : public Decoder {
 public:
  explicit Replace(std::unique_ptr<Normalizer> replace) : replace_(std::move(replace)) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) replace_->Apply(token);
  }

 private:
  std::unique_ptr<Normalizer> replace_;
};

// Takes up to `start` (`stop`) copies of one character off the front (back) of every token.
class Strip : public Decoder {
 public:
  Strip(std::string character, int64_t start, int64_t stop)
      : character_(std::move(character)), start_(start), stop_(stop) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) {
      for (int64_t i = 0; i < start_ && token.starts_with(character_); ++i) {
        token.erase(0, character_.size());
      }
      for (int64_t i = 0; i < stop_ && token.ends_with(character_); ++i) {
        token.resize(token.size() - character_.size());
      }
    }
  }

 private:
  std::string character_;
  int64_t start_, stop_;
};

class Metaspace : public Decoder {
 public:
  Metaspace(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), prepended_(prepended) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const absl::string_view space = i == 0 && prepended_ ? "" : " ";
      tokens[i] = absl::StrReplaceAll(tokens[i], {{replacement_, space}});
    }
  }

 private:
  std::string replacement_;
  bool prepended_;
};

// Takes out the spaces that words were cut at and texts do not have.
void CleanUp(std::string& token) {
  static constexpr std::pair<const char*, const char*> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) absl::StrReplaceAll({{from, to}}, &token);
}

class WordPiece : public Decoder {
 public:
  WordPiece(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) {
        if (tokens[i].starts_with(prefix_)) {
          tokens[i].erase(0, prefix_.size());
        } else {
          tokens[i].insert(0, 1, ' ');
        }
      }
      if (cleanup_) CleanUp(tokens[i]);
    }
  }

 private:
  std::string prefix_;
  bool cleanup_;
};

// The suffix that ends a word becomes the space after it.
class Bpe : public Decoder {
 public:
  explicit Bpe(std::string suffix) : suffix_(std::move(suffix)) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const absl::string_view space = i + 1 == tokens.size() ? "" : " ";
      tokens[i] = absl::StrReplaceAll(tokens[i], {{suffix_, space}});
    }
  }

 private:
  std::string suffix_;
};

// Of models that write a token again for as long as it is heard: repeated ones become one, and the
// pad token between them goes.
class Ctc : public Decoder {
 public:
  Ctc(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}
  void Apply(std::vector<std::string>& tokens) const override {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (std::string& token : tokens) {
      absl::StrReplaceAll({{pad_, ""}}, &token);
      if (!cleanup_) continue;
      CleanUp(token);
      absl::StrReplaceAll({{delimiter_, " "}}, &token);
    }
    std::erase(tokens, "");
  }

 private:
  std::string pad_, delimiter_;
  bool cleanup_;
};

class Sequence : public Decoder {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Decoder>> steps) : steps_(std::move(steps)) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (const auto& step : steps_) step->Apply(tokens);
  }

 private:
  std::vector<std::unique_ptr<Decoder>> steps_;
};

using DecoderOr = absl::StatusOr<std::unique_ptr<Decoder>>;

DecoderOr MakeSequence(const Field& steps) {
  RETURN_IF_ERROR(steps.CheckList());
  std::vector<std::unique_ptr<Decoder>> made;
  for (size_t i = 0; i < steps.size(); ++i) {
    ASSIGN_OR_RETURN(auto step, MakeDecoder(steps[i]));
    if (step != nullptr) made.push_back(std::move(step));
  }
  return std::make_unique<Sequence>(std::move(made));
}

absl::StatusOr<std::string> ReadNonEmpty(const Field& field, std::string_view fallback) {
  ASSIGN_OR_RETURN(std::string text, field.StringOr(fallback));
  if (text.empty()) return field.Expected("a text that is not empty");
  return text;
}

DecoderOr MakeMetaspace(const Field& spec) {
  ASSIGN_OR_RETURN(std::string replacement, ReadNonEmpty(spec["replacement"], "\u2581"));
  ASSIGN_OR_RETURN(const bool add_prefix_space, spec["add_prefix_space"].BoolOr(true));
  ASSIGN_OR_RETURN(const std::string scheme,
                   spec["prepend_scheme"].StringOr(add_prefix_space ? "always" : "never"));
  return std::make_unique<Metaspace>(std::move(replacement), scheme != "never");
}

DecoderOr MakeStrip(const Field& spec) {
  ASSIGN_OR_RETURN(std::string content, ReadNonEmpty(spec["content"], " "));
  ASSIGN_OR_RETURN(const int64_t start, spec["start"].IntOr(0, 0));
  ASSIGN_OR_RETURN(const int64_t stop, spec["stop"].IntOr(0, 0));
  return std::make_unique<Strip>(std::move(content), start, stop);
}

}  // namespace

DecoderOr MakeDecoder(const Field& spec) {
  if (!spec.present()) return nullptr;
  RETURN_IF_ERROR(spec.CheckMap());
  ASSIGN_OR_RETURN(const std::string type, spec["type"].String());
  if (type == "Sequence") return MakeSequence(spec["decoders"]);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Metaspace") return MakeMetaspace(spec);
  if (type == "Strip") return MakeStrip(spec);
  if (type == "Replace") {
    ASSIGN_OR_RETURN(auto replace, MakeReplace(spec));
    return std::make_unique<Replace>(std::move(replace));
  }
  if (type == "WordPiece") {
    ASSIGN_OR_RETURN(std::string prefix, ReadNonEmpty(spec["prefix"], "##"));
    ASSIGN_OR_RETURN(const bool cleanup, spec["cleanup"].BoolOr(true));
    return std::make_unique<WordPiece>(std::move(prefix), cleanup);
  }
  if (type == "CTC") {
    ASSIGN_OR_RETURN(std::string pad, ReadNonEmpty(spec["pad_token"], "<pad>"));
    ASSIGN_OR_RETURN(std::string delimiter, ReadNonEmpty(spec["word_delimiter_token"], "|"));
    ASSIGN_OR_RETURN(const bool cleanup, spec["cleanup"].BoolOr(true));
    return std::make_unique<Ctc>(std::move(pad), std::move(delimiter), cleanup);
  }
  if (type == "BPEDecoder") {
    ASSIGN_OR_RETURN(std::string suffix, ReadNonEmpty(spec["suffix"], "</w>"));
    return std::make_unique<Bpe>(std::move(suffix));
  }
  return spec["type"].Error(absl::StrCat("the decoder \"", type, "\" is not supported"));
}

}  // namespace flowmesh::text
