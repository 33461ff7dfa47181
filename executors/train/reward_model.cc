#include "executors/train/reward_model.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/strings.h"
#include "executors/text/truncation.h"

namespace flowmesh::train {
namespace {

constexpr size_t kRowsAtOnce = 16;

absl::StatusOr<size_t> FindClass(std::string_view key, const std::string& wanted,
                                 const std::vector<std::string>& labels) {
  for (size_t i = 0; i < labels.size(); ++i) {
    if (ToLower(labels[i]) == ToLower(wanted)) return i;
  }
  size_t index = 0;
  if (absl::SimpleAtoi(wanted, &index) && index < labels.size()) return index;
  return absl::InvalidArgumentError(
      absl::StrCat(ToAbsl(key), ": expected one of the classes ", absl::StrJoin(labels, ", "),
                   ", or an index below ", labels.size(), ", got \"", wanted, "\""));
}

std::optional<size_t> FirstNamed(std::string_view word, const std::vector<std::string>& labels) {
  for (size_t i = 0; i < labels.size(); ++i) {
    if (absl::StrContains(ToLower(labels[i]), ToAbsl(word))) return i;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RewardModel>> RewardModel::Load(const std::filesystem::path& folder,
                                                               const RewardOptions& options) {
  ASSIGN_OR_RETURN(model::LoadedClassifier classifier, model::LoadSequenceClassifier(folder));
  std::unique_ptr<RewardModel> reward(new RewardModel(std::move(classifier), options));
  RETURN_IF_ERROR(reward->ChooseClasses());
  return reward;
}

absl::Status RewardModel::ChooseClasses() {
  if (options_.positive_label) {
    ASSIGN_OR_RETURN(positive_, FindClass("positive_label", *options_.positive_label, labels()));
  }
  if (options_.negative_label) {
    ASSIGN_OR_RETURN(negative_, FindClass("negative_label", *options_.negative_label, labels()));
  }
  if (options_.type == RewardOptions::Type::kSentiment) {
    if (!positive_) positive_ = FirstNamed("positive", labels());
    if (!negative_) negative_ = FirstNamed("negative", labels());
  } else {
    negative_.reset();
  }
  return absl::OkStatus();
}

double RewardModel::ScoreOf(const float* logits) const {
  if (labels().size() == 1) return logits[0] * options_.scale;
  const double positive =
      positive_ ? logits[*positive_] : *std::max_element(logits, logits + labels().size());
  return (positive - (negative_ ? logits[*negative_] : 0.0)) * options_.scale;
}

absl::StatusOr<std::vector<double>> RewardModel::Score(const std::vector<std::string>& texts) {
  const int64_t limit = std::min({options_.max_length, classifier_.model->max_tokens(),
                                  classifier_.tokenizer->model_max_length().value_or(512)});
  std::vector<double> scores(texts.size(), 0.0);
  try {
    for (size_t begin = 0; begin < texts.size(); begin += kRowsAtOnce) {
      model::TokenRows rows;
      std::vector<size_t> places;
      for (size_t i = begin; i < std::min(texts.size(), begin + kRowsAtOnce); ++i) {
        std::vector<text::TokenId> ids =
            text::EncodeTruncated(*classifier_.tokenizer, texts[i], limit);
        if (ids.empty()) continue;
        rows.push_back(std::move(ids));
        places.push_back(i);
      }
      if (rows.empty()) continue;
      const at::Tensor logits = classifier_.model->Logits(rows).contiguous();
      for (size_t row = 0; row < rows.size(); ++row) {
        scores[places[row]] = ScoreOf(logits.const_data_ptr<float>() + row * labels().size());
      }
    }
  } catch (const c10::IndexError& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("a token beyond the model's vocabulary: ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("not enough memory for the reward model");
  }
  return scores;
}

std::string ResponseText(const text::Tokenizer& tokenizer, const std::vector<text::TokenId>& ids) {
  return std::string(Trim(CleanUpSpaces(tokenizer.Decode(ids, /*skip_special_tokens=*/true))));
}

std::string CleanUpSpaces(std::string_view text) {
  std::string clean(text);
  for (const auto& [from, to] : {std::pair{" .", "."},
                                 {" ?", "?"},
                                 {" !", "!"},
                                 {" ,", ","},
                                 {" ' ", "'"},
                                 {" n't", "n't"},
                                 {" 'm", "'m"},
                                 {" 's", "'s"},
                                 {" 've", "'ve"},
                                 {" 're", "'re"}}) {
    absl::StrReplaceAll({{from, to}}, &clean);  // one after another: the order matters
  }
  return clean;
}

}  // namespace flowmesh::train
