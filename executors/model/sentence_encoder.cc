#include "executors/model/sentence_encoder.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "executors/model/checkpoint.h"
#include "executors/text/truncation.h"
#include "executors/text/unicode.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

// Of one forward pass: enough for matrix products at full speed, few enough that the widest
// activations stay in the cache.
constexpr size_t kTokensAtOnce = 2048;
// Large batches are a multiple of it: each size has kernels made for it and memory set aside.
constexpr size_t kTokensStep = 256;

// Without the white space around it, as Python's str.strip.
std::string_view Stripped(std::string_view text) {
  size_t begin = 0, end = 0;
  bool is_leading = true;
  for (size_t pos = 0; pos < text.size();) {
    const size_t here = pos;
    const char32_t c = text::NextCodePoint(text, pos);
    if (text::IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F)) continue;
    if (is_leading) begin = here;
    is_leading = false;
    end = pos;
  }
  return text.substr(begin, end - begin);
}

// x: [texts, length, width] -> [texts, width].
at::Tensor Pool(const at::Tensor& x, Pooling pooling) {
  const int64_t length = x.size(1);
  switch (pooling) {
    case Pooling::kCls:
      return x.select(1, 0);
    case Pooling::kLastToken:
      return x.select(1, length - 1);
    case Pooling::kMax:
      return x.amax(1);
    case Pooling::kMean:
      return x.mean(1);
    case Pooling::kMeanSqrtLength:
      return x.sum(1) / std::sqrt(static_cast<double>(length));
    case Pooling::kWeightedMean:
      break;
  }
  const at::Tensor weights = at::arange(1, length + 1, x.options()).unsqueeze(1);  // [length, 1]
  return (x * weights).sum(1) / weights.sum();
}

at::Tensor Activated(const at::Tensor& x, SentenceStep::Activation activation) {
  switch (activation) {
    case SentenceStep::Activation::kTanh:
      return at::tanh(x);
    case SentenceStep::Activation::kRelu:
      return at::relu(x);
    case SentenceStep::Activation::kGelu:
      return at::gelu(x);
    case SentenceStep::Activation::kIdentity:
      break;
  }
  return x;
}

}  // namespace

SentenceEncoder::SentenceEncoder(SentenceConfig config, LoadedEncoder encoder)
    : config_(std::move(config)), encoder_(std::move(encoder)) {
  const int64_t limit = encoder_.model->max_tokens();
  max_tokens_ = std::min(
      limit, config_.max_seq_length.value_or(tokenizer().model_max_length().value_or(limit)));
  dimension_ = encoder_.model->config().hidden_size * static_cast<int64_t>(config_.pooling.size());
}

absl::StatusOr<std::unique_ptr<SentenceEncoder>> SentenceEncoder::Load(const fs::path& folder,
                                                                       at::Device device) {
  ASSIGN_OR_RETURN(SentenceConfig config, ReadSentenceConfig(folder));
  ASSIGN_OR_RETURN(LoadedEncoder encoder, LoadEncoder(config.encoder, EncoderHead::kNone, device));
  std::unique_ptr<SentenceEncoder> made(new SentenceEncoder(std::move(config), std::move(encoder)));
  RETURN_IF_ERROR(made->LoadDense(device));
  return made;
}

absl::Status SentenceEncoder::LoadDense(at::Device device) {
  for (const SentenceStep& step : config_.steps) {
    if (step.kind != SentenceStep::Kind::kDense) continue;
    if (step.in != dimension_) {
      return absl::InvalidArgumentError(
          absl::StrCat((step.folder / "config.json").string(), ": in_features: expected ",
                       dimension_, ", the width of what comes before, got ", step.in));
    }
    ASSIGN_OR_RETURN(const auto file, Safetensors::OpenFile(step.folder / "model.safetensors"));
    const auto read = [&](const std::string& name, std::vector<int64_t> shape,
                          at::Tensor* out) -> absl::Status {
      const SafetensorsTensor* tensor = file->Find(name);
      if (tensor == nullptr || tensor->shape != shape || tensor->dtype != at::kFloat) {
        return absl::InvalidArgumentError(
            absl::StrCat((step.folder / "model.safetensors").string(), ": tensor ", name,
                         ": expected float32 of the shape that config.json gives"));
      }
      at::Tensor copy = at::empty(shape, at::kFloat);
      std::copy(tensor->data.begin(), tensor->data.end(),
                static_cast<std::byte*>(copy.mutable_data_ptr()));
      *out = copy.to(device);
      return absl::OkStatus();
    };
    Dense dense;
    RETURN_IF_ERROR(read("linear.weight", {step.out, step.in}, &dense.weight));
    if (step.bias) RETURN_IF_ERROR(read("linear.bias", {step.out}, &dense.bias));
    dense_.push_back(std::move(dense));
    dimension_ = step.out;
  }
  return absl::OkStatus();
}

