#include "executors/engine/sequence.h"

#include <algorithm>

namespace flowmesh::engine {

int64_t LongestLength(const GenerationRequest& request, int64_t max_model_len) {
  const auto prompt = static_cast<int64_t>(request.prompt_ids.size());
  return prompt + std::min(request.params.max_tokens, max_model_len - prompt);
}

Sequence::Sequence(const GenerationRequest& request, const model::LoadedModel& model,
                   int64_t max_model_len)
    : model_(model),
      prompt_tokens_(static_cast<int64_t>(request.prompt_ids.size())),
      max_length_(LongestLength(request, max_model_len)),
      sampler_(request.params, request.item_index, request.prompt_ids),
      decoder_(model.tokenizer.get(), request.prompt_ids),
      text_(request.params.stop) {
  tokens = request.prompt_ids;
}

bool Sequence::Accept(text::TokenId token) {
  tokens.push_back(token);
  const std::vector<text::TokenId>& eos = model_.model->info().eos_ids;
  const bool is_eos = std::find(eos.begin(), eos.end(), token) != eos.end();
  if (!is_eos && text_.Append(decoder_.Append(token))) {
    finish_reason_ = "stop";
  } else if (length() >= max_length_) {
    finish_reason_ = "length";
  } else if (is_eos) {
    finish_reason_ = "stop";
  }
  return !finish_reason_.empty();
}

Completion Sequence::TakeCompletion() {
  return {.text = text_.text(),
          .token_ids = {tokens.begin() + prompt_tokens_, tokens.end()},
          .finish_reason = finish_reason_};
}

}  // namespace flowmesh::engine
