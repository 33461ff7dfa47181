#include "common/redact.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

constexpr size_t kShownBody = 200;     // bytes
constexpr size_t kShortestSecret = 4;  // anything shorter would blank out ordinary text

constexpr size_t kShortestNumber = 8;  // that is a secret

std::atomic<uint64_t> blanked{0};  // for TextsBlanked

// Whether what has that name is secret: `--api-key`, `PGPASSWORD`, `Authorization`.
bool NamesSecret(std::string_view name) {
  const std::string lower = ToLower(name);
  const auto ends_name = [&](const char* end) { return lower.ends_with(end); };
  static constexpr std::array kEnds = {"key",           "token",       "secret", "password",
                                       "passwd",        "pwd",         "pass",   "auth",
                                       "authorization", "credentials", "cookie"};
  return std::any_of(kEnds.begin(), kEnds.end(), ends_name);
}

// The name that ends where `text` does.
std::string_view LastName(std::string_view text) {
  const auto is_part = [](char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-'; };
  size_t begin = text.size();
  while (begin > 0 && is_part(text[begin - 1])) --begin;
  return text.substr(begin);
}

}  // namespace

std::string ShownUrl(const std::string& url) {
  return WithoutUserInfo(url.substr(0, url.find_first_of("?#")));
}

std::vector<std::string> UrlSecrets(const std::string& url) {
  const auto [begin, length] = UserInfo(url);
  if (length == std::string::npos) return {};
  const std::string user_info = url.substr(begin, length);
  const size_t colon = user_info.find(':');
  if (colon == std::string::npos) return {user_info};
  return {user_info, user_info.substr(colon + 1)};
}

std::vector<std::string> SecretsIn(const std::string& value) {
  static const auto& words = *new std::set<std::string>{
      "true", "false", "none", "null", "auto", "debug", "info", "warn", "warning", "error"};
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const bool is_number =
      value.size() < kShortestNumber && std::all_of(value.begin(), value.end(), is_digit);
  if (words.contains(ToLower(value)) || is_number || value.starts_with('/')) return {};
  static const auto& schemes = *new std::set<std::string>{"bearer", "basic", "token", "apikey"};
  const size_t blank = value.find(' ');
  const bool has_scheme =
      blank != std::string::npos && schemes.contains(ToLower(value.substr(0, blank)));
  return {has_scheme ? value.substr(blank + 1) : value};
}

std::vector<std::string> SecretsInArguments(const std::vector<std::string>& arguments) {
  std::vector<std::string> secrets;
  const auto add = [&](const std::vector<std::string>& more) {
    secrets.insert(secrets.end(), more.begin(), more.end());
  };
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.find("://") != std::string::npos) add(UrlSecrets(argument));
    if (argument.starts_with('-') && NamesSecret(argument) && i + 1 < arguments.size()) {
      add(SecretsIn(arguments[i + 1]));
    }
    for (size_t at = argument.find_first_of("=:"); at != std::string::npos;
         at = argument.find_first_of("=:", at + 1)) {
      if (!NamesSecret(LastName(std::string_view(argument).substr(0, at)))) continue;
      const std::string value(Trim(std::string_view(argument).substr(at + 1)));
      add(SecretsIn(value));
      // It may be one of several.
      if (argument[at] == '=') add(SecretsIn(value.substr(0, value.find_first_of("&; "))));
    }
  }
  return secrets;
}

std::string WithoutSecrets(std::string text, const HttpRequest& request,
                           std::vector<std::string> secrets) {
  for (const auto& [name, value] : request.headers) {
    secrets.push_back(value);
    secrets.emplace_back(value.substr(value.find(' ') + 1));  // `Bearer <token>`
  }
  for (std::string& secret : UrlSecrets(request.url)) secrets.push_back(std::move(secret));
  // One may hold another: what is left of it would be seen.
  std::sort(secrets.begin(), secrets.end(),
            [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  bool held_one = false;
  for (const std::string& secret : secrets) {
    if (secret.size() < kShortestSecret) continue;
    held_one = absl::StrReplaceAll({{secret, "***"}}, &text) > 0 || held_one;
  }
  if (held_one) ++blanked;
  return text;
}

uint64_t TextsBlanked() { return blanked; }

std::string ShownBody(const std::string& body, const HttpRequest& request,
                      std::vector<std::string> secrets) {
  // Cut after the secrets are out: a cut through one would leave its first half.
  const std::string text = WithoutSecrets(body, request, std::move(secrets));
  const std::string_view shown = CutUtf8(text, kShownBody);
  return shown.empty() || !IsValidUtf8(shown) ? "" : absl::StrCat(": ", ToAbsl(shown));
}

}  // namespace flowmesh
