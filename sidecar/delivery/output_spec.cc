#include "sidecar/delivery/output_spec.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/log.h"
#include "common/strings.h"
#include "common/task_folder.h"

namespace flowmesh::sidecar {
namespace {

bool LeavesItsRoot(const std::filesystem::path& path) {
  return path.is_relative() && *path.lexically_normal().begin() == "..";
}

absl::Status ParseLocal(const Field& destination, OutputSpec& output) {
  const Field path = destination["path"];
  ASSIGN_OR_RETURN(const std::string text, path.StringOr(""));
  output.path = std::string(Trim(text));
  if (!output.path.empty() && LeavesItsRoot(output.path)) {
    return path.Expected("a path inside RESULTS_DIR, or an absolute one");
  }
  return absl::OkStatus();
}

// Field::CheckMap without the text that stands in the map's place: it may hold a secret.
absl::Status CheckMapUnseen(const Field& field) {
  if (field.present() && field.json().is_string()) return field.Error("expected a map, got a text");
  return field.CheckMap();
}

// Values are secret: an error shows the name only.
absl::Status ParseHeaders(const Field& field, OutputSpec& output) {
  RETURN_IF_ERROR(CheckMapUnseen(field));
  if (!field.present()) return absl::OkStatus();
  for (const auto& [name, value] : field.json().items()) {
    if (value.is_structured()) {
      return absl::InvalidArgumentError(absl::StrCat(field.path(), ".", name,
                                                     ": expected a string, got ",
                                                     value.is_array() ? "a list" : "a map"));
    }
    const std::string text = JsonToText(value);
    if (name.empty() || name.find_first_of("\r\n:") != std::string::npos ||
        text.find_first_of("\r\n") != std::string::npos) {
      return field.Error(
          "expected header names without colons, names and values without line breaks, got others");
    }
    output.headers.emplace_back(name, text);
  }
  return absl::OkStatus();
}

absl::Status ParseHttp(const Field& destination, OutputSpec& output) {
  const Field url = destination["url"];
  ASSIGN_OR_RETURN(const std::string url_text, url.StringOr(""));
  output.url = std::string(Trim(url_text));
  if (!output.url.empty() && UrlOrigin(output.url).empty()) {
    // It may hold a password, whatever else is wrong with it.
    return url.Error("expected an http:// or https:// URL, got another text");
  }
  const Field method = destination["method"];
  ASSIGN_OR_RETURN(const std::string method_text, method.StringOr("POST"));
  output.method = absl::AsciiStrToUpper(ToAbsl(Trim(method_text)));
  if (output.method.empty()) output.method = "POST";
  if (!std::all_of(output.method.begin(), output.method.end(), absl::ascii_isalpha)) {
    return method.Expected("an HTTP method");
  }
  RETURN_IF_ERROR(ParseHeaders(destination["headers"], output));
  const Field timeout = destination["timeoutSec"];
  ASSIGN_OR_RETURN(const double seconds, timeout.NumberOr(0, {.at_least = 0}));
  if (seconds > 0) output.timeout = absl::Seconds(seconds);
  return absl::OkStatus();
}

absl::Status ParseArtifacts(const Field& field, OutputSpec& output) {
  RETURN_IF_ERROR(field.CheckList());
  for (size_t i = 0; i < field.size(); ++i) {
    ASSIGN_OR_RETURN(const std::string text, field[i].String());
    const std::string_view name = ArtifactName(text);
    if (!name.empty()) output.artifacts.emplace_back(name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OutputSpec> ParseOutputSpec(const Field& spec) {
  OutputSpec output;
  const Field field = spec["output"];
  RETURN_IF_ERROR(field.CheckMap());
  const Field destination = field["destination"];
  RETURN_IF_ERROR(CheckMapUnseen(destination));
  ASSIGN_OR_RETURN(const std::string type, destination["type"].StringOr("local"));
  const std::string word = ToLower(Trim(type));
  output.type = type;
  if (word == "http") {
    output.destination = OutputSpec::Destination::kHttp;
    RETURN_IF_ERROR(ParseHttp(destination, output));
  } else if (word == "local" || word.empty()) {
    RETURN_IF_ERROR(ParseLocal(destination, output));
  } else {
    output.destination = OutputSpec::Destination::kUnknown;
    LogWarning("{}: unknown type \"{}\": the result stays in RESULTS_DIR",
               destination["type"].path(), word);
  }
  RETURN_IF_ERROR(ParseArtifacts(field["artifacts"], output));
  return output;
}

}  // namespace flowmesh::sidecar
