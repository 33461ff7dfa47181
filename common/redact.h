// Texts about a request that may be shown to people (promise P19).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/http.h"
#include "common/url.h"

namespace flowmesh {

// A URL without a password and without a query, which may hold a token.
std::string ShownUrl(const std::string& url);

// What of a URL's user information is secret; empty: it has none.
std::vector<std::string> UrlSecrets(const std::string& url);

// What of a setting's value may be secret: nothing of a boolean, a short number, a log level or a
// path, which stand in ordinary text; else the value, without a scheme (`Bearer <token>`).
std::vector<std::string> SecretsIn(const std::string& value);

// What of a program's arguments or of other texts is secret: the user information of URLs, and what
// stands under a name that says so (`--api-key=x`, `--token x`, `Authorization: Bearer x`,
// `password=x` of a connection string, `?access_token=x` of a URL).
std::vector<std::string> SecretsInArguments(const std::vector<std::string>& arguments);

// `text` with `***` for each of `secrets`, each value of the request's headers and the password of
// its URL.
std::string WithoutSecrets(std::string text, const HttpRequest& request,
                           std::vector<std::string> secrets);

// How many texts held a secret since the process began: somebody says them back to us.
uint64_t TextsBlanked();

// The beginning of an error's body, as `: <text>`; nothing when it is empty or no text.
std::string ShownBody(const std::string& body, const HttpRequest& request,
                      std::vector<std::string> secrets);

}  // namespace flowmesh
