#include "executors/chat/evaluator.h"

#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/chat/builtins.h"
#include "executors/chat/parser.h"

namespace flowmesh::chat {
namespace {

// Deepest nesting of expressions, tags and calls of macros that runs, which bounds the stack.
constexpr int kMaxDepth = 400;

// What a turn of a loop costs beside its body: a scope and the map `loop`.
constexpr int64_t kTurnCost = 512;

using Result = absl::StatusOr<Value>;

// Variables of the template, of one turn of a loop or of one call of a macro.
struct Scope {
  Scope* parent;
  absl::flat_hash_map<std::string, Value> variables;
};

enum class Flow { kNext, kBreak, kContinue };

// `message.content`, when it is as simple as that.
std::string Spell(const Expr& expr) {
  if (expr.kind == ExprKind::kName) return expr.name;
  if (expr.kind == ExprKind::kAttribute) return absl::StrCat(Spell(*expr.args[0]), ".", expr.name);
  return "...";
}

// Counts the levels that are open while it lives.
class Level {
 public:
  explicit Level(int* depth) : depth_(depth) { ++*depth_; }
  ~Level() { --*depth_; }

 private:
  int* depth_;
};

class Evaluator {
 public:
  Evaluator(Scope* root, absl::Time now) : root_(root), scope_(root), builtins_{&budget_, now} {}

  absl::StatusOr<std::string> Run(const Body& body) {
    std::string out;
    RETURN_IF_ERROR(Render(body, out).status());
    return out;
  }

 private:
  // Names the line where an error comes from, once.
  absl::Status Locate(const absl::Status& status, int line) {
    if (is_located_) return status;
    is_located_ = true;
    return Annotate(status, absl::StrCat("line ", line));
  }

  absl::Status CheckDepth() const {
    if (depth_ <= kMaxDepth) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("the template nests deeper than ", kMaxDepth, " levels"));
  }

