// GET of a page of a program under test.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "common/http.h"

namespace flowmesh::testing {

// The answer; fails the test, and has no status, when there is none.
inline HttpResponse HttpGet(const std::string& url) {
  HttpRequest request;
  request.url = url;
  absl::StatusOr<HttpResponse> response = HttpClient().Send(request);
  EXPECT_TRUE(response.ok()) << url << ": " << response.status();
  return response.ok() ? *std::move(response) : HttpResponse();
}

}  // namespace flowmesh::testing
