// Search on the web through Serper (https://serper.dev).
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/agent/tools/check_keys.h"
#include "executors/agent/tools/tool_makers.h"

namespace flowmesh::agent {
namespace {

// The member `key` of `map` as text; empty when there is none.
std::string Text(const Json& map, std::string_view key) {
  return JsonToText(Field(&map, "")[key].json());
}

std::string Written(const Json& answer) {
  const Field root(&answer, "");
  std::string out;
  if (const Json& box = root["answerBox"].json(); box.is_object()) {
    const std::string said =
        Text(box, "answer").empty() ? Text(box, "snippet") : Text(box, "answer");
    absl::StrAppend(&out, "Answer: ", said, "\n", Text(box, "link"), "\n\n");
  }
  if (const Json& graph = root["knowledgeGraph"].json(); graph.is_object()) {
    absl::StrAppend(&out, Text(graph, "title"), ": ", Text(graph, "description"), "\n\n");
  }
  const Field results = root["organic"];
  for (size_t i = 0; i < results.size(); ++i) {
    const Json& result = results[i].json();
    const std::string date = Text(result, "date");
    absl::StrAppend(&out, i + 1, ". ", Text(result, "title"), "\n", Text(result, "link"), "\n",
                    date.empty() ? "" : absl::StrCat(date, ": "), Text(result, "snippet"), "\n\n");
  }
  return out.empty() ? "nothing was found" : std::string(Trim(out));
}

}  // namespace

absl::StatusOr<Tools> MakeWebSearch(const Field& options, const ToolEnvironment& environment) {
  RETURN_IF_ERROR(CheckKeys(options, {"results", "base_url"}));
  ASSIGN_OR_RETURN(const int64_t count, options["results"].IntOr(8, 1, 100));
  ASSIGN_OR_RETURN(const std::string base_url,
                   options["base_url"].StringOr("https://google.serper.dev"));
  const std::string key(Trim(environment.env("SERPER_API_KEY").value_or("")));
  if (key.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.path(), ": web_search needs the environment variable SERPER_API_KEY"));
  }
  return Tools{MakeTool(
      {.name = "web_search",
       .description = "Searches the web. Gives titles, addresses and excerpts of pages.",
       .parameters = Parameters({{"query", "string", "what to look for, as for a search engine"}})},
      [=](const Json& arguments, const ToolContext& context) -> absl::StatusOr<std::string> {
        HttpRequest request{.method = "POST",
                            .url = absl::StrCat(base_url, "/search"),
                            .headers = {{"X-API-KEY", key}, {"Content-Type", "application/json"}},
                            .body = DumpJson({{"q", arguments["query"]}, {"num", count}}),
                            .max_redirects = 0};  // the key goes nowhere else
        ASSIGN_OR_RETURN(const HttpResponse response, FetchForTool(request, context, {key}));
        ASSIGN_OR_RETURN(const Json answer, ParseJson(response.body));
        return Written(answer);
      })};
}

}  // namespace flowmesh::agent
