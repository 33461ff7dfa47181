#include "absl/strings/str_cat.h"
#include "executors/text/model.h"

namespace flowmesh::text {
namespace {

// Each word is a token, or the unknown one.
class WordLevelModel : public Model {
 public:
  WordLevelModel(Vocabulary vocabulary, TokenId unk_id)
      : Model(std::move(vocabulary)), unk_id_(unk_id) {}

  void Encode(std::string_view word, std::vector<TokenId>& ids) const override {
    ids.push_back(vocabulary_.Find(word).value_or(unk_id_));
  }

 private:
  TokenId unk_id_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> MakeWordLevelModel(const Field& spec,
                                                          Vocabulary vocabulary) {
  ASSIGN_OR_RETURN(const TokenId unk_id, ReadUnkToken(spec["unk_token"], "<unk>", vocabulary));
  return std::make_unique<WordLevelModel>(std::move(vocabulary), unk_id);
}

}  // namespace flowmesh::text