std::vector<text::TokenId> SentenceEncoder::Tokenize(const std::string& text) const {
  const std::string valid = text::ReplaceInvalidUtf8(text);
  const std::string_view stripped = Stripped(valid);
  return text::EncodeTruncated(
      tokenizer(), config_.do_lower_case ? text::Lowercase(stripped) : std::string(stripped),
      max_tokens_);
}

at::Tensor SentenceEncoder::EmbedRows(const TokenRows& rows) const {
  const at::Tensor hidden = encoder_.model->Forward(rows);  // [tokens, width]
  std::vector<at::Tensor> runs;
  for (const EqualRun& run : EqualRuns(LengthsOf(rows))) {
    const at::Tensor x =
        hidden.narrow(0, run.begin, run.count * run.length).unflatten(0, {run.count, run.length});
    std::vector<at::Tensor> pooled;
    for (const Pooling pooling : config_.pooling) pooled.push_back(Pool(x, pooling));
    runs.push_back(at::cat(pooled, 1));
  }
  at::Tensor x = at::cat(runs);
  size_t dense = 0;
  for (const SentenceStep& step : config_.steps) {
    if (step.kind == SentenceStep::Kind::kDense) {
      x = Activated(at::linear(x, dense_[dense].weight, dense_[dense].bias), step.activation);
      ++dense;
    } else {
      x = x / x.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12);
    }
  }
  return x;
}

void SentenceEncoder::FillUp(TokenRows& batch, size_t tokens) const {
  if (tokens < kTokensAtOnce / 2) return;
  size_t missing = (kTokensStep - tokens % kTokensStep) % kTokensStep;
  while (missing > 0) {
    const size_t length = std::min(missing, static_cast<size_t>(max_tokens_));
    batch.emplace_back(length, 0);
    missing -= length;
  }
}

absl::StatusOr<at::Tensor> SentenceEncoder::Embed(
    const std::vector<std::string>& texts,
    const std::function<bool(size_t done)>& on_progress) const {
  const at::NoGradGuard no_grad;
  TokenRows rows(texts.size());
  at::parallel_for(0, static_cast<int64_t>(texts.size()), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) rows[i] = Tokenize(texts[i]);
  });
  // By length, so that texts of one length are computed as one block. The longest first: if memory
  // does not suffice, that shows at once.
  std::vector<size_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rows[a].size() > rows[b].size(); });
  at::Tensor result = at::zeros({static_cast<int64_t>(texts.size()), dimension_});
  size_t done = 0;
  while (done < order.size() && !rows[order[done]].empty()) {
    TokenRows batch;
    size_t tokens = 0;
    const size_t first = done;
    while (done < order.size() && !rows[order[done]].empty()) {
      std::vector<text::TokenId>& row = rows[order[done]];
      if (!batch.empty() && tokens + row.size() > kTokensAtOnce) break;
      tokens += row.size();
      batch.push_back(std::move(row));
      ++done;
    }
    FillUp(batch, tokens);
    const at::Tensor vectors = EmbedRows(batch).to(at::kCPU);
    for (size_t i = first; i < done; ++i) {
      result[static_cast<int64_t>(order[i])].copy_(vectors[static_cast<int64_t>(i - first)]);
    }
    if (!on_progress(done)) return absl::CancelledError("stopped");
  }
  return result;
}

}  // namespace flowmesh::model
