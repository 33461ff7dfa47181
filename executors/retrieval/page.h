// Documents behind URLs.
#pragma once

#include <functional>
#include <string>

#include "common/status.h"

namespace flowmesh::retrieval {

struct Page {
  std::string content;  // in UTF-8, unless it is a PDF
  std::string ending;   // `.html`, `.pdf`, `.md` or `.txt`, by the Content-Type, else the URL's own
};

bool IsPageUrl(const std::string& source);

// Errors show no password and no query. PermissionDenied: IsLinkLocal, also behind a redirect.
// InvalidArgument: content of another type. Unavailable: any status but 200. Cancelled.
absl::StatusOr<Page> FetchPage(const std::string& url, const std::function<bool()>& is_cancelled);

}  // namespace flowmesh::retrieval