  absl::StatusOr<Flow> Render(const Body& body, std::string& out) {
    const Level level(&depth_);
    for (const std::unique_ptr<Node>& node : body) {
      absl::Status status = CheckDepth();
      if (status.ok()) status = budget_.Charge();
      if (!status.ok()) return Locate(status, node->line);
      absl::StatusOr<Flow> flow = RenderNode(*node, out);
      if (!flow.ok()) return Locate(flow.status(), node->line);
      if (*flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  absl::StatusOr<Flow> RenderNode(const Node& node, std::string& out) {
    switch (node.kind) {
      case NodeKind::kText:
        RETURN_IF_ERROR(Append(node.text, out));
        return Flow::kNext;
      case NodeKind::kPrint: {
        ASSIGN_OR_RETURN(const Value value, Eval(*node.expr));
        RETURN_IF_ERROR(Append(ToText(value), out));
        return Flow::kNext;
      }
      case NodeKind::kIf:
        return RenderIf(node, out);
      case NodeKind::kFor:
        return RenderFor(node, out);
      case NodeKind::kSet: {
        ASSIGN_OR_RETURN(const Value value, Eval(*node.expr));
        RETURN_IF_ERROR(Assign(node.target, value));
        return Flow::kNext;
      }
      case NodeKind::kSetBlock: {
        ASSIGN_OR_RETURN(const Value value, RenderBlock(node));
        RETURN_IF_ERROR(Assign(node.target, value));
        return Flow::kNext;
      }
      case NodeKind::kFilterBlock: {
        ASSIGN_OR_RETURN(const Value value, RenderBlock(node));
        RETURN_IF_ERROR(Append(ToText(value), out));
        return Flow::kNext;
      }
      case NodeKind::kMacro: {
        auto callable = std::make_shared<Callable>();
        callable->macro = node.macro.get();
        scope_->variables[node.macro->name] = Value(std::move(callable));
        return Flow::kNext;
      }
      case NodeKind::kBreak:
        return Flow::kBreak;
      case NodeKind::kContinue:
        return Flow::kContinue;
    }
    return absl::InternalError("a node of an unknown kind");
  }

  absl::Status Append(const std::string& text, std::string& out) {
    RETURN_IF_ERROR(budget_.Charge(static_cast<int64_t>(text.size())));
    out += text;
    return absl::OkStatus();
  }

  absl::StatusOr<Flow> RenderIf(const Node& node, std::string& out) {
    for (const auto& [condition, body] : node.branches) {
      bool is_chosen = true;
      if (condition != nullptr) {
        ASSIGN_OR_RETURN(const Value value, Eval(*condition));
        is_chosen = value.IsTrue();
      }
      if (is_chosen) return Render(body, out);
    }
    return Flow::kNext;
  }

  // The items that the loop goes over.
  absl::StatusOr<std::vector<Value>> LoopItems(const Node& node) {
    ASSIGN_OR_RETURN(const Value over, Eval(*node.expr));
    ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(over, budget_));
    if (node.condition == nullptr) return items;
    std::vector<Value> kept;
    Scope scope{scope_, {}};
    for (Value& item : items) {
      scope_ = &scope;
      absl::Status status = Assign(node.target, item);
      Result passes = status.ok() ? Eval(*node.condition) : Result(status);
      scope_ = scope.parent;
      if (!passes.ok()) return passes.status();
      if (passes->IsTrue()) kept.push_back(std::move(item));
    }
    return kept;
  }

  Result MakeLoop(const std::vector<Value>& items, size_t i) const {
    const auto index = static_cast<int64_t>(i);
    const auto length = static_cast<int64_t>(items.size());
    return Value::OfMap({{"index", Value(index + 1)},
                         {"index0", Value(index)},
                         {"revindex", Value(length - index)},
                         {"revindex0", Value(length - index - 1)},
                         {"first", Value(i == 0)},
                         {"last", Value(index + 1 == length)},
                         {"length", Value(length)},
                         {"depth", Value(int64_t{loops_})},
                         {"depth0", Value(int64_t{loops_} - 1)},
                         {"previtem", i > 0 ? items[i - 1] : Value()},
                         {"nextitem", index + 1 < length ? items[i + 1] : Value()}});
  }

  absl::StatusOr<Flow> RenderFor(const Node& node, std::string& out) {
    ASSIGN_OR_RETURN(const std::vector<Value> items, LoopItems(node));
    if (items.empty()) return Render(node.otherwise, out);
    const Level level(&loops_);
    for (size_t i = 0; i < items.size(); ++i) {
      RETURN_IF_ERROR(budget_.Charge(kTurnCost));
      ASSIGN_OR_RETURN(Value loop, MakeLoop(items, i));
      Scope scope{scope_, {}};
      scope.variables["loop"] = std::move(loop);
      scope_ = &scope;
      const absl::Status status = Assign(node.target, items[i]);
      const absl::StatusOr<Flow> flow =
          status.ok() ? Render(node.body, out) : absl::StatusOr<Flow>(status);
      scope_ = scope.parent;
      if (!flow.ok()) return flow.status();
      if (*flow == Flow::kBreak) break;
    }
    return Flow::kNext;
  }

  // The text of the node's body, through its filters.
  Result RenderBlock(const Node& node) {
    std::string text;
    Scope scope{scope_, {}};
    scope_ = &scope;
    const absl::Status status = Render(node.body, text).status();
    scope_ = scope.parent;
    RETURN_IF_ERROR(status);
    Value value(std::move(text));
    if (node.expr == nullptr) return value;
    scope_->variables[kBlockText] = value;
    return Eval(*node.expr);
  }

  absl::Status Assign(const Target& target, const Value& value) {
    if (!target.member.empty()) return AssignMember(target, value);
    if (target.names.size() == 1) {
      scope_->variables[target.names[0]] = value;
      return absl::OkStatus();
    }
    if (!value.is_list() || value.list().size() != target.names.size()) {
      return absl::InvalidArgumentError(absl::StrCat("expected ", target.names.size(),
                                                     " values for as many names, got ",
                                                     ToAbsl(value.Kind())));
    }
    for (size_t i = 0; i < target.names.size(); ++i) {
      scope_->variables[target.names[i]] = value.list()[i];
    }
    return absl::OkStatus();
  }

  absl::Status AssignMember(const Target& target, const Value& value) {
    const Value ns = Lookup(target.names[0]);
    if (!ns.is_namespace()) {
      return absl::InvalidArgumentError(
          absl::StrCat("`", target.names[0], "`: expected a namespace, got ", ToAbsl(ns.Kind())));
    }
    if (value.is_namespace() || value.is_callable()) {
      return absl::InvalidArgumentError(
          absl::StrCat(ToAbsl(value.Kind()), " can stand in a variable only"));
    }
    ns.ns().members[target.member] = value;
    return absl::OkStatus();
  }

  Value Lookup(const std::string& name) const {
    for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
      const auto found = scope->variables.find(name);
      if (found != scope->variables.end()) return found->second;
    }
    if (!IsFunction(name)) return Value();
    auto callable = std::make_shared<Callable>();
    callable->name = name;
    return Value(std::move(callable));
  }

  Result Eval(const Expr& expr) {
    const Level level(&depth_);
    absl::Status status = CheckDepth();
    if (status.ok()) status = budget_.Charge();
    if (!status.ok()) return Locate(status, expr.line);
    Result result = EvalKind(expr);
    if (!result.ok()) return Locate(result.status(), expr.line);
    return result;
  }

  // Of an argument that may be missing.
  Result EvalOptional(const ExprPtr& expr) { return expr == nullptr ? Value() : Eval(*expr); }

  Result EvalKind(const Expr& expr) {
    switch (expr.kind) {
      case ExprKind::kLiteral:
        return expr.literal;
      case ExprKind::kName:
        return Lookup(expr.name);
      case ExprKind::kList:
        return EvalList(expr);
      case ExprKind::kMap:
        return EvalMap(expr);
      case ExprKind::kAttribute:
      case ExprKind::kItem:
        return EvalMember(expr);
      case ExprKind::kSlice:
        return EvalSlice(expr);
      case ExprKind::kCall:
        return EvalCall(expr);
      case ExprKind::kFilter:
      case ExprKind::kTest:
        return EvalFilterOrTest(expr);
      case ExprKind::kUnary:
        return EvalUnary(expr);
      case ExprKind::kBinary:
        return EvalBinary(expr);
      case ExprKind::kCompare:
        return EvalCompare(expr);
      case ExprKind::kTernary: {
        ASSIGN_OR_RETURN(const Value condition, Eval(*expr.args[1]));
        return EvalOptional(expr.args[condition.IsTrue() ? 0 : 2]);
      }
    }
    return absl::InternalError("an expression of an unknown kind");
  }

  Result EvalList(const Expr& expr) {
    std::vector<Value> items;
    for (const ExprPtr& arg : expr.args) {
      ASSIGN_OR_RETURN(items.emplace_back(), Eval(*arg));
    }
    return Value::OfList(std::move(items));
  }

  Result EvalMap(const Expr& expr) {
    MapItems items;
    for (size_t i = 0; i < expr.args.size(); i += 2) {
      ASSIGN_OR_RETURN(const Value value, Eval(*expr.args[i]));
      std::optional<MapKey> key = ToMapKey(value);
      if (!key) {
        return absl::InvalidArgumentError(absl::StrCat(
            "a map's key: expected a string or an integer, got ", ToAbsl(value.Kind())));
      }
      ASSIGN_OR_RETURN(Value item, Eval(*expr.args[i + 1]));
      items.emplace_back(*std::move(key), std::move(item));
    }
    return Value::OfMap(std::move(items));
  }

  // `a.name` looks for a method first and `a['name']` for an item, as Jinja does.
  Result EvalMember(const Expr& expr) {
    ASSIGN_OR_RETURN(const Value base, Eval(*expr.args[0]));
    if (base.is_undefined()) {
      return absl::InvalidArgumentError(absl::StrCat("`", Spell(*expr.args[0]), "` is undefined"));
    }
    const bool is_attribute = expr.kind == ExprKind::kAttribute;
    Value key(expr.name);
    if (!is_attribute) {
      ASSIGN_OR_RETURN(key, Eval(*expr.args[1]));
    }
    if (base.is_string()) RETURN_IF_ERROR(budget_.Charge(base.string().size()));
    Value item = GetItem(base, key);
    if (!key.is_string() || !HasMethod(base, key.string())) return item;
    if (!is_attribute && !item.is_undefined()) return item;
    auto method = std::make_shared<Callable>();
    method->name = key.string();
    method->self = base;
    return Value(std::move(method));
  }

  Result EvalSlice(const Expr& expr) {
    ASSIGN_OR_RETURN(const Value base, Eval(*expr.args[0]));
    ASSIGN_OR_RETURN(const Value start, EvalOptional(expr.args[1]));
    ASSIGN_OR_RETURN(const Value stop, EvalOptional(expr.args[2]));
    ASSIGN_OR_RETURN(const Value step, EvalOptional(expr.args[3]));
    return Slice(base, start, stop, step, budget_);
  }

  absl::StatusOr<Arguments> EvalArguments(const Expr& expr) {
    Arguments arguments;
    for (size_t i = 1; i < expr.args.size(); ++i) {
      ASSIGN_OR_RETURN(arguments.positional.emplace_back(), Eval(*expr.args[i]));
    }
    for (const auto& [name, arg] : expr.named) {
      ASSIGN_OR_RETURN(Value value, Eval(*arg));
      arguments.named.emplace_back(name, std::move(value));
    }
    return arguments;
  }

  Result EvalCall(const Expr& expr) {
    const Expr& callee = *expr.args[0];
    ASSIGN_OR_RETURN(const Arguments arguments, EvalArguments(expr));
    if (callee.kind == ExprKind::kAttribute && callee.name == "cycle" &&
        Spell(callee) == "loop.cycle" && !arguments.positional.empty()) {
      const Value index = GetItem(Lookup("loop"), Value(std::string("index0")));
      if (index.is_int()) {
        return arguments.positional[index.integral() % arguments.positional.size()];
      }
    }
    ASSIGN_OR_RETURN(const Value function, Eval(callee));
    if (!function.is_callable()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "`", Spell(callee), "`: expected a function, got ", ToAbsl(function.Kind())));
    }
    const Callable& callable = function.callable();
    if (callable.macro != nullptr) return CallMacro(*callable.macro, arguments);
    if (callable.self.is_undefined()) return builtins_.Function(callable.name, arguments);
    return builtins_.Method(callable.self, callable.name, arguments);
  }

