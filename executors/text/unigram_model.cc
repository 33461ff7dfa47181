#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "executors/text/model.h"
#include "executors/text/token_trie.h"
#include "executors/text/unicode.h"
#include "executors/text/word_cache.h"

namespace flowmesh::text {
namespace {

constexpr TokenId kNone = -1;

// The way to cut a word into pieces whose scores have the greatest sum.
class UnigramModel : public Model {
 public:
  UnigramModel(Vocabulary vocabulary, std::vector<double> scores, TokenId unk_id,
               bool byte_fallback)
      : Model(std::move(vocabulary)),
        scores_(std::move(scores)),
        unk_id_(unk_id),
        byte_fallback_(byte_fallback) {
    constexpr double kUnknownPenalty = 10;
    unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
    TokenTrie::Entries entries;
    entries.reserve(scores_.size());
    for (TokenId id = 0; id < vocabulary_.id_end(); ++id) {
      // Of equal pieces the last one counts.
      const std::string& text = vocabulary_.Text(id);
      if (vocabulary_.Find(text) == id) entries.emplace_back(text, id);
    }
    trie_ = TokenTrie(std::move(entries));
    for (int byte = 0; byte < 256; ++byte) {
      byte_ids_[byte] = vocabulary_.Find(absl::StrFormat("<0x%02X>", byte)).value_or(kNone);
    }
  }

  void Encode(std::string_view word, std::vector<TokenId>& ids) const override {
    if (word.empty() || cache_.Append(word, ids)) return;
    const size_t before = ids.size();
    const std::vector<Step> best = BestSteps(word);
    std::vector<Step> path;  // from the back
    for (size_t end = word.size(); end > 0; end = best[end].begin) {
      // Unknown pieces side by side are one.
      if (best[end].id == unk_id_ && !path.empty() && path.back().id == unk_id_) {
        path.back().begin = best[end].begin;
      } else {
        path.push_back(best[end]);
      }
    }
    for (size_t i = path.size(); i-- > 0;) {
      const size_t end = i == 0 ? word.size() : path[i - 1].begin;
      if (path[i].id == unk_id_) {
        AppendUnknown(word.substr(path[i].begin, end - path[i].begin), ids);
      } else {
        ids.push_back(path[i].id);
      }
    }
    cache_.Put(word, std::vector<TokenId>(ids.begin() + static_cast<ptrdiff_t>(before), ids.end()));
  }

 private:
  // The last piece of the best way to a place in the word.
  struct Step {
    double score = 0;  // of the whole way
    size_t begin = kUnreached;
    TokenId id = kNone;
  };
  static constexpr size_t kUnreached = std::numeric_limits<size_t>::max();

  // By the place where the piece ends. Every first byte of a character is reached: one that is no
  // piece is an unknown one.
  std::vector<Step> BestSteps(std::string_view word) const {
    std::vector<Step> best(word.size() + 1);
    for (size_t begin = 0; begin < word.size();) {
      const double so_far = best[begin].score;
      const auto consider = [&](size_t end, double score, TokenId id) {
        Step& step = best[end];
        if (step.begin == kUnreached || so_far + score > step.score) {
          step = {so_far + score, begin, id};
        }
      };
      const size_t next =
          std::min(begin + Utf8Length(static_cast<unsigned char>(word[begin])), word.size());
      bool is_piece = false;  // the character by itself
      trie_.ForEachMatchAt(word, begin, [&](size_t end, TokenId id) {
        consider(end, scores_[static_cast<size_t>(id)], id);
        is_piece |= end == next;
      });
      if (!is_piece) consider(next, unknown_score_, unk_id_);
      begin = next;
    }
    return best;
  }

  // Joined unknown characters may spell a piece after all. Without an unknown token, where the
  // reference fails, they are left out.
  void AppendUnknown(std::string_view text, std::vector<TokenId>& ids) const {
    if (const std::optional<TokenId> id = vocabulary_.Find(text)) {
      ids.push_back(*id);
      return;
    }
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
    const bool has_bytes = byte_fallback_ && std::none_of(text.begin(), text.end(), [&](char c) {
                             return byte_id(c) == kNone;
                           });
    if (has_bytes) {
      for (const char c : text) ids.push_back(byte_id(c));
    } else if (unk_id_ != kNone) {
      ids.push_back(unk_id_);
    }
  }

  std::vector<double> scores_;  // by id
  TokenId unk_id_;              // or kNone
  bool byte_fallback_;
  double unknown_score_;
  TokenTrie trie_;
  std::array<TokenId, 256> byte_ids_;
  mutable WordCache cache_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> MakeUnigramModel(const Field& spec, PieceList pieces) {
  if (pieces.empty()) return spec["vocab"].Error("expected at least one piece");
  const int64_t last_id = static_cast<int64_t>(pieces.size()) - 1;
  ASSIGN_OR_RETURN(const int64_t unk_id, spec["unk_id"].present() ? spec["unk_id"].Int(0, last_id)
                                                                  : absl::StatusOr<int64_t>(kNone));
  ASSIGN_OR_RETURN(const bool byte_fallback, spec["byte_fallback"].BoolOr(false));
  std::vector<std::pair<std::string, int64_t>> entries;
  std::vector<double> scores;
  entries.reserve(pieces.size());
  scores.reserve(pieces.size());
  for (auto& [text, score] : pieces) {
    entries.emplace_back(std::move(text), static_cast<int64_t>(scores.size()));
    scores.push_back(score);
  }
  ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Build(std::move(entries), "model.vocab"));
  return std::make_unique<UnigramModel>(std::move(vocabulary), std::move(scores),
                                        static_cast<TokenId>(unk_id), byte_fallback);
}

}  // namespace flowmesh::text
