#include "executors/chat/expression_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/chat/parser.h"

namespace flowmesh::chat {
namespace {

// Tallest tree; operators, filters and subscripts in a row add one each.
constexpr int kMaxHeight = 400;

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kVariableBegin:
      return "`{{`";
    case TokenKind::kVariableEnd:
      return "`}}`";
    case TokenKind::kBlockBegin:
      return "`{%`";
    case TokenKind::kBlockEnd:
      return "`%}`";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return absl::StrCat("`", token.text, "`");
  }
}

void Append(Expr& expr, ExprPtr arg) {
  if (arg != nullptr) expr.height = std::max(expr.height, arg->height + 1);
  expr.args.push_back(std::move(arg));
}

absl::Status CheckHeight(const Expr& expr) {
  if (expr.height < kMaxHeight) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "line ", expr.line, ": an expression of more than ", kMaxHeight, " levels of operators"));
}

}  // namespace

Token TokenStream::Take() {
  Token token = current();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool TokenStream::IsName(std::string_view name) const {
  return current().kind == TokenKind::kName && current().text == name;
}

bool TokenStream::IsOperator(std::string_view op) const {
  return current().kind == TokenKind::kOperator && current().text == op;
}

bool TokenStream::TakeName(std::string_view name) {
  if (!IsName(name)) return false;
  Take();
  return true;
}

bool TokenStream::TakeOperator(std::string_view op) {
  if (!IsOperator(op)) return false;
  Take();
  return true;
}

absl::Status TokenStream::Expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) return Unexpected(what);
  Take();
  return absl::OkStatus();
}

absl::Status TokenStream::ExpectOperator(std::string_view op) {
  if (TakeOperator(op)) return absl::OkStatus();
  return Unexpected(absl::StrCat("`", ToAbsl(op), "`"));
}

absl::StatusOr<std::string> TokenStream::ExpectName(std::string_view what) {
  if (current().kind != TokenKind::kName) return Unexpected(what);
  return Take().text;
}

absl::Status TokenStream::Unexpected(std::string_view expected) const {
  return absl::InvalidArgumentError(absl::StrCat("line ", current().line, ": expected ",
                                                 ToAbsl(expected), ", got ", Describe(current())));
}

