#include "executors/text/truncation.h"

#include <algorithm>

namespace flowmesh::text {

std::vector<TokenId> EncodeTruncated(const Tokenizer& tokenizer, std::string_view text,
                                     int64_t max_tokens) {
  std::vector<TokenId> ids = tokenizer.Encode(text, /*add_special_tokens=*/true);
  const auto excess = static_cast<int64_t>(ids.size()) - max_tokens;
  if (excess <= 0) return ids;
  // The text's own ids stand between the special tokens.
  const std::vector<TokenId> plain = tokenizer.Encode(text, /*add_special_tokens=*/false);
  const auto begin = std::search(ids.begin(), ids.end(), plain.begin(), plain.end());
  const auto end = begin + std::min<int64_t>(plain.size(), ids.end() - begin);
  ids.erase(end - std::min<int64_t>(excess, end - begin), end);
  return ids;
}

}  // namespace flowmesh::text
