#include "executors/tasks/warm_encoder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "executors/device/allocator.h"
#include "executors/tasks/fetch_source.h"

namespace flowmesh::tasks {
namespace {

std::vector<std::vector<float>> Rows(const at::Tensor& vectors) {  // [texts, dimension]
  std::vector<std::vector<float>> rows(static_cast<size_t>(vectors.size(0)));
  const float* row = vectors.const_data_ptr<float>();
  for (std::vector<float>& out : rows) {
    out.assign(row, row + vectors.size(1));
    row += vectors.size(1);
  }
  return rows;
}

}  // namespace

absl::Status WarmEncoder::Load(const ModelName& name, const std::string& field, at::Device device,
                               const TaskContext& context, const EnvLookup& env) {
  ASSIGN_OR_RETURN(const std::filesystem::path folder, FindByName(name, field, context, env));
  std::string key =
      absl::StrCat(name.identifier, "\n", name.revision, "\n", device.str(), "\n", StampOf(folder));
  if (key == key_) {
    context.on_log(LogLevel::kInfo, absl::StrCat("model ", name.identifier, " is warm"));
    return absl::OkStatus();
  }
  key_.clear();
  encoder_.reset();
  context.on_progress({.stage = "loading model"});
  const absl::Duration begin = Clock::Real().Monotonic();
  device::KeepFreedMemory();
  auto loaded = model::SentenceEncoder::Load(folder, device);
  if (!loaded.ok()) return Annotate(loaded.status(), field);
  encoder_ = *std::move(loaded);
  for (const std::string& warning : encoder_->warnings()) {
    context.on_log(LogLevel::kWarning, warning);
  }
  key_ = std::move(key);
  context.on_log(
      LogLevel::kInfo,
      absl::StrFormat("loaded model %s in %.2f s: path %s, revision %s, device %s, dimension %d",
                      name.identifier, absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin),
                      folder.string(), name.revision, device.str(), encoder_->dimension()));
  return absl::OkStatus();
}

retrieval::Embedder WarmEncoder::embedder() {
  return {.embed = [this](const std::vector<std::string>& texts,
                          const std::function<bool(size_t)>& go_on)
              -> absl::StatusOr<std::vector<std::vector<float>>> {
            absl::MutexLock lock(&turn_);
            ASSIGN_OR_RETURN(const at::Tensor vectors, encoder_->Embed(texts, go_on));
            return Rows(vectors);
          },
          .count_tokens =
              [this](std::string_view word) {
                return static_cast<int64_t>(
                    encoder_->tokenizer().Encode(word, /*add_special_tokens=*/false).size());
              },
          .dimension = encoder_->dimension(),
          // Two places are the tokens around every text.
          .max_tokens = std::max<int64_t>(encoder_->max_tokens() - 2, 1)};
}

}  // namespace flowmesh::tasks
