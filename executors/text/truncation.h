// Encoding with a limit, as Transformers truncates.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "executors/text/tokenizer.h"

namespace flowmesh::text {

// Ids of `text` with the tokenizer's special tokens, at most `max_tokens`: what is too long loses
// its end, the special tokens around it stay (all of them, however small the limit).
std::vector<TokenId> EncodeTruncated(const Tokenizer& tokenizer, std::string_view text,
                                     int64_t max_tokens);

}  // namespace flowmesh::text