ExprPtr ExpressionParser::Make(ExprKind kind, std::string name) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = tokens_.current().line;
  expr->name = std::move(name);
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::Parse(bool with_condition) {
  if (depth_ >= kMaxTemplateDepth) {
    return absl::InvalidArgumentError(absl::StrCat("line ", tokens_.current().line,
                                                   ": an expression nested deeper than ",
                                                   kMaxTemplateDepth, " levels"));
  }
  ++depth_;
  ASSIGN_OR_RETURN(ExprPtr expr, with_condition ? ParseCondition() : ParseOr());
  --depth_;
  RETURN_IF_ERROR(CheckHeight(*expr));
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCondition() {
  ASSIGN_OR_RETURN(ExprPtr expr, ParseOr());
  while (tokens_.IsName("if")) {
    RETURN_IF_ERROR(CheckHeight(*expr));
    ExprPtr ternary = Make(ExprKind::kTernary);
    tokens_.Take();
    Append(*ternary, std::move(expr));
    ASSIGN_OR_RETURN(ExprPtr condition, ParseOr());
    Append(*ternary, std::move(condition));
    ExprPtr otherwise;
    if (tokens_.TakeName("else")) {
      ASSIGN_OR_RETURN(otherwise, Parse());
    }
    Append(*ternary, std::move(otherwise));
    expr = std::move(ternary);
  }
  return expr;
}

template <typename Operand>
absl::StatusOr<ExprPtr> ExpressionParser::ParseBinary(
    std::initializer_list<std::string_view> operators, Operand operand) {
  ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  const auto is_one = [&](std::string_view op) {
    return tokens_.IsOperator(op) || tokens_.IsName(op);
  };
  while (std::any_of(operators.begin(), operators.end(), is_one)) {
    RETURN_IF_ERROR(CheckHeight(*left));
    ExprPtr expr = Make(ExprKind::kBinary, tokens_.current().text);
    tokens_.Take();
    Append(*expr, std::move(left));
    ASSIGN_OR_RETURN(ExprPtr right, (this->*operand)());
    Append(*expr, std::move(right));
    left = std::move(expr);
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseOr() {
  return ParseBinary({"or"}, &ExpressionParser::ParseAnd);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseAnd() {
  return ParseBinary({"and"}, &ExpressionParser::ParseNot);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseNot() {
  std::vector<ExprPtr> nots;
  while (tokens_.IsName("not")) {
    nots.push_back(Make(ExprKind::kUnary, "not"));
    tokens_.Take();
  }
  ASSIGN_OR_RETURN(ExprPtr expr, ParseCompare());
  for (; !nots.empty(); nots.pop_back()) {
    RETURN_IF_ERROR(CheckHeight(*expr));
    Append(*nots.back(), std::move(expr));
    expr = std::move(nots.back());
  }
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCompare() {
  ASSIGN_OR_RETURN(ExprPtr first, ParseSum());
  ExprPtr compare = Make(ExprKind::kCompare);
  while (true) {
    std::string op;
    for (const std::string_view candidate : {"==", "!=", "<", "<=", ">", ">="}) {
      if (tokens_.IsOperator(candidate)) op = candidate;
    }
    if (tokens_.IsName("in")) op = "in";
    if (tokens_.IsName("not") && tokens_.next().kind == TokenKind::kName &&
        tokens_.next().text == "in") {
      tokens_.Take();
      op = "not in";
    }
    if (op.empty()) break;
    tokens_.Take();
    if (compare->args.empty()) Append(*compare, std::move(first));
    compare->names.push_back(std::move(op));
    ASSIGN_OR_RETURN(ExprPtr operand, ParseSum());
    Append(*compare, std::move(operand));
  }
  return compare->args.empty() ? std::move(first) : std::move(compare);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSum() {
  return ParseBinary({"+", "-"}, &ExpressionParser::ParseConcat);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseConcat() {
  return ParseBinary({"~"}, &ExpressionParser::ParseProduct);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseProduct() {
  return ParseBinary({"*", "/", "//", "%"}, &ExpressionParser::ParsePower);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePower() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseUnary(true));
  while (tokens_.IsOperator("**")) {
    RETURN_IF_ERROR(CheckHeight(*left));
    ExprPtr expr = Make(ExprKind::kBinary, "**");
    tokens_.Take();
    Append(*expr, std::move(left));
    ASSIGN_OR_RETURN(ExprPtr right, ParseUnary(true));
    Append(*expr, std::move(right));
    left = std::move(expr);
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExprPtr expr;
  if (tokens_.IsOperator("-") || tokens_.IsOperator("+")) {
    expr = Make(ExprKind::kUnary, tokens_.current().text);
    tokens_.Take();
    if (++depth_ > kMaxTemplateDepth) return tokens_.Unexpected("fewer signs in a row");
    ASSIGN_OR_RETURN(ExprPtr operand, ParseUnary(false));
    --depth_;
    Append(*expr, std::move(operand));
  } else {
    ASSIGN_OR_RETURN(expr, ParsePrimary());
  }
  ASSIGN_OR_RETURN(expr, ParsePostfix(std::move(expr)));
  while (with_filters) {
    RETURN_IF_ERROR(CheckHeight(*expr));
    if (tokens_.IsOperator("|") || tokens_.IsName("is")) {
      ASSIGN_OR_RETURN(expr, ParseFilterOrTest(std::move(expr)));
    } else if (tokens_.IsOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParsePostfix(std::move(expr)));
    } else {
      break;
    }
  }
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilters(ExprPtr input, bool begins_with_name) {
  if (begins_with_name) {
    ASSIGN_OR_RETURN(input, ParseFilter(std::move(input)));
  }
  while (tokens_.IsOperator("|")) {
    RETURN_IF_ERROR(CheckHeight(*input));
    ASSIGN_OR_RETURN(input, ParseFilterOrTest(std::move(input)));
  }
  return input;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePrimary() {
  const Token& token = tokens_.current();
  ExprPtr literal = Make(ExprKind::kLiteral);
  switch (token.kind) {
    case TokenKind::kName:
      if (token.text == "true" || token.text == "True" || token.text == "false" ||
          token.text == "False") {
        literal->literal = Value(token.text == "true" || token.text == "True");
      } else if (token.text == "none" || token.text == "None") {
        literal->literal = Value(Value::None{});
      } else {
        literal->kind = ExprKind::kName;
        literal->name = token.text;
      }
      tokens_.Take();
      return literal;
    case TokenKind::kString: {
      std::string text;
      while (tokens_.current().kind == TokenKind::kString) text += tokens_.Take().text;
      literal->literal = Value(std::move(text));
      return literal;
    }
    case TokenKind::kInteger: {
      int64_t number = 0;
      if (!absl::SimpleAtoi(token.text, &number)) return tokens_.Unexpected("a number below 2^63");
      literal->literal = Value(number);
      tokens_.Take();
      return literal;
    }
    case TokenKind::kFloat: {
      double number = 0;
      if (!absl::SimpleAtod(token.text, &number)) return tokens_.Unexpected("a number");
      literal->literal = Value(number);
      tokens_.Take();
      return literal;
    }
    default:
      if (tokens_.IsOperator("(")) return ParseParentheses();
      if (tokens_.IsOperator("[")) return ParseListLiteral();
      if (tokens_.IsOperator("{")) return ParseMapLiteral();
      return tokens_.Unexpected("an expression");
  }
}

// `(a)`, or a tuple, which is a list here.
absl::StatusOr<ExprPtr> ExpressionParser::ParseParentheses() {
  ExprPtr tuple = Make(ExprKind::kList);
  tokens_.Take();
  bool is_tuple = tokens_.IsOperator(")");
  while (!tokens_.IsOperator(")")) {
    ASSIGN_OR_RETURN(ExprPtr item, Parse());
    Append(*tuple, std::move(item));
    if (!tokens_.TakeOperator(",")) break;
    is_tuple = true;
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return is_tuple ? std::move(tuple) : std::move(tuple->args[0]);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseListLiteral() {
  ExprPtr list = Make(ExprKind::kList);
  tokens_.Take();
  while (!tokens_.IsOperator("]")) {
    ASSIGN_OR_RETURN(ExprPtr item, Parse());
    Append(*list, std::move(item));
    if (!tokens_.TakeOperator(",")) break;
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return list;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseMapLiteral() {
  ExprPtr map = Make(ExprKind::kMap);
  tokens_.Take();
  while (!tokens_.IsOperator("}")) {
    ASSIGN_OR_RETURN(ExprPtr key, Parse());
    Append(*map, std::move(key));
    RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExprPtr item, Parse());
    Append(*map, std::move(item));
    if (!tokens_.TakeOperator(",")) break;
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator("}"));
  return map;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePostfix(ExprPtr base) {
  while (true) {
    RETURN_IF_ERROR(CheckHeight(*base));
    if (tokens_.IsOperator(".")) {
      ExprPtr attribute = Make(ExprKind::kAttribute);
      tokens_.Take();
      if (tokens_.current().kind == TokenKind::kInteger) {  // `pair.0`
        ASSIGN_OR_RETURN(ExprPtr index, ParsePrimary());
        attribute->kind = ExprKind::kItem;
        Append(*attribute, std::move(base));
        Append(*attribute, std::move(index));
      } else {
        ASSIGN_OR_RETURN(attribute->name, tokens_.ExpectName("a name"));
        Append(*attribute, std::move(base));
      }
      base = std::move(attribute);
    } else if (tokens_.IsOperator("[")) {
      ASSIGN_OR_RETURN(base, ParseSubscript(std::move(base)));
    } else if (tokens_.IsOperator("(")) {
      ExprPtr call = Make(ExprKind::kCall);
      Append(*call, std::move(base));
      RETURN_IF_ERROR(ParseArguments(*call));
      base = std::move(call);
    } else {
      return base;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSubscript(ExprPtr base) {
  ExprPtr subscript = Make(ExprKind::kSlice);
  tokens_.Take();
  Append(*subscript, std::move(base));
  int colons = 0;
  subscript->args.resize(4);
  while (!tokens_.IsOperator("]")) {
    if (tokens_.IsOperator(":") && colons < 2) {
      tokens_.Take();
      ++colons;
    } else if (subscript->args[colons + 1] == nullptr) {
      ASSIGN_OR_RETURN(ExprPtr bound, Parse());
      subscript->height = std::max(subscript->height, bound->height + 1);
      subscript->args[colons + 1] = std::move(bound);
    } else {
      break;
    }
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  if (colons == 0) {
    if (subscript->args[1] == nullptr) return tokens_.Unexpected("an index in `[]` before");
    subscript->kind = ExprKind::kItem;
    subscript->args.resize(2);
  }
  return subscript;
}

absl::Status ExpressionParser::ParseArguments(Expr& call) {
  RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  while (!tokens_.IsOperator(")")) {
    const bool is_named = tokens_.current().kind == TokenKind::kName &&
                          tokens_.next().kind == TokenKind::kOperator && tokens_.next().text == "=";
    if (is_named) {
      std::string name = tokens_.Take().text;
      tokens_.Take();
      ASSIGN_OR_RETURN(ExprPtr value, Parse());
      call.height = std::max(call.height, value->height + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else if (!call.named.empty()) {
      return tokens_.Unexpected("a named argument after another one");
    } else {
      ASSIGN_OR_RETURN(ExprPtr value, Parse());
      Append(call, std::move(value));
    }
    if (!tokens_.TakeOperator(",")) break;
  }
  return tokens_.ExpectOperator(")");
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilterOrTest(ExprPtr input) {
  if (tokens_.TakeName("is")) return ParseTest(std::move(input));
  tokens_.Take();
  return ParseFilter(std::move(input));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilter(ExprPtr input) {
  ExprPtr filter = Make(ExprKind::kFilter);
  ASSIGN_OR_RETURN(filter->name, tokens_.ExpectName("the name of a filter"));
  Append(*filter, std::move(input));
  if (tokens_.IsOperator("(")) RETURN_IF_ERROR(ParseArguments(*filter));
  return filter;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTest(ExprPtr input) {
  ExprPtr test = Make(ExprKind::kTest);
  const bool is_negated = tokens_.TakeName("not");
  ASSIGN_OR_RETURN(test->name, tokens_.ExpectName("the name of a test"));
  Append(*test, std::move(input));
  const TokenKind kind = tokens_.current().kind;
  static constexpr std::string_view kNoArgument[] = {"else", "or", "and", "if", "is", "not", "in"};
  const bool is_word =
      kind == TokenKind::kName && std::find(std::begin(kNoArgument), std::end(kNoArgument),
                                            tokens_.current().text) == std::end(kNoArgument);
  if (tokens_.IsOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(*test));
  } else if (is_word || kind == TokenKind::kString || kind == TokenKind::kInteger ||
             kind == TokenKind::kFloat || tokens_.IsOperator("[") || tokens_.IsOperator("{")) {
    ASSIGN_OR_RETURN(ExprPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    Append(*test, std::move(argument));
  }
  if (!is_negated) return test;
  ExprPtr negated = Make(ExprKind::kUnary, "not");
  Append(*negated, std::move(test));
  return negated;
}

}  // namespace flowmesh::chat
