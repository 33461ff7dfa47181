#include <utility>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/text/gguf_tokenizer.h"
#include "executors/text/merges.h"
#include "executors/text/regex.h"
#include "executors/text/unicode.h"
#include "executors/text/word_cache.h"

namespace flowmesh::text {
namespace {

constexpr std::string_view kLlama3Pattern =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Merges join texts, whether or not the result is a token: texts without one get symbols of their
// own above the token ids.
class SymbolTable {
 public:
  SymbolTable(const std::vector<std::string>& tokens) : next_(static_cast<Symbol>(tokens.size())) {
    symbols_.reserve(tokens.size() + 1024);
    for (size_t id = 0; id < tokens.size(); ++id) symbols_[tokens[id]] = static_cast<Symbol>(id);
  }

  Symbol Intern(const std::string& text) {
    const auto [place, added] = symbols_.emplace(text, next_);
    if (added) {
      ++next_;
      without_token_.push_back(text);
    }
    return place->second;
  }

  // Texts without a token; the first has the symbol `tokens.size()`.
  std::vector<std::string> TakeWithoutToken() { return std::move(without_token_); }

 private:
  absl::flat_hash_map<std::string, Symbol> symbols_;
  Symbol next_;
  std::vector<std::string> without_token_;
};

class BpeTokenizer : public GgufTokenizer {
 public:
  BpeTokenizer(GgufVocabulary vocabulary, std::vector<Regex> patterns, bool ignore_merges)
      : GgufTokenizer(vocabulary), patterns_(std::move(patterns)), ignore_merges_(ignore_merges) {
    SymbolTable symbols(tokens_);
    merges_.Reserve(vocabulary.merges.size());
    for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
      const std::string& merge = vocabulary.merges[rank];
      const size_t space = merge.find(' ', 1);
      if (space == std::string::npos) continue;  // llama.cpp never finds such a merge either
      const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
      merges_.Add(symbols.Intern(left), symbols.Intern(right),
                  {static_cast<uint32_t>(rank), symbols.Intern(left + right)});
    }
    for (int byte = 0; byte < 256; ++byte) {
      byte_symbols_[byte] = symbols.Intern(ByteLevelAlphabet()[byte]);
    }
    without_token_ = symbols.TakeWithoutToken();
  }

 private:
  void EncodeText(std::string_view text, bool /*after_special*/,
                  std::vector<TokenId>& ids) const override {
    std::vector<std::string_view> words = {text};
    for (const Regex& pattern : patterns_) {
      std::vector<std::string_view> finer;
      finer.reserve(words.size());
      for (const std::string_view word : words) {
        for (const Span& span : pattern.FindSpans(word)) {
          finer.push_back(word.substr(span.begin, span.end - span.begin));
        }
      }
      words = std::move(finer);
    }
    for (const std::string_view word : words) EncodeWord(word, ids);
  }

  void EncodeWord(std::string_view word, std::vector<TokenId>& ids) const {
    if (cache_.Append(word, ids)) return;
    std::vector<TokenId> made;
    const std::optional<TokenId> whole =
        ignore_merges_ ? TokenToId(EncodeByteLevel(word)) : std::nullopt;
    if (whole.has_value()) {
      made.push_back(*whole);
    } else {
      std::vector<Symbol> symbols;
      symbols.reserve(word.size());
      for (const char c : word) symbols.push_back(byte_symbols_[static_cast<unsigned char>(c)]);
      merges_.Apply(symbols);
      for (const Symbol symbol : symbols) AppendToken(symbol, made);
    }
    ids.insert(ids.end(), made.begin(), made.end());
    cache_.Put(word, std::move(made));
  }

  // A text without a token becomes the tokens of its single bytes, as far as they exist.
  void AppendToken(Symbol symbol, std::vector<TokenId>& ids) const {
    if (symbol < tokens_.size()) {
      ids.push_back(static_cast<TokenId>(symbol));
      return;
    }
    for (const char byte : without_token_[symbol - tokens_.size()]) {
      if (const auto id = TokenToId({&byte, 1})) ids.push_back(*id);
    }
  }

  std::string NormalTokenBytes(const std::string& token) const override {
    std::string bytes;
    for (size_t pos = 0; pos < token.size();) {
      const size_t begin = pos;
      const std::optional<uint8_t> byte = ByteOfStandIn(NextCodePoint(token, pos));
      if (byte.has_value()) {
        bytes += static_cast<char>(*byte);
      } else {
        bytes.append(token, begin, pos - begin);
      }
    }
    return bytes;
  }

  std::vector<Regex> patterns_;
  bool ignore_merges_;
  MergeTable merges_;
  std::array<Symbol, 256> byte_symbols_;
  std::vector<std::string> without_token_;
  mutable WordCache cache_;
};

}  // namespace

std::optional<PreTokenizerRule> FindPreTokenizerRule(std::string_view pre) {
  if (pre == "gpt-2") return PreTokenizerRule{{kGpt2Pattern}};
  if (pre == "llama-bpe") return PreTokenizerRule{{kLlama3Pattern}, true, true};
  if (pre == "qwen2") return PreTokenizerRule{{kQwen2Pattern}};
  if (pre.empty() || pre == "default") {
    return PreTokenizerRule{
        {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern, R"(\p{N}+)", R"([0-9][0-9][0-9])"}};
  }
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufBpe(GgufVocabulary vocabulary) {
  const PreTokenizerRule rule = *FindPreTokenizerRule(vocabulary.pre);
  std::vector<Regex> patterns;
  for (const std::string_view pattern : rule.patterns) {
    ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
    patterns.push_back(std::move(regex));
  }
  return std::make_unique<BpeTokenizer>(std::move(vocabulary), std::move(patterns),
                                        rule.ignore_merges);
}

}  // namespace flowmesh::text
