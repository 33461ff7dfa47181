#include <algorithm>
#include <array>
#include <queue>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "executors/text/gguf_tokenizer.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

constexpr std::string_view kSpace = "\u2581";  // stands for a space

// A run of bytes in a doubly linked list inside a vector.
struct Symbol {
  std::string_view text;  // empty once merged into its left neighbour
  int previous, next;     // -1 at the ends
};

// A pair of neighbours whose joined text is a token.
struct Bigram {
  float score;
  int left, right;
  size_t length;  // of the joined text

  // std::priority_queue puts the greatest on top: the best score, then the leftmost.
  bool operator<(const Bigram& other) const {
    return score != other.score ? score < other.score : left > other.left;
  }
};

class SpmTokenizer : public GgufTokenizer {
 public:
  explicit SpmTokenizer(GgufVocabulary vocabulary)
      : GgufTokenizer(vocabulary),
        scores_(std::move(vocabulary.scores)),
        add_space_prefix_(*vocabulary.add_space_prefix) {
    for (const std::string& token : tokens_) longest_ = std::max(longest_, token.size());
    for (int byte = 0; byte < 256; ++byte) {
      byte_ids_[byte] = TokenToId(absl::StrFormat("<0x%02X>", byte));
      if (!byte_ids_[byte]) byte_ids_[byte] = TokenToId(std::string(1, static_cast<char>(byte)));
    }
  }

 private:
  void EncodeText(std::string_view text, bool after_special,
                  std::vector<TokenId>& ids) const override {
    std::string escaped;
    escaped.reserve(text.size() + text.size() / 2);
    if (add_space_prefix_ && after_special) escaped += kSpace;
    for (const char c : text) {
      if (c == ' ') {
        escaped += kSpace;
      } else {
        escaped += c;
      }
    }
    std::vector<Symbol> symbols = Characters(escaped);
    Merge(symbols);
    for (int i = 0; i >= 0; i = symbols[i].next) AppendToken(symbols[i].text, ids);
  }

  static std::vector<Symbol> Characters(std::string_view text) {
    std::vector<Symbol> symbols;
    symbols.reserve(text.size());
    for (size_t pos = 0; pos < text.size();) {
      const size_t length =
          std::min(Utf8Length(static_cast<unsigned char>(text[pos])), text.size() - pos);
      const int index = static_cast<int>(symbols.size());
      symbols.push_back({text.substr(pos, length), index - 1, index + 1});
      pos += length;
    }
    symbols.back().next = -1;
    return symbols;
  }

  // Joins the pair with the best score until no pair is a token.
  void Merge(std::vector<Symbol>& symbols) const {
    std::priority_queue<Bigram> queue;
    const auto consider = [&](int left, int right) {
      if (left < 0 || right < 0) return;
      const size_t length = symbols[left].text.size() + symbols[right].text.size();
      if (length > longest_) return;
      // Neighbours lie side by side in the text.
      const std::optional<TokenId> id = TokenToId({symbols[left].text.data(), length});
      if (id.has_value()) queue.push({scores_[*id], left, right, length});
    };
    for (int i = 1; i < static_cast<int>(symbols.size()); ++i) consider(i - 1, i);
    while (!queue.empty()) {
      const Bigram best = queue.top();
      queue.pop();
      Symbol& left = symbols[best.left];
      Symbol& right = symbols[best.right];
      const bool stale = left.text.empty() || right.text.empty() ||
                         left.text.size() + right.text.size() != best.length;
      if (stale) continue;
      left.text = {left.text.data(), best.length};
      right.text = {};
      left.next = right.next;
      if (right.next >= 0) symbols[right.next].previous = best.left;
      consider(left.previous, best.left);
      consider(best.left, left.next);
    }
  }

  // A symbol without a token becomes its bytes; a byte without one, the unknown token.
  void AppendToken(std::string_view text, std::vector<TokenId>& ids) const {
    if (const std::optional<TokenId> id = TokenToId(text)) {
      ids.push_back(*id);
      return;
    }
    for (const char c : text) {
      const std::optional<TokenId> byte = byte_ids_[static_cast<unsigned char>(c)];
      if (byte.has_value()) {
        ids.push_back(*byte);
      } else if (unk_id().has_value()) {
        ids.push_back(*unk_id());
      }
    }
  }

  std::string NormalTokenBytes(const std::string& token) const override {
    return absl::StrReplaceAll(token, {{absl::string_view(kSpace.data(), kSpace.size()), " "}});
  }

  bool StripsLeadingSpace() const override { return add_space_prefix_; }

  std::vector<float> scores_;
  bool add_space_prefix_;
  size_t longest_ = 0;  // bytes of the longest token
  std::array<std::optional<TokenId>, 256> byte_ids_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufSpm(GgufVocabulary vocabulary) {
  return std::make_unique<SpmTokenizer>(std::move(vocabulary));
}

}  // namespace flowmesh::text
