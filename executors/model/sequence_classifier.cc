#include "executors/model/sequence_classifier.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "executors/kernels/linear.h"
#include "executors/model/checkpoint.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

constexpr char kScore[] = "score.weight";

class EncoderClassifier : public SequenceClassifier {
 public:
  explicit EncoderClassifier(std::unique_ptr<Encoder> encoder) : encoder_(std::move(encoder)) {}

  at::Tensor Logits(const TokenRows& rows) override {
    const at::NoGradGuard no_grad;
    std::vector<int64_t> first = {0};  // the place of each row's first token
    for (const auto& row : rows) first.push_back(first.back() + static_cast<int64_t>(row.size()));
    first.pop_back();
    return encoder_->Classify(encoder_->Forward(rows).index_select(0, at::tensor(first)));
  }

  int64_t max_tokens() const override { return encoder_->max_tokens(); }

 private:
  const std::unique_ptr<Encoder> encoder_;
};

class DecoderClassifier : public SequenceClassifier {
 public:
  DecoderClassifier(std::unique_ptr<Decoder> decoder, at::Tensor score)
      : decoder_(std::move(decoder)), score_(std::move(score)) {}

  at::Tensor Logits(const TokenRows& rows) override {
    const at::NoGradGuard no_grad;
    std::vector<int64_t> ids, positions, lengths, lengths_of_tokens, last;
    for (const std::vector<text::TokenId>& row : rows) {
      const auto length = static_cast<int64_t>(row.size());
      TORCH_CHECK(length >= 1 && length <= max_tokens(), "a row of a classifier has 1 to ",
                  max_tokens(), " tokens, not ", length);
      ids.insert(ids.end(), row.begin(), row.end());
      for (int64_t i = 0; i < length; ++i) positions.push_back(i);
      lengths.push_back(length);
      lengths_of_tokens.insert(lengths_of_tokens.end(), length, length);
      last.push_back(static_cast<int64_t>(ids.size()) - 1);
    }
    ForwardInput input;
    input.token_ids = at::tensor(ids);
    input.positions = at::tensor(positions);
    input.logit_rows = at::tensor(last);
    input.lengths = at::tensor(lengths_of_tokens);
    DenseAttention attention(at::tensor(lengths));
    return kernels::Linear(decoder_->Hidden(input, attention), score_, at::Tensor());
  }

  int64_t max_tokens() const override { return decoder_->info().max_positions; }

 private:
  const std::unique_ptr<Decoder> decoder_;
  const at::Tensor score_;  // [classes, hidden]
};

// `labels` as the configuration names them; those of the rest are added.
absl::StatusOr<at::Tensor> ReadScore(const Checkpoint& checkpoint, const Decoder& decoder,
                                     LoadedClassifier* loaded) {
  const auto shape = checkpoint.weights->ShapeOf({kScore, {}});
  if (!shape || shape->empty() || (*shape)[0] < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint.path.string(), ": no sequence classifier: tensor ", kScore, " is missing"));
  }
  if (loaded->labels.empty()) {
    for (int64_t i = 0; i < (*shape)[0]; ++i) loaded->labels.push_back(absl::StrCat("LABEL_", i));
  }
  at::Tensor score;
  ParameterList list;
  (ParameterScope(&list) / "score")
      .Add(&score, "weight",
           {static_cast<int64_t>(loaded->labels.size()), decoder.info().hidden_size});
  RETURN_IF_ERROR(LoadParameters(list, *checkpoint.weights, {at::kFloat}, at::kCPU, {}));
  WarnOfUnused({&decoder.parameters(), &list}, *checkpoint.weights, &loaded->warnings);
  return score;
}

absl::StatusOr<LoadedClassifier> LoadDecoderClassifier(const fs::path& folder,
                                                       std::vector<std::string> labels) {
  ASSIGN_OR_RETURN(Checkpoint checkpoint, OpenCheckpoint(folder));
  checkpoint.config.tie_word_embeddings = true;  // the file has no head over the vocabulary
  LoadedClassifier loaded;
  loaded.labels = std::move(labels);
  ASSIGN_OR_RETURN(loaded.tokenizer, text::LoadTokenizerFromFolder(folder));
  LoadOptions options;
  options.dtype = at::kFloat;
  std::vector<std::string> without_score;  // takes `score` for unexpected; ReadScore knows better
  ASSIGN_OR_RETURN(std::unique_ptr<Decoder> decoder,
                   LoadDecoder(checkpoint, options, &without_score));
  const at::NoGradGuard no_grad;
  ASSIGN_OR_RETURN(at::Tensor score, ReadScore(checkpoint, *decoder, &loaded));
  loaded.model = std::make_unique<DecoderClassifier>(std::move(decoder), std::move(score));
  return loaded;
}

absl::StatusOr<LoadedClassifier> LoadEncoderClassifier(const fs::path& folder) {
  ASSIGN_OR_RETURN(LoadedEncoder encoder, LoadEncoder(folder, EncoderHead::kClassification));
  LoadedClassifier loaded;
  loaded.model = std::make_unique<EncoderClassifier>(std::move(encoder.model));
  loaded.tokenizer = std::move(encoder.tokenizer);
  loaded.labels = std::move(encoder.labels);
  loaded.warnings = std::move(encoder.warnings);
  return loaded;
}

}  // namespace

absl::StatusOr<LoadedClassifier> LoadSequenceClassifier(const fs::path& folder) {
  const fs::path config_path = folder / "config.json";
  ASSIGN_OR_RETURN(const Json document, ReadJsonFile(config_path));
  const Field root(&document, "");
  const auto in_config = [&](const absl::Status& status) {
    return Annotate(status, config_path.string());
  };
  if (absl::Status status = root.CheckMap(); !status.ok()) return in_config(status);
  const auto type = root["model_type"].NonEmptyString();
  if (!type.ok()) return in_config(type.status());
  if (IsEncoderType(*type)) return LoadEncoderClassifier(folder);
  if (!IsDecoderType(*type)) {
    return in_config(root["model_type"].Error(
        absl::StrCat("\"", *type, "\" is not supported; known: ", KnownEncoderTypes(), ", ",
                     KnownModelTypes())));
  }
  auto labels = ParseLabels(root);
  if (!labels.ok()) return in_config(labels.status());
  return LoadDecoderClassifier(folder, *std::move(labels));
}

}  // namespace flowmesh::model
