#include "common/trace.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

constexpr size_t kVersion = 2, kTraceId = 32, kSpanId = 16, kFlags = 2;
constexpr size_t kLength = kVersion + 1 + kTraceId + 1 + kSpanId + 1 + kFlags;
constexpr char kSampled[] = "01";

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsId(std::string_view text) {
  return IsLowerHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::string Trace::ToString() const {
  return absl::StrCat("00-", trace_id, "-", span_id, "-", flags);
}

std::optional<Trace> ParseTraceparent(std::string_view text) {
  if (text.size() < kLength) return std::nullopt;
  const std::string_view version = text.substr(0, kVersion);
  const std::string_view trace_id = text.substr(kVersion + 1, kTraceId);
  const std::string_view span_id = text.substr(kVersion + kTraceId + 2, kSpanId);
  const std::string_view flags = text.substr(kLength - kFlags, kFlags);
  for (const size_t dash : {kVersion, kVersion + kTraceId + 1, kLength - kFlags - 1}) {
    if (text[dash] != '-') return std::nullopt;
  }
  // A newer version may append fields; this one has none to append.
  const bool more_is_fine = version != "00" && text[std::min(kLength, text.size() - 1)] == '-';
  if (text.size() > kLength && !more_is_fine) return std::nullopt;
  if (!IsLowerHex(version) || version == "ff" || !IsId(trace_id) || !IsId(span_id) ||
      !IsLowerHex(flags)) {
    return std::nullopt;
  }
  return Trace{std::string(trace_id), std::string(span_id), std::string(flags)};
}

Trace TraceOfRun(const Json& document, std::string_view run) {
  const std::string digest = Sha256Hex(run);
  const std::string span_id = digest.substr(kTraceId, kSpanId);
  const Field metadata = Field(&document, "")["metadata"];
  for (const Field& given : {metadata[kTraceparent], metadata["annotations"][kTraceparent]}) {
    if (const auto trace = ParseTraceparent(given.StringOr("").value_or(""))) {
      return {trace->trace_id, span_id, trace->flags};
    }
  }
  return {digest.substr(0, kTraceId), span_id, kSampled};
}

}  // namespace flowmesh
