#include "common/url.h"

#include <gtest/gtest.h>

namespace flowmesh {
namespace {

TEST(UrlTest, KnowsAnHttpUrlByItsForm) {
  for (const char* url : {"http://h", "HTTPS://h:8000/a?b#c", "http://u:p@h/", "http://[::1]:80",
                          "http://[fd00::7]/x", "http://127.0.0.1:65535"}) {
    EXPECT_TRUE(IsHttpUrl(url)) << url;
  }
  for (const char* text :
       {"", "h:80", "http:/h", "http://", "http:///path", "ftp://h", "http://h:", "http://h:0",
        "http://h:65536", "http://h:x", "http://:80", "http://[::1", "http://::1]", "http://a b",
        "http://h\n", "http://u:p@"}) {
    EXPECT_FALSE(IsHttpUrl(text)) << text;
  }
}

TEST(UrlTest, WithoutUserInfoNoPasswordIsLeft) {
  EXPECT_EQ(WithoutUserInfo("http://u:p@h:1/a@b"), "http://h:1/a@b");
  EXPECT_EQ(WithoutUserInfo("u:p@h"), "h");
  EXPECT_EQ(WithoutUserInfo("http://h/a@b"), "http://h/a@b");
}

}  // namespace
}  // namespace flowmesh
