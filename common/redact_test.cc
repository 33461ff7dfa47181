#include "common/redact.h"

#include <gtest/gtest.h>

namespace flowmesh {
namespace {

TEST(WithoutUserInfoTest, RemovesNothingElse) {
  for (const auto& [url, plain] : std::vector<std::pair<std::string, std::string>>{
           {"http://u:p@host:1/x", "http://host:1/x"},
           {"https://token@host", "https://host"},
           {"http://u:p@ss@host/a@b", "http://host/a@b"},
           {"http://host/a@b?c=d@e", "http://host/a@b?c=d@e"},
           {"http://host?x@y", "http://host?x@y"},
           {"u:p@host/x", "host/x"},
           {"", ""}}) {
    EXPECT_EQ(WithoutUserInfo(url), plain) << url;
  }
}

TEST(RedactTest, AShownUrlHasNoQueryAndNoPassword) {
  EXPECT_EQ(ShownUrl("http://u:p@host/x?token=1#f"), "http://host/x");
  EXPECT_EQ(ShownUrl("http://host/x"), "http://host/x");
}

TEST(RedactTest, SecretsOfARequestAreBlankedOut) {
  HttpRequest request;
  request.url = "http://user:canary-password@host";
  request.headers = {{"Authorization", "Bearer canary-bearer"}, {"X", "abc"}};
  const uint64_t before = TextsBlanked();
  EXPECT_EQ(
      WithoutSecrets("canary-bearer canary-password canary-token abc", request, {"canary-token"}),
      "*** *** *** abc");
  EXPECT_EQ(TextsBlanked(), before + 1) << "one text, however many secrets";
  EXPECT_EQ(WithoutSecrets("abc", request, {}), "abc");
  EXPECT_EQ(TextsBlanked(), before + 1);
}

TEST(RedactTest, AShownBodyIsShortTextWithoutHalvesOfSecrets) {
  HttpRequest request;
  EXPECT_EQ(ShownBody("", request, {}), "");
  EXPECT_EQ(ShownBody("\xff", request, {}), "");
  EXPECT_EQ(ShownBody("no", request, {}), ": no");
  EXPECT_EQ(ShownBody(std::string(199, 'x') + "\u00e4", request, {}), ": " + std::string(199, 'x'));
  const std::string long_body = std::string(195, 'x') + "canary-token";
  EXPECT_EQ(ShownBody(long_body, request, {"canary-token"}), ": " + std::string(195, 'x') + "***");
}

TEST(RedactTest, ASecretThatHoldsAnotherIsBlankedWhole) {
  EXPECT_EQ(WithoutSecrets("key-4711", {}, {"key-", "key-4711"}), "***");
}

TEST(RedactTest, WhatOfAValueMayBeSecret) {
  using V = std::vector<std::string>;
  EXPECT_EQ(SecretsIn("Bearer abc123"), V{"abc123"});
  EXPECT_EQ(SecretsIn("two words"), V{"two words"});
  EXPECT_EQ(SecretsIn("hunter22"), V{"hunter22"});
  EXPECT_EQ(SecretsIn("12345678"), V{"12345678"});
  for (const char* plain : {"1", "8080", "True", "debug", "/usr/lib"}) {
    EXPECT_EQ(SecretsIn(plain), V{}) << plain;
  }
  EXPECT_EQ(UrlSecrets("https://user:secret@host/a"), (V{"user:secret", "secret"}));
  EXPECT_EQ(UrlSecrets("https://token@host/a"), V{"token"});
  EXPECT_EQ(UrlSecrets("https://host/a@b"), V{});
}

TEST(RedactTest, WhatOfArgumentsIsSecret) {
  using V = std::vector<std::string>;
  EXPECT_EQ(SecretsInArguments({"postgresql://u:canary@db/x"}), (V{"u:canary", "canary"}));
  EXPECT_EQ(SecretsInArguments({"--api-key", "canary", "--token=canary2"}),
            (V{"canary", "canary2", "canary2"}));
  EXPECT_EQ(SecretsInArguments({"--header", "Authorization: Bearer canary"}), V{"canary"});
  EXPECT_EQ(SecretsInArguments({"host=db password=canary port=5432"}),
            (V{"canary port=5432", "canary"}));
  EXPECT_EQ(SecretsInArguments({"https://host/a?access_token=canary&b=c"}),
            (V{"canary&b=c", "canary"}));
  EXPECT_EQ(SecretsInArguments({"-y", "@scope/server@1.0", "stdio", "--port=8080", "--tokenizer",
                                "gpt2", "--max-tokens=10", "me@host", "https://host/a", "--key"}),
            V{});
}

}  // namespace
}  // namespace flowmesh
