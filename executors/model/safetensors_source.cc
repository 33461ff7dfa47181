#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/model/weight_source.h"

namespace flowmesh::model {
namespace {

bool EndsWith(std::string_view text, std::string_view suffix) {
  return absl::EndsWith(ToAbsl(text), ToAbsl(suffix));
}

class SafetensorsSource : public WeightSource {
 public:
  SafetensorsSource(std::unique_ptr<Safetensors> files, const ModelConfig& config,
                    std::string location)
      : files_(std::move(files)),
        location_(std::move(location)),
        is_gpt2_(config.family == Family::kGpt2),
        is_tied_(config.tie_word_embeddings),
        root_(is_gpt2_ ? "transformer." : "model.") {
    FindPrefix(is_gpt2_ ? "wte.weight" : "embed_tokens.weight");
  }

  std::optional<std::vector<int64_t>> ShapeOf(const StoredName& name) const override {
    const SafetensorsTensor* tensor = files_->Find(FileName(name.name));
    if (tensor == nullptr) return std::nullopt;
    std::vector<int64_t> shape = tensor->shape;
    if (name.transposed && shape.size() == 2) std::swap(shape[0], shape[1]);
    return shape;
  }

  void Read(const StoredName& name, const at::Tensor& out) const override {
    const SafetensorsTensor& tensor = *files_->Find(FileName(name.name));
    std::byte* data = const_cast<std::byte*>(tensor.data.data());
    at::Tensor aligned;  // old writers did not pad their headers
    if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(tensor.dtype) != 0) {
      aligned = at::empty(tensor.shape, tensor.dtype);
      std::memcpy(aligned.mutable_data_ptr(), data, tensor.data.size());
    } else {
      aligned = at::from_blob(data, tensor.shape, at::TensorOptions(tensor.dtype));
    }
    out.copy_(name.transposed ? aligned.t() : aligned);
    tensor.file->Release(tensor.data);
  }

  std::string DisplayName(const StoredName& name) const override { return FileName(name.name); }
  std::string Location() const override { return location_; }

  std::vector<std::string> Unused(const std::vector<StoredName>& used) const override {
    std::set<std::string> names;
    for (const StoredName& name : used) names.insert(FileName(name.name));
    std::vector<std::string> unused;
    for (const SafetensorsTensor& tensor : files_->tensors()) {
      if (!names.contains(tensor.name) && !IsIgnorable(tensor.name)) unused.push_back(tensor.name);
    }
    return unused;
  }

 private:
  // The model stands below `model.` (`transformer.`) in the checkpoint of a causal LM, below
  // nothing in that of a bare model, and below `language_model.model.` or the like beside an image
  // part. The embeddings tell which.
  void FindPrefix(const std::string& anchor) {
    prefix_ = root_;
    if (files_->Find(prefix_ + anchor) != nullptr) return;
    for (const SafetensorsTensor& tensor : files_->tensors()) {
      if (!EndsWith(tensor.name, anchor)) continue;
      const std::string prefix = tensor.name.substr(0, tensor.name.size() - anchor.size());
      if (prefix.empty() || EndsWith(prefix, "language_model." + root_) ||
          EndsWith(prefix, "language_model.")) {
        prefix_ = prefix;
        break;
      }
    }
  }

  std::string FileName(const std::string& name) const {
    if (absl::StartsWith(name, root_)) return prefix_ + name.substr(root_.size());
    if (files_->Find(name) != nullptr) return name;
    // The head of a multimodal checkpoint: beside the text part's body.
    if (EndsWith(prefix_, root_)) {
      const std::string sibling = prefix_.substr(0, prefix_.size() - root_.size()) + name;
      if (files_->Find(sibling) != nullptr) return sibling;
    }
    return name;
  }

  // Buffers that old checkpoints carry, copies of tied heads, and the image part.
  bool IsIgnorable(const std::string& name) const {
    if (EndsWith(name, "rotary_emb.inv_freq")) return true;
    if (is_gpt2_ && (EndsWith(name, ".attn.bias") || EndsWith(name, ".attn.masked_bias"))) {
      return true;
    }
    if (is_tied_ && EndsWith(name, "lm_head.weight")) return true;
    return absl::StrContains(name, "vision_tower.") ||
           absl::StrContains(name, "multi_modal_projector.");
  }

  const std::unique_ptr<Safetensors> files_;
  const std::string location_;
  const bool is_gpt2_, is_tied_;
  const std::string root_;  // the prefix of the names that layers register
  std::string prefix_;      // what stands in its place in the files
};

}  // namespace

std::unique_ptr<WeightSource> MakeSafetensorsSource(std::unique_ptr<Safetensors> files,
                                                    const ModelConfig& config,
                                                    std::string location) {
  return std::make_unique<SafetensorsSource>(std::move(files), config, std::move(location));
}

}  // namespace flowmesh::model
