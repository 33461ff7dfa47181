#include "executors/model/encoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <new>
#include <numeric>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/strings.h"
#include "executors/model/checkpoint.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

// A checkpoint of a bare encoder has its names without the family's prefix, and old ones call a
// norm's weight and bias `gamma` and `beta`.
class EncoderSource : public WeightSource {
 public:
  EncoderSource(std::unique_ptr<WeightSource> files, std::string body, bool has_head)
      : files_(std::move(files)), prefix_(body + "."), has_head_(has_head) {}

  std::optional<std::vector<int64_t>> ShapeOf(const StoredName& name) const override {
    return files_->ShapeOf(InFile(name));
  }
  void Read(const StoredName& name, const at::Tensor& out) const override {
    files_->Read(InFile(name), out);
  }
  std::string DisplayName(const StoredName& name) const override { return InFile(name).name; }
  std::string Location() const override { return files_->Location(); }

  std::vector<std::string> Unused(const std::vector<StoredName>& used) const override {
    std::vector<StoredName> in_file;
    for (const StoredName& name : used) in_file.push_back(InFile(name));
    std::vector<std::string> unused = files_->Unused(in_file);
    std::erase_if(unused, [&](const std::string& name) {
      return absl::EndsWith(name, "embeddings.position_ids") ||  // a buffer, not a weight
             (!has_head_ && absl::StrContains(name, "pooler."));
    });
    return unused;
  }

 private:
  // The first form of the name that is there, else the name.
  StoredName InFile(const StoredName& name) const {
    for (const std::string& base :
         {name.name, std::string(ToStd(absl::StripPrefix(name.name, prefix_)))}) {
      for (const std::string& form :
           {base, absl::StrReplaceAll(base, {{"LayerNorm.weight", "LayerNorm.gamma"},
                                             {"LayerNorm.bias", "LayerNorm.beta"}})}) {
        StoredName found = name;
        found.name = form;
        if (files_->ShapeOf(found)) return found;
      }
    }
    return name;
  }

  const std::unique_ptr<WeightSource> files_;
  const std::string prefix_;
  const bool has_head_;
};

// What a family's tensors stand below in a checkpoint with a head.
const char* BodyOf(EncoderFamily family) {
  switch (family) {
    case EncoderFamily::kRoberta:
      return "roberta";
    case EncoderFamily::kDistilBert:
      return "distilbert";
    case EncoderFamily::kBert:
      break;
  }
  return "bert";
}

std::unique_ptr<Encoder> MakeEncoder(const EncoderConfig& config, int64_t classes) {
  switch (config.family) {
    case EncoderFamily::kRoberta:
      return MakeRoberta(config, classes);
    case EncoderFamily::kDistilBert:
      return MakeDistilBert(config, classes);
    case EncoderFamily::kBert:
      break;
  }
  return MakeBert(config, classes);
}

// The classes of the head in the file, by its last bias: the configuration may not say.
absl::StatusOr<int64_t> CountClasses(const EncoderConfig& config, const WeightSource& source) {
  const bool is_roberta = config.family == EncoderFamily::kRoberta;
  const StoredName bias = {is_roberta ? "classifier.out_proj.bias" : "classifier.bias", {}};
  const auto shape = source.ShapeOf(bias);
  if (!shape || shape->size() != 1 || (*shape)[0] < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        source.Location(), ": no sequence classifier: tensor ", bias.name, " is missing"));
  }
  return (*shape)[0];
}

absl::Status ReadWeights(const fs::path& folder, const EncoderConfig& config, EncoderHead head,
                         at::Device device, LoadedEncoder* loaded) {
  ASSIGN_OR_RETURN(const fs::path file, FindWeights(folder));
  if (file.extension() == ".gguf") {
    return absl::InvalidArgumentError(
        absl::StrCat(file.string(), ": encoders are read from safetensors only"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Safetensors> tensors, OpenSafetensors(file));
  const EncoderSource source(
      MakeSafetensorsSource(std::move(tensors), ModelConfig(), folder.string()),
      BodyOf(config.family), head != EncoderHead::kNone);
  int64_t classes = 0;
  if (head == EncoderHead::kClassification) {
    ASSIGN_OR_RETURN(classes, loaded->labels.empty() ? CountClasses(config, source)
                                                     : static_cast<int64_t>(loaded->labels.size()));
    for (int64_t i = loaded->labels.size(); i < classes; ++i) {
      loaded->labels.push_back(absl::StrCat("LABEL_", i));
    }
  }
  loaded->model = MakeEncoder(config, classes);
  const ParameterList& parameters = loaded->model->parameters();
  RETURN_IF_ERROR(LoadParameters(parameters, source, {at::kFloat}, device, {}));
  WarnOfUnused({&parameters}, source, &loaded->warnings);
  return absl::OkStatus();
}

}  // namespace

std::vector<int64_t> LengthsOf(const TokenRows& rows) {
  std::vector<int64_t> lengths;
  for (const std::vector<text::TokenId>& row : rows) {
    lengths.push_back(static_cast<int64_t>(row.size()));
  }
  return lengths;
}

Encoder::Encoder(const EncoderConfig& config, const EncoderNames& names)
    : config_(config), embeddings_(scope() / names.body / "embeddings", config_) {
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    layers_.emplace_back(scope() / names.body / names.layers / i, config_, names);
  }
}

std::vector<int64_t> Encoder::Positions(const std::vector<text::TokenId>& row) const {
  std::vector<int64_t> positions(row.size());
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

at::Tensor Encoder::Forward(const TokenRows& rows) const {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> ids, positions;
  for (const std::vector<text::TokenId>& row : rows) {
    TORCH_CHECK(!row.empty() && static_cast<int64_t>(row.size()) <= max_tokens(),
                "a row of an encoder has 1 to ", max_tokens(), " tokens, not ", row.size());
    ids.insert(ids.end(), row.begin(), row.end());
    const std::vector<int64_t> places = Positions(row);
    positions.insert(positions.end(), places.begin(), places.end());
  }
  const at::Device device = parameters_.all().front().tensor->device();
  const std::vector<int64_t> lengths = LengthsOf(rows);
  at::Tensor x = embeddings_(at::tensor(ids).to(device), at::tensor(positions).to(device));
  for (const EncoderLayer& layer : layers_) x = layer(x, lengths);
  return x;
}

absl::StatusOr<LoadedEncoder> LoadEncoder(const fs::path& folder, EncoderHead head,
                                          at::Device device) {
  const fs::path config_path = folder / "config.json";
  ASSIGN_OR_RETURN(const Json document, ReadJsonFile(config_path));
  const Field root(&document, "");
  const auto config = ParseEncoderConfig(root);
  if (!config.ok()) return Annotate(config.status(), config_path.string());
  LoadedEncoder loaded;
  if (head == EncoderHead::kClassification) {
    auto labels = ParseLabels(root);
    if (!labels.ok()) return Annotate(labels.status(), config_path.string());
    loaded.labels = *std::move(labels);
  }
  ASSIGN_OR_RETURN(loaded.tokenizer, text::LoadTokenizerFromFolder(folder));
  try {
    const at::NoGradGuard no_grad;
    RETURN_IF_ERROR(ReadWeights(folder, *config, head, device, &loaded));
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat(folder.string(), ": cannot load: ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat(folder.string(), ": not enough memory for the weights"));
  }
  return loaded;
}

}  // namespace flowmesh::model
