#include "executors/text/tokenizer_document.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh::text {
namespace {

using Entries = std::vector<std::pair<std::string, int64_t>>;
using Merges = std::vector<std::pair<std::string, std::string>>;

// Builds the document from parser events. Repeated keys are kept, the first one counts.
class Handler : public nlohmann::json_sax<Json> {
 public:
  // `root_is_vocabulary`: the outermost map is the vocabulary.
  explicit Handler(bool root_is_vocabulary) : root_is_vocabulary_(root_is_vocabulary) {}

  TokenizerDocument Take() { return std::move(document_); }
  const absl::Status& status() const { return status_; }

  bool null() override { return Value(Json(nullptr)); }
  bool boolean(bool value) override { return Value(Json(value)); }
  bool number_integer(number_integer_t value) override {
    if (mode_ == Mode::kPiece) return PieceScore(static_cast<double>(value));
    return mode_ == Mode::kVocabulary ? VocabularyId(value) : Value(Json(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (mode_ == Mode::kPiece) return PieceScore(static_cast<double>(value));
    if (mode_ != Mode::kVocabulary) return Value(Json(value));
    constexpr uint64_t kLargest = std::numeric_limits<int64_t>::max();
    return VocabularyId(static_cast<int64_t>(std::min<uint64_t>(value, kLargest)));
  }
  bool number_float(number_float_t value, const std::string&) override {
    return mode_ == Mode::kPiece ? PieceScore(value) : Value(Json(value));
  }
  bool binary(binary_t&) override { return false; }  // never in text

  bool string(std::string& value) override {
    if (mode_ == Mode::kMerges) return LegacyMerge(value);
    if (mode_ == Mode::kMergePair) {
      if (halves_ < 2) (halves_ == 0 ? pair_.first : pair_.second) = std::move(value);
      ++halves_;
      return true;
    }
    if (mode_ == Mode::kPiece && halves_ == 0) {
      piece_.first = std::move(value);
      ++halves_;
      return true;
    }
    return Value(Json(std::move(value)));
  }

  bool key(std::string& value) override {
    key_ = std::move(value);
    return true;
  }

  bool start_object(size_t) override {
    if (mode_ != Mode::kTree) return Unexpected();
    if (root_is_vocabulary_ ? containers_.empty() : AtModel("vocab")) {
      mode_ = Mode::kVocabulary;
      document_.vocab.emplace();
      return true;
    }
    return Open(Json::object());
  }

  bool end_object() override {
    if (mode_ == Mode::kVocabulary) {
      mode_ = Mode::kTree;
      return true;
    }
    containers_.pop_back();
    return true;
  }

  bool start_array(size_t) override {
    if (mode_ == Mode::kMerges) {
      mode_ = Mode::kMergePair;
      halves_ = 0;
      return true;
    }
    if (mode_ == Mode::kPieces) {
      mode_ = Mode::kPiece;
      halves_ = 0;
      return true;
    }
    if (mode_ != Mode::kTree) return Unexpected();
    if (AtModel("merges")) {
      mode_ = Mode::kMerges;
      document_.merges.emplace();
      return true;
    }
    if (AtModel("vocab")) {
      mode_ = Mode::kPieces;
      document_.pieces.emplace();
      return true;
    }
    return Open(Json::array());
  }

  bool end_array() override {
    if (mode_ == Mode::kMergePair) {
      mode_ = Mode::kMerges;
      if (halves_ != 2) return Unexpected();
      document_.merges->push_back(std::move(pair_));
      return true;
    }
    if (mode_ == Mode::kPiece) {
      mode_ = Mode::kPieces;
      if (halves_ != 2) return Unexpected();
      document_.pieces->push_back(std::move(piece_));
      return true;
    }
    if (mode_ == Mode::kMerges || mode_ == Mode::kPieces) {
      mode_ = Mode::kTree;
      return true;
    }
    containers_.pop_back();
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    std::string message = error.what();
    if (const size_t end = message.find("] "); end != std::string::npos) message.erase(0, end + 2);
    status_ = absl::InvalidArgumentError(absl::StrCat("not JSON: ", message.substr(0, 300)));
    return false;
  }

 private:
  enum class Mode { kTree, kVocabulary, kMerges, kMergePair, kPieces, kPiece };

  // Whether the value that comes next is `model.<name>`.
  bool AtModel(std::string_view name) const {
    return !root_is_vocabulary_ && containers_.size() == 2 && model_ == containers_.back() &&
           key_ == name;
  }

  bool Fail(std::string message) {
    status_ = absl::InvalidArgumentError(std::move(message));
    return false;
  }

  bool Unexpected() {
    if (mode_ == Mode::kVocabulary) {
      return Fail(absl::StrCat(root_is_vocabulary_ ? "" : "model.vocab", "[\"", key_.substr(0, 100),
                               "\"]: expected a token id"));
    }
    if (mode_ == Mode::kPieces || mode_ == Mode::kPiece) {
      return Fail(absl::StrCat("model.vocab[", document_.pieces->size(),
                               "]: expected a piece and its score: [\"a\", -1.5]"));
    }
    return Fail(absl::StrCat("model.merges[", document_.merges->size(),
                             "]: expected \"a b\" or [\"a\", \"b\"]"));
  }

  bool VocabularyId(int64_t id) {
    document_.vocab->emplace_back(std::move(key_), id);
    return true;
  }

  bool PieceScore(double score) {
    if (halves_ != 1) return Unexpected();
    piece_.second = score;
    ++halves_;
    return true;
  }

  bool LegacyMerge(const std::string& line) {
    if (line.starts_with("#version")) return true;
    std::optional<std::pair<std::string, std::string>> halves = SplitMerge(line);
    if (!halves.has_value()) return Unexpected();
    document_.merges->push_back(*std::move(halves));
    return true;
  }

  // Puts `value` where the parser is and returns its place.
  Json* Place(Json value) {
    if (containers_.empty()) {
      document_.root = std::move(value);
      return &document_.root;
    }
    Json& parent = *containers_.back();
    if (parent.is_array()) {
      auto& items = parent.get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    // Appended without a search for an equal key: a map of n keys costs n, not n squared.
    auto& members = parent.get_ref<Json::object_t&>();
    members.push_back({key_, std::move(value)});
    return &members.back().second;
  }

  bool Value(Json value) {
    if (mode_ != Mode::kTree) return Unexpected();
    Place(std::move(value));
    return true;
  }

  bool Open(Json container) {
    if (containers_.size() >= kMaxJsonDepth) {
      return Fail(absl::StrCat("JSON nested deeper than ", kMaxJsonDepth, " levels"));
    }
    const bool is_model = containers_.size() == 1 && key_ == "model" && container.is_object();
    // A parent's list does not grow while a child of it is open, so places stay valid.
    containers_.push_back(Place(std::move(container)));
    if (is_model) model_ = containers_.back();
    return true;
  }

  const bool root_is_vocabulary_;
  TokenizerDocument document_;
  absl::Status status_;
  Mode mode_ = Mode::kTree;
  std::vector<Json*> containers_;  // the open ones, outermost first
  const Json* model_ = nullptr;
  std::string key_;
  std::pair<std::string, std::string> pair_;
  std::pair<std::string, double> piece_;
  int halves_ = 0;  // of pair_ or piece_ that are read
};

absl::StatusOr<TokenizerDocument> Parse(std::string_view text, bool root_is_vocabulary) {
  Handler handler(root_is_vocabulary);
  if (!Json::sax_parse(text.begin(), text.end(), &handler)) {
    if (!handler.status().ok()) return handler.status();
    return absl::InvalidArgumentError("not JSON");
  }
  return handler.Take();
}

}  // namespace

absl::StatusOr<TokenizerDocument> ParseTokenizerDocument(std::string_view text) {
  return Parse(text, /*root_is_vocabulary=*/false);
}

absl::StatusOr<Entries> ParseVocabulary(std::string_view text) {
  ASSIGN_OR_RETURN(TokenizerDocument document, Parse(text, /*root_is_vocabulary=*/true));
  if (!document.vocab.has_value()) {
    return absl::InvalidArgumentError("expected a map from token to id");
  }
  return *std::move(document.vocab);
}

std::optional<std::pair<std::string, std::string>> SplitMerge(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return std::make_pair(std::string(line.substr(0, space)), std::string(line.substr(space + 1)));
}

}  // namespace flowmesh::text
