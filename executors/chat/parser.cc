#include "executors/chat/parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/chat/expression_parser.h"

namespace flowmesh::chat {
namespace {

class TemplateParser {
 public:
  explicit TemplateParser(std::vector<Token> tokens)
      : tokens_(std::move(tokens)), expressions_(&tokens_) {}

  absl::StatusOr<Body> Parse() {
    Body body;
    RETURN_IF_ERROR(ParseBody({}, body).status());
    return body;
  }

 private:
  using Names = std::vector<std::string_view>;

  // Up to the tag of one of `ends`, whose name is taken and returned; without ends, all there is.
  absl::StatusOr<std::string> ParseBody(const Names& ends, Body& body) {
    if (++depth_ > kMaxTemplateDepth) {
      return absl::InvalidArgumentError(absl::StrCat("line ", tokens_.current().line,
                                                     ": tags nested deeper than ",
                                                     kMaxTemplateDepth, " levels"));
    }
    while (true) {
      switch (tokens_.current().kind) {
        case TokenKind::kData:
          ParseText(body);
          break;
        case TokenKind::kVariableBegin:
          RETURN_IF_ERROR(ParsePrint(body));
          break;
        case TokenKind::kBlockBegin: {
          tokens_.Take();
          const auto is_current = [this](std::string_view end) { return tokens_.IsName(end); };
          if (std::any_of(ends.begin(), ends.end(), is_current)) {
            --depth_;
            return tokens_.Take().text;
          }
          RETURN_IF_ERROR(ParseTag(body));
          break;
        }
        default:
          if (!ends.empty())
            return tokens_.Unexpected(absl::StrCat("`{% ", ToAbsl(ends.back()), " %}`"));
          --depth_;
          return std::string();
      }
    }
  }

  // One whose text goes elsewhere: no loop around it can be left from within.
  absl::Status ParseOwnBody(std::string_view end, Body& body) {
    const int loops = std::exchange(loops_, 0);
    RETURN_IF_ERROR(ParseBody({end}, body).status());
    loops_ = loops;
    return absl::OkStatus();
  }

  std::unique_ptr<Node> MakeNode(NodeKind kind) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = tokens_.current().line;
    return node;
  }

  absl::Status ExpectTagEnd() { return tokens_.Expect(TokenKind::kBlockEnd, "`%}`"); }

  void ParseText(Body& body) {
    auto node = MakeNode(NodeKind::kText);
    node->text = tokens_.Take().text;
    body.push_back(std::move(node));
  }

  absl::Status ParsePrint(Body& body) {
    auto node = MakeNode(NodeKind::kPrint);
    tokens_.Take();
    ASSIGN_OR_RETURN(node->expr, expressions_.Parse());
    body.push_back(std::move(node));
    return tokens_.Expect(TokenKind::kVariableEnd, "`}}`");
  }

