#include <array>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "executors/text/merges.h"
#include "executors/text/model.h"
#include "executors/text/unicode.h"
#include "executors/text/word_cache.h"

namespace flowmesh::text {
namespace {

struct BpeSettings {
  std::optional<TokenId> unk_id;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;      // a word that is a token becomes it at once
  std::string continuing_prefix;   // before every character but a word's first
  std::string end_of_word_suffix;  // after a word's last character
};

class BpeModel : public Model {
 public:
  BpeModel(Vocabulary vocabulary, BpeSettings settings, MergeTable merges)
      : Model(std::move(vocabulary)), settings_(std::move(settings)), merges_(std::move(merges)) {
    for (int byte = 0; byte < 256; ++byte) {
      byte_ids_[byte] = vocabulary_.Find(absl::StrFormat("<0x%02X>", byte));
    }
  }

  void Encode(std::string_view word, std::vector<TokenId>& ids) const override {
    if (word.empty()) return;
    if (settings_.ignore_merges) {
      if (const std::optional<TokenId> id = vocabulary_.Find(word)) {
        ids.push_back(*id);
        return;
      }
    }
    if (cache_.Append(word, ids)) return;
    std::vector<Symbol> symbols = Symbols(word);
    merges_.Apply(symbols);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
    cache_.Put(word, std::vector<TokenId>(symbols.begin(), symbols.end()));
  }

 private:
  // The word's characters as tokens; unknown ones as bytes or as the unknown token.
  std::vector<Symbol> Symbols(std::string_view word) const {
    std::vector<Symbol> symbols;
    symbols.reserve(word.size());
    bool pending_unk = false;  // an unknown token that further unknown characters may join
    const bool decorated =
        !settings_.continuing_prefix.empty() || !settings_.end_of_word_suffix.empty();
    std::string buffer;
    for (size_t pos = 0; pos < word.size();) {
      const size_t begin = pos;
      NextCodePoint(word, pos);
      std::string_view character = word.substr(begin, pos - begin);
      if (decorated) {
        buffer.clear();
        if (begin > 0) buffer += settings_.continuing_prefix;
        buffer += character;
        if (pos == word.size()) buffer += settings_.end_of_word_suffix;
        character = buffer;
      }
      if (const std::optional<TokenId> id = vocabulary_.Find(character)) {
        if (pending_unk) symbols.push_back(static_cast<Symbol>(*settings_.unk_id));
        pending_unk = false;
        symbols.push_back(static_cast<Symbol>(*id));
        continue;
      }
      // As in the reference, bytes do not flush a pending unknown token.
      if (settings_.byte_fallback && AppendBytes(character, symbols)) continue;
      if (!settings_.unk_id.has_value()) continue;
      if (pending_unk && !settings_.fuse_unk) {
        symbols.push_back(static_cast<Symbol>(*settings_.unk_id));
      }
      pending_unk = true;
    }
    if (pending_unk) symbols.push_back(static_cast<Symbol>(*settings_.unk_id));
    return symbols;
  }

  // The `<0xNN>` tokens of a character; false, and nothing appended, when one is missing.
  bool AppendBytes(std::string_view character, std::vector<Symbol>& symbols) const {
    for (const char c : character) {
      if (!byte_ids_[static_cast<unsigned char>(c)].has_value()) return false;
    }
    for (const char c : character) {
      symbols.push_back(static_cast<Symbol>(*byte_ids_[static_cast<unsigned char>(c)]));
    }
    return true;
  }

  BpeSettings settings_;
  MergeTable merges_;
  std::array<std::optional<TokenId>, 256> byte_ids_;
  mutable WordCache cache_;
};

absl::StatusOr<MergeTable> BuildMerges(const MergeList& merges, const Vocabulary& vocabulary,
                                       size_t prefix_length) {
  MergeTable table;
  table.Reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    std::optional<TokenId> ids[3] = {vocabulary.Find(left), vocabulary.Find(right), std::nullopt};
    std::string merged = left;
    if (right.size() >= prefix_length) merged.append(right, prefix_length);
    ids[2] = vocabulary.Find(merged);
    const std::string* names[3] = {&left, &right, &merged};
    for (int k = 0; k < 3; ++k) {
      if (!ids[k].has_value()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "model.merges[", i, "]: \"", names[k]->substr(0, 100), "\" is not in the vocabulary"));
      }
    }
    table.Set(static_cast<Symbol>(*ids[0]), static_cast<Symbol>(*ids[1]),
              {static_cast<uint32_t>(i), static_cast<Symbol>(*ids[2])});
  }
  return table;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> MakeBpeModel(const Field& spec, Vocabulary vocabulary,
                                                    const MergeList& merges) {
  BpeSettings settings;
  ASSIGN_OR_RETURN(const double dropout, spec["dropout"].NumberOr(0));
  if (dropout != 0) {
    return spec["dropout"].Error("dropout makes ids random and is not supported");
  }
  ASSIGN_OR_RETURN(const std::string unk_token, spec["unk_token"].StringOr(""));
  if (!unk_token.empty()) settings.unk_id = vocabulary.Find(unk_token);
  ASSIGN_OR_RETURN(settings.fuse_unk, spec["fuse_unk"].BoolOr(false));
  ASSIGN_OR_RETURN(settings.byte_fallback, spec["byte_fallback"].BoolOr(false));
  ASSIGN_OR_RETURN(settings.ignore_merges, spec["ignore_merges"].BoolOr(false));
  ASSIGN_OR_RETURN(settings.continuing_prefix, spec["continuing_subword_prefix"].StringOr(""));
  ASSIGN_OR_RETURN(settings.end_of_word_suffix, spec["end_of_word_suffix"].StringOr(""));
  ASSIGN_OR_RETURN(MergeTable table,
                   BuildMerges(merges, vocabulary, settings.continuing_prefix.size()));
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(settings), std::move(table));
}

}  // namespace flowmesh::text
