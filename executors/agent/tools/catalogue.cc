#include "executors/agent/tools/catalogue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/redact.h"
#include "common/retry.h"
#include "common/strings.h"
#include "executors/agent/tools/tool_makers.h"
#include "executors/retrieval/documents.h"

namespace flowmesh::agent {
namespace {

constexpr absl::Duration kRequestTime = absl::Seconds(30);
constexpr absl::Duration kRetryTime = absl::Seconds(10);
constexpr size_t kMaxAnswer = 8u << 20;  // bytes of a server's answer
constexpr size_t kExcerpt = 20000;       // bytes

using Maker = absl::StatusOr<Tools> (*)(const Field&, const ToolEnvironment&);

const std::map<std::string, Maker>& Makers() {
  static const auto* const kMakers = new std::map<std::string, Maker>{
      {"web_search", MakeWebSearch}, {"read_page", MakeReadPage}, {"arxiv", MakeArxiv},
      {"wikipedia", MakeWikipedia},  {"files", MakeFiles},        {"documents", MakeDocuments},
      {"retrieval", MakeRetrieval},  {"bash", MakeBash},          {"python", MakePython}};
  return *kMakers;
}

class FunctionTool : public Tool {
 public:
  FunctionTool(chat::ToolSpec spec, ToolFunction function)
      : spec_(std::move(spec)), function_(std::move(function)) {}

  const chat::ToolSpec& spec() const override { return spec_; }
  absl::StatusOr<std::string> Call(const Json& arguments, const ToolContext& context) override {
    return function_(arguments, context);
  }

 private:
  const chat::ToolSpec spec_;
  const ToolFunction function_;
};

}  // namespace

absl::StatusOr<Tools> MakeTools(const ToolChoice& choice, const ToolEnvironment& environment) {
  const auto maker = Makers().find(choice.name);
  if (maker == Makers().end()) {
    std::vector<std::string> names;
    for (const auto& [name, function] : Makers()) names.push_back(name);
    return absl::InvalidArgumentError(absl::StrCat(choice.path, ": unknown tool '", choice.name,
                                                   "'; known are: ", absl::StrJoin(names, ", ")));
  }
  return maker->second(Field(&choice.options, choice.path), environment);
}

std::vector<std::string> ToolSecrets(const EnvLookup& env) {
  std::vector<std::string> secrets;
  for (const char* name :
       {"SERPER_API_KEY", "JINA_API_KEY", "UTU_LLM_API_KEY", "HF_TOKEN", "ORCHESTRATOR_TOKEN"}) {
    secrets.emplace_back(Trim(env(name).value_or("")));
  }
  return secrets;
}

std::shared_ptr<Tool> MakeTool(chat::ToolSpec spec, ToolFunction function) {
  return std::make_shared<FunctionTool>(std::move(spec), std::move(function));
}

bool IsToolName(std::string_view name) {
  return !name.empty() && name.size() <= kLongestToolName &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

Json Parameters(std::initializer_list<Parameter> parameters) {
  Json properties = Json::object(), required = Json::array();
  for (const Parameter& parameter : parameters) {
    properties[parameter.name] = {{"type", parameter.type}, {"description", parameter.description}};
    if (parameter.required) required.push_back(parameter.name);
  }
  return {{"type", "object"},
          {"properties", std::move(properties)},
          {"required", std::move(required)},
          {"additionalProperties", false}};
}

absl::StatusOr<HttpResponse> FetchForTool(HttpRequest request, const ToolContext& context,
                                          std::vector<std::string> secrets) {
  const Clock& clock = Clock::Real();
  const absl::Duration now = clock.Monotonic();
  const absl::Duration deadline = std::min(now + kRequestTime, context.deadline);
  request.timeout = std::min(request.timeout, deadline - now);
  request.max_response_bytes = kMaxAnswer;
  request.cancelled = context.is_stopped;
  HttpClient client;
  ASSIGN_OR_RETURN(HttpResponse response,
                   SendWithRetries(client, request, kRetryTime, clock, deadline));
  if (response.status >= 200 && response.status < 300) return response;
  return absl::FailedPreconditionError(
      absl::StrCat(UrlOrigin(request.url), ": HTTP ", response.status,
                   ShownBody(response.body, request, std::move(secrets))));
}

bool IsOver(const ToolContext& context) {
  return (context.is_stopped && context.is_stopped()) ||
         Clock::Real().Monotonic() >= context.deadline;
}

absl::StatusOr<std::string> TextOfDocument(std::string content, const std::string& ending,
                                           const ToolContext& context) {
  ASSIGN_OR_RETURN(
      const retrieval::Document document,
      retrieval::ReadDocument(std::move(content), ending, [&context] { return IsOver(context); }));
  const std::string title = document.metadata.value("title", "");
  return ToValidUtf8(title.empty() ? document.text : absl::StrCat(title, "\n\n", document.text));
}

std::string Excerpt(const std::string& text, int64_t start) {
  size_t begin = std::min(static_cast<size_t>(std::max<int64_t>(start, 0)), text.size());
  while (begin < text.size() && !StartsCharacter(text[begin])) ++begin;
  std::string excerpt(CutUtf8(std::string_view(text).substr(begin), kExcerpt));
  const size_t end = begin + excerpt.size();
  if (begin == 0 && end == text.size()) return excerpt;
  absl::StrAppend(&excerpt, "\n[bytes ", begin, " to ", end, " of ", text.size(),
                  end == text.size() ? "" : absl::StrCat("; read on with start ", end), "]");
  return excerpt;
}

int64_t IntArgument(const Json& arguments, const std::string& name, int64_t fallback) {
  const Json& value = Field(&arguments, "")[name].json();
  if (!value.is_number()) return fallback;
  if (!value.is_number_float()) return value.get<int64_t>();
  return static_cast<int64_t>(std::clamp(value.get<double>(), -9e18, 9e18));
}

}  // namespace flowmesh::agent