  Result CallMacro(const Macro& macro, const Arguments& arguments) {
    std::vector<std::string_view> names;
    for (const auto& parameter : macro.parameters) names.push_back(parameter.first);
    ASSIGN_OR_RETURN(std::vector<Value> values, arguments.Bind(macro.name, names));
    Scope scope{root_, {}};
    Scope* const caller = scope_;
    scope_ = &scope;
    Result result = RunMacro(macro, std::move(values));
    scope_ = caller;
    return result;
  }

  Result RunMacro(const Macro& macro, std::vector<Value> values) {
    for (size_t i = 0; i < values.size(); ++i) {
      const auto& [name, otherwise] = macro.parameters[i];
      if (values[i].is_undefined()) {
        ASSIGN_OR_RETURN(values[i], EvalOptional(otherwise));
      }
      scope_->variables[name] = std::move(values[i]);
    }
    std::string text;
    RETURN_IF_ERROR(Render(macro.body, text).status());
    return Value(std::move(text));
  }

  Result EvalFilterOrTest(const Expr& expr) {
    ASSIGN_OR_RETURN(const Value input, Eval(*expr.args[0]));
    ASSIGN_OR_RETURN(const Arguments arguments, EvalArguments(expr));
    if (expr.kind == ExprKind::kFilter) return builtins_.Filter(expr.name, input, arguments);
    ASSIGN_OR_RETURN(const bool passes, builtins_.Test(expr.name, input, arguments));
    return Value(passes);
  }

