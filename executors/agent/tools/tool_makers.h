// What the tools are made with and of; `catalogue.h` is their face.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "common/field.h"
#include "common/http.h"
#include "executors/agent/tools/catalogue.h"

namespace flowmesh::agent {

// One of the catalogue each: reads and checks its options.
absl::StatusOr<Tools> MakeWebSearch(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakeReadPage(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakeArxiv(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakeWikipedia(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakeFiles(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakeDocuments(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakeRetrieval(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakeBash(const Field& options, const ToolEnvironment& environment);
absl::StatusOr<Tools> MakePython(const Field& options, const ToolEnvironment& environment);

using ToolFunction =
    std::function<absl::StatusOr<std::string>(const Json& arguments, const ToolContext& context)>;

std::shared_ptr<Tool> MakeTool(chat::ToolSpec spec, ToolFunction function);

// Whether endpoints take a tool of that name.
inline constexpr size_t kLongestToolName = 64;
bool IsToolName(std::string_view name);

struct Parameter {
  std::string name, type, description;
  bool required = true;
};
// The JSON schema of a map with these members and no others.
Json Parameters(std::initializer_list<Parameter> parameters);

// One request of a tool, with a few tries, until the context's deadline at most. An answer of
// another status than 2xx is an error without `secrets`.
absl::StatusOr<HttpResponse> FetchForTool(HttpRequest request, const ToolContext& context,
                                          std::vector<std::string> secrets = {});

// What is written in a document, behind its title; `ending`: as of retrieval::ReadDocument, `.pdf`.
absl::StatusOr<std::string> TextOfDocument(std::string content, const std::string& ending,
                                           const ToolContext& context);

// Whether the call is to end: it was stopped, or its time is over.
bool IsOver(const ToolContext& context);

// As much of `text` from byte `start` on as fits into one answer, and how to read on.
std::string Excerpt(const std::string& text, int64_t start);

// The optional argument `name`.
int64_t IntArgument(const Json& arguments, const std::string& name, int64_t fallback);

}  // namespace flowmesh::agent
