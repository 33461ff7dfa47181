// Strings as Python has them: sequences of code points. All texts are valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace flowmesh::chat {

// Appends a code point in UTF-8; not a surrogate.
void AppendCodePoint(int32_t code, std::string& out);

// Code points of `text`.
int64_t TextLength(std::string_view text);

// The code points of `text`, each as a text of its own.
std::vector<std::string_view> Characters(std::string_view text);

// Without white space at the sides that are asked for, or without the characters of `characters`.
std::string_view StripWhiteSpace(std::string_view text, bool left, bool right);
std::string_view StripCharacters(std::string_view text, std::string_view characters, bool left,
                                 bool right);

// str.split() and str.split(separator, limit): `limit` cuts at most, -1 for any number.
std::vector<std::string_view> SplitWhiteSpace(std::string_view text, int64_t limit);
std::vector<std::string_view> SplitBy(std::string_view text, std::string_view separator,
                                      int64_t limit);
std::vector<std::string_view> SplitFromRight(std::string_view text, std::string_view separator,
                                             int64_t limit);
std::vector<std::string_view> SplitLines(std::string_view text);

std::string ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                        int64_t limit);

// With entities for & < > ' and ", as markupsafe.escape().
std::string EscapeHtml(std::string text);

// One code point for each, by the simple case mapping of Unicode, but SS for ß in upper case.
std::string UpperText(std::string_view text);
std::string LowerText(std::string_view text);
std::string CapitalizeText(std::string_view text);
// As Jinja's filter: a word begins behind white space and behind -, (, {, [ and <.
std::string TitleText(std::string_view text);

// repr() of a string.
std::string PythonRepr(std::string_view text);

}  // namespace flowmesh::chat