  absl::Status ParseTag(Body& body) {
    const int line = tokens_.current().line;
    ASSIGN_OR_RETURN(const std::string tag, tokens_.ExpectName("the name of a tag"));
    if (tag == "if") return ParseIf(body);
    if (tag == "for") return ParseFor(body);
    if (tag == "set") return ParseSet(body);
    if (tag == "macro") return ParseMacro(body);
    if (tag == "generation") return ParseGeneration(body);
    if (tag == "filter") return ParseFilterBlock(body);
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("line ", line, ": ", tag, " outside of a loop"));
      }
      body.push_back(MakeNode(tag == "break" ? NodeKind::kBreak : NodeKind::kContinue));
      return ExpectTagEnd();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("line ", line, ": the tag `", tag,
                     "` is not supported; expected if, for, set, macro, filter, generation, break, "
                     "continue or raw"));
  }

  absl::Status ParseIf(Body& body) {
    auto node = MakeNode(NodeKind::kIf);
    std::string tag = "if";
    while (tag != "endif") {
      auto& branch = node->branches.emplace_back();
      if (tag != "else") {
        ASSIGN_OR_RETURN(branch.first, expressions_.Parse());
      }
      RETURN_IF_ERROR(ExpectTagEnd());
      const Names ends = tag == "else" ? Names{"endif"} : Names{"elif", "else", "endif"};
      ASSIGN_OR_RETURN(tag, ParseBody(ends, branch.second));
    }
    body.push_back(std::move(node));
    return ExpectTagEnd();
  }

  absl::StatusOr<Target> ParseTarget() {
    Target target;
    const bool in_parentheses = tokens_.TakeOperator("(");
    do {
      ASSIGN_OR_RETURN(target.names.emplace_back(), tokens_.ExpectName("the name of a variable"));
    } while (tokens_.TakeOperator(","));
    if (in_parentheses) RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    return target;
  }

  // `a`, or `a, b`, which is a list.
  absl::StatusOr<ExprPtr> ParseTuple(bool with_condition) {
    ASSIGN_OR_RETURN(ExprPtr first, expressions_.Parse(with_condition));
    if (!tokens_.IsOperator(",")) return first;
    auto list = std::make_unique<Expr>();
    list->kind = ExprKind::kList;
    list->line = first->line;
    list->args.push_back(std::move(first));
    while (tokens_.TakeOperator(",") && tokens_.current().kind != TokenKind::kBlockEnd) {
      ASSIGN_OR_RETURN(ExprPtr item, expressions_.Parse(with_condition));
      list->args.push_back(std::move(item));
    }
    return list;
  }

  absl::Status ParseFor(Body& body) {
    auto node = MakeNode(NodeKind::kFor);
    ASSIGN_OR_RETURN(node->target, ParseTarget());
    if (!tokens_.TakeName("in")) return tokens_.Unexpected("`in`");
    ASSIGN_OR_RETURN(node->expr, ParseTuple(/*with_condition=*/false));
    if (tokens_.TakeName("if")) {
      ASSIGN_OR_RETURN(node->condition, expressions_.Parse());
    }
    RETURN_IF_ERROR(ExpectTagEnd());
    ++loops_;
    absl::StatusOr<std::string> end = ParseBody({"else", "endfor"}, node->body);
    --loops_;
    if (!end.ok()) return end.status();
    if (*end == "else") {
      RETURN_IF_ERROR(ExpectTagEnd());
      RETURN_IF_ERROR(ParseBody({"endfor"}, node->otherwise).status());
    }
    body.push_back(std::move(node));
    return ExpectTagEnd();
  }

  absl::Status ParseSet(Body& body) {
    auto node = MakeNode(NodeKind::kSet);
    ASSIGN_OR_RETURN(node->target, ParseTarget());
    if (node->target.names.size() == 1 && tokens_.TakeOperator(".")) {
      ASSIGN_OR_RETURN(node->target.member, tokens_.ExpectName("the name of a member"));
    }
    if (tokens_.TakeOperator("=")) {
      ASSIGN_OR_RETURN(node->expr, ParseTuple(/*with_condition=*/true));
      body.push_back(std::move(node));
      return ExpectTagEnd();
    }
    if (node->target.names.size() != 1) return tokens_.Unexpected("`=`");
    node->kind = NodeKind::kSetBlock;
    if (tokens_.IsOperator("|")) {
      ASSIGN_OR_RETURN(node->expr, expressions_.ParseFilters(BlockText(node->line)));
    }
    RETURN_IF_ERROR(ExpectTagEnd());
    RETURN_IF_ERROR(ParseOwnBody("endset", node->body));
    body.push_back(std::move(node));
    return ExpectTagEnd();
  }

  // What filters of a block take: its text, under a name that no template can write.
  static ExprPtr BlockText(int line) {
    auto text = std::make_unique<Expr>();
    text->kind = ExprKind::kName;
    text->line = line;
    text->name = kBlockText;
    return text;
  }

  absl::Status ParseFilterBlock(Body& body) {
    auto node = MakeNode(NodeKind::kFilterBlock);
    ASSIGN_OR_RETURN(node->expr, expressions_.ParseFilters(BlockText(node->line),
                                                           /*begins_with_name=*/true));
    RETURN_IF_ERROR(ExpectTagEnd());
    RETURN_IF_ERROR(ParseOwnBody("endfilter", node->body));
    body.push_back(std::move(node));
    return ExpectTagEnd();
  }

  absl::Status ParseMacro(Body& body) {
    auto node = MakeNode(NodeKind::kMacro);
    node->macro = std::make_unique<Macro>();
    ASSIGN_OR_RETURN(node->macro->name, tokens_.ExpectName("the name of a macro"));
    RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.IsOperator(")")) {
      auto& parameter = node->macro->parameters.emplace_back();
      ASSIGN_OR_RETURN(parameter.first, tokens_.ExpectName("the name of a parameter"));
      if (tokens_.TakeOperator("=")) {
        ASSIGN_OR_RETURN(parameter.second, expressions_.Parse());
      }
      if (!tokens_.TakeOperator(",")) break;
    }
    RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    RETURN_IF_ERROR(ExpectTagEnd());
    RETURN_IF_ERROR(ParseOwnBody("endmacro", node->macro->body));
    body.push_back(std::move(node));
    return ExpectTagEnd();
  }

  // What the assistant says: marked for training, and no more than its text here.
  absl::Status ParseGeneration(Body& body) {
    RETURN_IF_ERROR(ExpectTagEnd());
    RETURN_IF_ERROR(ParseBody({"endgeneration"}, body).status());
    return ExpectTagEnd();
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int depth_ = 0;
  int loops_ = 0;  // that are open here
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return TemplateParser(std::move(tokens)).Parse();
}

}  // namespace flowmesh::chat
