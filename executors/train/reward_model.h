// The reward model of PPO: texts in, scores out (TASKS.md 3.7).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "executors/model/sequence_classifier.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::train {

struct RewardOptions {
  enum class Type { kClassification, kSentiment };

  Type type = Type::kClassification;
  double scale = 1.0;
  int64_t max_length = 512;  // in tokens; the tokenizer's and the model's limits apply besides
  // A class by its name in any case, or by its index in digits.
  std::optional<std::string> positive_label, negative_label;
};

// Runs on the CPU. Not thread-safe.
class RewardModel {
 public:
  // Errors as LoadSequenceClassifier. InvalidArgument besides: `positive_label: ...` and
  // `negative_label: ...` when there is no such class, with those that there are.
  static absl::StatusOr<std::unique_ptr<RewardModel>> Load(const std::filesystem::path& folder,
                                                           const RewardOptions& options);

  // A score for each text; 0 for one that encodes to no token. ResourceExhausted: not enough
  // memory. InvalidArgument: the tokenizer knows tokens that the model has not.
  absl::StatusOr<std::vector<double>> Score(const std::vector<std::string>& texts);

  const std::vector<std::string>& labels() const { return classifier_.labels; }
  const std::vector<std::string>& warnings() const { return classifier_.warnings; }

 private:
  RewardModel(model::LoadedClassifier classifier, const RewardOptions& options)
      : options_(options), classifier_(std::move(classifier)) {}

  absl::Status ChooseClasses();
  double ScoreOf(const float* logits) const;  // [classes]

  const RewardOptions options_;
  model::LoadedClassifier classifier_;
  std::optional<size_t> positive_, negative_;  // classes that the score is made of
};

// A response as a reward model reads it (TASKS.md 4.7, point 5): without special tokens, spaces
// before punctuation and in contractions cleaned up, trimmed.
std::string ResponseText(const text::Tokenizer& tokenizer, const std::vector<text::TokenId>& ids);

// Transformers' clean-up of decoded text: `it 's` becomes `it's`, `a , b` becomes `a, b`, ...
std::string CleanUpSpaces(std::string_view text);

}  // namespace flowmesh::train
