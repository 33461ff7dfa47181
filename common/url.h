// URLs as text, for whoever does not speak HTTP too.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace flowmesh {

// Whether `text` holds white space or control characters, which no address and no token does.
bool HasBlank(std::string_view text);

// Whether `text` has the form of an http or https URL: a scheme, a host, maybe a port, and neither
// white space nor control characters.
bool IsHttpUrl(std::string_view text);

// Where `user:password` of a URL stands: the offset of its first byte, and its length without the
// `@`; the length is npos when there is none.
std::pair<size_t, size_t> UserInfo(const std::string& url);

// A URL without its user name and password.
std::string WithoutUserInfo(std::string url);

}  // namespace flowmesh
