// A template's source cut into tokens: text outside of tags, with its white space as trim_blocks,
// lstrip_blocks and the `-` and `+` of tags leave it, and what stands in tags.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flowmesh::chat {

enum class TokenKind {
  kData,           // text outside of tags
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,  // its text without quotes and escapes
  kInteger,
  kFloat,
  kOperator,
  kEnd,  // of the source
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// The last token is kEnd. InvalidArgument, with the line: a tag, string or comment without its end,
// or a character that means nothing.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace flowmesh::chat
