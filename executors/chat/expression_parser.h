// The expressions of a template, by recursive descent in Jinja's order of precedence.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status.h"
#include "executors/chat/ast.h"
#include "executors/chat/lexer.h"

namespace flowmesh::chat {

// A place in the tokens of a template. All errors name the line.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token Take();

  bool IsName(std::string_view name) const;
  bool IsOperator(std::string_view op) const;
  // Takes it if it is that.
  bool TakeName(std::string_view name);
  bool TakeOperator(std::string_view op);

  absl::Status Expect(TokenKind kind, std::string_view what);
  absl::Status ExpectOperator(std::string_view op);
  absl::StatusOr<std::string> ExpectName(std::string_view what);

  absl::Status Unexpected(std::string_view expected) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream* tokens) : tokens_(*tokens) {}

  // `with_condition`: `a if b else c` too.
  absl::StatusOr<ExprPtr> Parse(bool with_condition = true);

  // A chain `| name(...) | name ...` applied to `input`; the first `|` may be missing.
  absl::StatusOr<ExprPtr> ParseFilters(ExprPtr input, bool begins_with_name = false);

 private:
  absl::StatusOr<ExprPtr> ParseCondition();
  absl::StatusOr<ExprPtr> ParseOr();
  absl::StatusOr<ExprPtr> ParseAnd();
  absl::StatusOr<ExprPtr> ParseNot();
  absl::StatusOr<ExprPtr> ParseCompare();
  absl::StatusOr<ExprPtr> ParseSum();
  absl::StatusOr<ExprPtr> ParseConcat();
  absl::StatusOr<ExprPtr> ParseProduct();
  absl::StatusOr<ExprPtr> ParsePower();
  absl::StatusOr<ExprPtr> ParseUnary(bool with_filters);
  absl::StatusOr<ExprPtr> ParsePrimary();
  absl::StatusOr<ExprPtr> ParseParentheses();
  absl::StatusOr<ExprPtr> ParseListLiteral();
  absl::StatusOr<ExprPtr> ParseMapLiteral();
  absl::StatusOr<ExprPtr> ParsePostfix(ExprPtr base);
  absl::StatusOr<ExprPtr> ParseSubscript(ExprPtr base);
  absl::StatusOr<ExprPtr> ParseFilterOrTest(ExprPtr input);
  absl::StatusOr<ExprPtr> ParseFilter(ExprPtr input);
  absl::StatusOr<ExprPtr> ParseTest(ExprPtr input);
  absl::Status ParseArguments(Expr& call);
  // Operators of one level, which group to the left.
  template <typename Operand>
  absl::StatusOr<ExprPtr> ParseBinary(std::initializer_list<std::string_view> operators,
                                      Operand operand);

  ExprPtr Make(ExprKind kind, std::string name = "") const;

  TokenStream& tokens_;
  int depth_ = 0;
};

}  // namespace flowmesh::chat
