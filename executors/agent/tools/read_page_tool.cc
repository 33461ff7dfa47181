// Reads one page of the web, by itself or, with a key, through Jina's reader (https://r.jina.ai).
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/address_guard.h"
#include "common/strings.h"
#include "executors/agent/tools/check_keys.h"
#include "executors/agent/tools/tool_makers.h"
#include "executors/html/charset.h"
#include "executors/html/html_text.h"

namespace flowmesh::agent {
namespace {

// Links of the page are relative to where redirects have led.
absl::StatusOr<std::string> TextOfPage(const HttpResponse& response, const ToolContext& context) {
  const std::string type = ToLower(response.Header("content-type"));
  if (absl::StartsWith(type, "application/pdf")) {
    return TextOfDocument(response.body, ".pdf", context);
  }
  const std::string body = html::ToUtf8(response.body, html::CharsetOf(type));
  const bool is_html = type.empty() || absl::StrContains(type, "html");
  if (!is_html) {
    const bool is_text = absl::StartsWith(type, "text/") || absl::StrContains(type, "json") ||
                         absl::StrContains(type, "xml") || absl::StrContains(type, "yaml");
    if (is_text) return body;
    return absl::FailedPreconditionError(
        absl::StrCat("the page is ", type.substr(0, 100), "; HTML, text and PDFs can be read"));
  }
  ASSIGN_OR_RETURN(const html::Page page, html::ReadHtml(body, {.url = response.url}));
  return page.title.empty() ? page.text : absl::StrCat(page.title, "\n\n", page.text);
}

struct Reader {
  std::string jina_key, jina_url;
  bool allow_private = false;

  // Those at which clouds serve credentials never.
  bool MayRead(const sockaddr& address) const {
    return allow_private ? !IsLinkLocal(address) : IsPublicAddress(address);
  }

  absl::StatusOr<std::string> Read(const std::string& url, const ToolContext& context) const {
    if (UrlOrigin(url).empty()) {
      return absl::InvalidArgumentError("url: expected an http:// or https:// URL");
    }
    HttpRequest request{.url = url};
    if (jina_key.empty()) {
      request.may_connect = [this](const sockaddr& address) { return MayRead(address); };
      request.may_use_proxy = allow_private;
      ASSIGN_OR_RETURN(const HttpResponse response, FetchForTool(request, context));
      return TextOfPage(response, context);
    }
    const auto address = LiteralAddress(url);
    if (allow_private ? address && !MayRead(reinterpret_cast<const sockaddr&>(*address))
                      : !MayBePublicHost(url)) {
      return absl::PermissionDeniedError(
          absl::StrCat(UrlOrigin(url), ": ",
                       allow_private ? "an address that may not be read"
                                     : "not an address of the public internet"));
    }
    request.url = absl::StrCat(jina_url, "/", url);
    request.headers = {{"Authorization", absl::StrCat("Bearer ", jina_key)}};
    ASSIGN_OR_RETURN(const HttpResponse response, FetchForTool(request, context, {jina_key}));
    return html::ToUtf8(response.body, "");
  }
};

}  // namespace

absl::StatusOr<Tools> MakeReadPage(const Field& options, const ToolEnvironment& environment) {
  RETURN_IF_ERROR(CheckKeys(options, {"jina_url"}));
  Reader reader{.jina_key = std::string(Trim(environment.env("JINA_API_KEY").value_or(""))),
                .allow_private = environment.allow_private_addresses};
  ASSIGN_OR_RETURN(reader.jina_url, options["jina_url"].StringOr("https://r.jina.ai"));
  return Tools{MakeTool(
      {.name = "read_page",
       .description = "Reads a page of the web, or a PDF there, as text.",
       .parameters = Parameters(
           {{"url", "string", "the page's address"},
            {"start", "integer", "the byte of its text to read from; 0 when left out", false}})},
      [reader](const Json& arguments, const ToolContext& context) -> absl::StatusOr<std::string> {
        ASSIGN_OR_RETURN(const std::string text,
                         reader.Read(arguments["url"].get<std::string>(), context));
        return Excerpt(text, IntArgument(arguments, "start", 0));
      })};
}

}  // namespace flowmesh::agent
