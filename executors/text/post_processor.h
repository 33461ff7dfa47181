// The `post_processor` of a tokenizer.json for single sequences: which special tokens go around the
// ids of a text. Immutable, thread-safe.
#pragma once

#include <vector>

#include "common/field.h"
#include "common/status.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {

class PostProcessor {
 public:
  // Leaves ids as they are.
  PostProcessor() = default;
  // `before`, the text's ids, `after`.
  PostProcessor(std::vector<TokenId> before, std::vector<TokenId> after);

  // TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel and Sequence; an absent spec
  // leaves ids as they are. InvalidArgument: another type, or a malformed spec.
  static absl::StatusOr<PostProcessor> Make(const Field& spec);

  // `ids` of a text within the template; without its special tokens when `add_special` is false.
  std::vector<TokenId> Apply(std::vector<TokenId> ids, bool add_special) const;

 private:
  struct Part {
    bool text = false;         // the text's ids stand here
    std::vector<TokenId> ids;  // else these special tokens
  };
  using Template = std::vector<Part>;

  static absl::StatusOr<Template> ReadTemplate(const Field& spec);

  std::vector<Template> templates_;  // applied in order
};

}  // namespace flowmesh::text