  Result EvalUnary(const Expr& expr) {
    ASSIGN_OR_RETURN(const Value operand, Eval(*expr.args[0]));
    if (expr.name == "not") return Value(!operand.IsTrue());
    return Calculate(expr.name, Value(int64_t{0}), operand, budget_);
  }

  Result EvalBinary(const Expr& expr) {
    ASSIGN_OR_RETURN(const Value left, Eval(*expr.args[0]));
    if (expr.name == "and" || expr.name == "or") {
      return left.IsTrue() == (expr.name == "or") ? Result(left) : Eval(*expr.args[1]);
    }
    ASSIGN_OR_RETURN(const Value right, Eval(*expr.args[1]));
    return Calculate(expr.name, left, right, budget_);
  }

  Result EvalCompare(const Expr& expr) {
    ASSIGN_OR_RETURN(Value left, Eval(*expr.args[0]));
    for (size_t i = 0; i < expr.names.size(); ++i) {
      ASSIGN_OR_RETURN(Value right, Eval(*expr.args[i + 1]));
      ASSIGN_OR_RETURN(const bool holds, Compare(expr.names[i], left, right, budget_));
      if (!holds) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  Scope* const root_;
  Scope* scope_;
  Budget budget_;
  const Builtins builtins_;
  int depth_ = 0;
  int loops_ = 0;  // that are running
  bool is_located_ = false;
};

}  // namespace

absl::StatusOr<std::string> Evaluate(const Body& body,
                                     std::vector<std::pair<std::string, Value>> variables,
                                     absl::Time now) {
  Scope root{nullptr, {}};
  for (auto& [name, value] : variables) root.variables[std::move(name)] = std::move(value);
  return Evaluator(&root, now).Run(body);
}

}  // namespace flowmesh::chat
