// Pages of other encodings than UTF-8.
#pragma once

#include <string>

namespace flowmesh::html {

// The value of `charset=` in a Content-Type, in lower case; empty: it names none.
std::string CharsetOf(const std::string& content_type);

// `text` in UTF-8, whatever its bytes are: what they cannot mean is a question mark. Text that is
// UTF-8 stays as it is; without a charset, or with one that is not known or is wrong, it is taken
// for Windows-1252.
std::string ToUtf8(const std::string& text, const std::string& charset);

}  // namespace flowmesh::html
