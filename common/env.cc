#include "common/env.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "common/url.h"

namespace flowmesh {

EnvLookup SystemEnv() {
  return [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    if (value == nullptr) return std::nullopt;
    return std::string(value);
  };
}

std::optional<std::string> EnvReader::Read(std::string_view name, std::string_view fallback,
                                           std::string_view help) {
  variables_.push_back({std::string(name), std::string(fallback), std::string(help)});
  std::optional<std::string> value = lookup_(name);
  if (value && Trim(*value).empty()) value.reset();
  return value;
}

bool EnvReader::IsSet(std::string_view name) const {
  const std::optional<std::string> value = lookup_(name);
  return value && !Trim(*value).empty();
}

void EnvReader::Reject(std::string_view name, std::string_view what, std::string_view found) {
  RejectWith(name, absl::StrCat("expected ", ToAbsl(what), ", got \"", ToAbsl(found), "\""));
}

void EnvReader::RejectWith(std::string_view name, std::string_view text) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(ToAbsl(name), ": ", ToAbsl(text)));
  }
}

std::string EnvReader::String(std::string_view name, std::string_view fallback,
                              std::string_view help) {
  return Read(name, fallback, help).value_or(std::string(fallback));
}

std::string EnvReader::Secret(std::string_view name, std::string_view help) {
  const std::string value(Trim(Read(name, "", help).value_or("")));
  if (HasBlank(value))
    RejectWith(name, "expected no white space or control characters inside, got some");
  return value;
}

std::string EnvReader::HttpUrl(std::string_view name, std::string_view fallback,
                               std::string_view help) {
  std::string url(Trim(String(name, fallback, help)));
  if (url.empty()) return url;
  if (!IsHttpUrl(url)) Reject(name, "an http or https URL", WithoutUserInfo(url));
  while (url.ends_with('/')) url.pop_back();
  return url;
}

int64_t EnvReader::Int(std::string_view name, int64_t fallback, int64_t min, std::string_view help,
                       int64_t max) {
  const std::optional<std::string> value = Read(name, absl::StrCat(fallback), help);
  if (!value) return fallback;
  int64_t number = 0;
  if (absl::SimpleAtoi(*value, &number) && number >= min && number <= max) return number;
  const bool bounded = max != std::numeric_limits<int64_t>::max();
  Reject(name,
         bounded ? absl::StrCat("an integer from ", min, " to ", max)
                 : absl::StrCat("an integer of at least ", min),
         *value);
  return fallback;
}

int64_t EnvReader::LenientInt(std::string_view name, int64_t fallback, int64_t min,
                              std::string_view help) {
  const std::optional<std::string> value = Read(name, absl::StrCat(fallback), help);
  if (!value) return fallback;
  int64_t number = 0;
  if (absl::SimpleAtoi(*value, &number) && number >= min) return number;
  const bool bounded = min != std::numeric_limits<int64_t>::min();
  Warn(absl::StrCat(ToAbsl(name), ": expected an integer",
                    bounded ? absl::StrCat(" of at least ", min) : "", ", got \"", *value, "\"; ",
                    fallback, " is used"));
  return fallback;
}

double EnvReader::Number(std::string_view name, double fallback, double min,
                         std::string_view help) {
  const std::optional<std::string> value = Read(name, PythonFloat(fallback), help);
  if (!value) return fallback;
  double number = 0;
  if (absl::SimpleAtod(*value, &number) && std::isfinite(number) && number >= min) return number;
  Reject(name, absl::StrCat("a number of at least ", min), *value);
  return fallback;
}

std::optional<double> EnvReader::PositiveNumber(std::string_view name, std::string_view help) {
  const std::optional<std::string> value = Read(name, "", help);
  if (!value) return std::nullopt;
  double number = 0;
  if (absl::SimpleAtod(*value, &number) && std::isfinite(number) && number > 0) return number;
  Reject(name, "a number greater than 0", *value);
  return std::nullopt;
}

bool EnvReader::Switch(std::string_view name, bool fallback, std::string_view help) {
  const std::optional<std::string> value = Read(name, fallback ? "1" : "off", help);
  if (!value) return fallback;
  const std::string word = ToLower(Trim(*value));
  if (word == "0" || word == "false" || word == "no" || word == "off") return false;
  if (word != "1" && word != "true" && word != "yes" && word != "on") {
    Warn(absl::StrCat(ToAbsl(name), ": expected 1, true, yes or on, or 0, false, no or off, got \"",
                      *value, "\"; taken for on"));
  }
  return true;
}

std::string EnvReader::Help() const {
  size_t width = 0;
  for (const Variable& variable : variables_) width = std::max(width, variable.name.size());
  std::string text;
  for (const Variable& variable : variables_) {
    absl::StrAppend(&text, "  ", variable.name, std::string(width - variable.name.size() + 2, ' '),
                    variable.help);
    if (!variable.fallback.empty()) absl::StrAppend(&text, " [", variable.fallback, "]");
    text += '\n';
  }
  return text;
}

}  // namespace flowmesh
