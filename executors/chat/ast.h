// A parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "executors/chat/value.h"

namespace flowmesh::chat {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  kLiteral,    // literal
  kName,       // name
  kList,       // args
  kMap,        // args: key, value, key, value, ...
  kAttribute,  // args[0].name
  kItem,       // args[0][args[1]]
  kSlice,      // args[0][args[1]:args[2]:args[3]], absent ones null
  kCall,       // args[0](args[1...], named)
  kFilter,     // args[0] | name(args[1...], named)
  kTest,       // args[0] is name(args[1...], named)
  kUnary,      // name args[0]: `not`, `-`, `+`
  kBinary,     // args[0] name args[1]: arithmetic, `~`, `and`, `or`
  kCompare,    // args[0] names[0] args[1] names[1] args[2] ...
  kTernary,    // args[0] if args[1] else args[2], which may be null
};

struct Expr {
  ExprKind kind;
  int line;
  int height = 1;  // of the tree below, which bounds how deep its evaluation goes
  std::string name;
  Value literal;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> names;
};

struct Node;
using Body = std::vector<std::unique_ptr<Node>>;

// What a value is assigned to: names, or a member of a namespace.
struct Target {
  std::vector<std::string> names;
  std::string member;  // not empty: names[0].member
};

enum class NodeKind {
  kText,
  kPrint,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kFilterBlock,
  kMacro,
  kBreak,
  kContinue
};

struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with their defaults, or null
  Body body;
};

struct Node {
  NodeKind kind;
  int line;
  std::string text;  // kText
  // kPrint: what; kFor: over what; kSet: to what; kFilterBlock, kSetBlock: a filter chain, which
  // kSetBlock may have none of.
  ExprPtr expr;
  // kIf: conditions with their bodies; the last may be null, for `else`.
  std::vector<std::pair<ExprPtr, Body>> branches;
  Target target;      // kFor, kSet, kSetBlock
  ExprPtr condition;  // kFor: `if`, or null
  Body body;          // kFor, kSetBlock, kFilterBlock
  Body otherwise;     // kFor: `else`
  std::unique_ptr<Macro> macro;
};

}  // namespace flowmesh::chat
