// Wikipedia through MediaWiki's interface: search, and the text of an article.
#include <string>

#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/strings.h"
#include "executors/agent/tools/check_keys.h"
#include "executors/agent/tools/tool_makers.h"
#include "executors/html/html_text.h"

namespace flowmesh::agent {
namespace {

// The answer to a query of the interface.
absl::StatusOr<Json> Query(const std::string& base_url, const std::string& query,
                           const ToolContext& context) {
  ASSIGN_OR_RETURN(
      const HttpResponse response,
      FetchForTool({.url = absl::StrCat(base_url, "/w/api.php?action=query&format=json&",
                                        "formatversion=2&", query)},
                   context));
  return ParseJson(response.body);
}

absl::StatusOr<std::string> Search(const std::string& base_url, const std::string& words,
                                   int64_t count, const ToolContext& context) {
  ASSIGN_OR_RETURN(const Json answer, Query(base_url,
                                            absl::StrCat("list=search&srlimit=", count,
                                                         "&srsearch=", PercentEncoded(words)),
                                            context));
  const Field found = Field(&answer, "")["query"]["search"];
  std::string out;
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string snippet = found[i]["snippet"].StringOr("").value_or("");
    ASSIGN_OR_RETURN(const html::Page plain, html::ReadHtml(snippet));
    absl::StrAppend(&out, i + 1, ". ", found[i]["title"].StringOr("").value_or(""), ": ",
                    plain.text, "\n");
  }
  return out.empty() ? "nothing was found" : std::string(Trim(out));
}

absl::StatusOr<std::string> Article(const std::string& base_url, const std::string& title,
                                    int64_t start, const ToolContext& context) {
  ASSIGN_OR_RETURN(
      const Json answer,
      Query(base_url,
            absl::StrCat("prop=extracts&explaintext=1&redirects=1&titles=", PercentEncoded(title)),
            context));
  const Field page = Field(&answer, "")["query"]["pages"][0];
  const std::string text = page["extract"].StringOr("").value_or("");
  if (text.empty()) {
    return absl::NotFoundError(
        absl::StrCat("there is no article '", title, "'; search for its title first"));
  }
  return Excerpt(absl::StrCat(page["title"].StringOr("").value_or(""), "\n\n", text), start);
}

}  // namespace

absl::StatusOr<Tools> MakeWikipedia(const Field& options, const ToolEnvironment&) {
  RETURN_IF_ERROR(CheckKeys(options, {"language", "results", "base_url"}));
  ASSIGN_OR_RETURN(const std::string language, options["language"].StringOr("en"));
  if (!IsPlainFileName(language) || language.find('.') != std::string::npos) {
    return options["language"].Expected("a language's code such as en");
  }
  ASSIGN_OR_RETURN(const int64_t count, options["results"].IntOr(5, 1, 50));
  ASSIGN_OR_RETURN(const std::string base_url, options["base_url"].StringOr(absl::StrCat(
                                                   "https://", language, ".wikipedia.org")));
  return Tools{
      MakeTool({.name = "wikipedia_search",
                .description = "Searches articles of Wikipedia. Gives titles and excerpts.",
                .parameters = Parameters({{"query", "string", "what to look for"}})},
               [=](const Json& arguments, const ToolContext& context) {
                 return Search(base_url, arguments["query"].get<std::string>(), count, context);
               }),
      MakeTool({.name = "wikipedia_article",
                .description = "Reads an article of Wikipedia.",
                .parameters =
                    Parameters({{"title", "string", "the article's title"},
                                {"start", "integer",
                                 "the byte of its text to read from; 0 when left out", false}})},
               [=](const Json& arguments, const ToolContext& context) {
                 return Article(base_url, arguments["title"].get<std::string>(),
                                IntArgument(arguments, "start", 0), context);
               })};
}

}  // namespace flowmesh::agent
