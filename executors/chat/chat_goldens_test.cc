// Every template of tests/goldens/chat, byte by byte what Transformers renders.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/chat/chat_template.h"

namespace flowmesh::chat {
namespace {

std::filesystem::path GoldenFolder() {
  return std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "tests/goldens/chat";
}

Json ReadGolden(const std::filesystem::path& file) {
  const auto text = ReadFile(file);
  EXPECT_TRUE(text.ok()) << text.status();
  const auto json = ParseJson(text.value_or("null"));
  EXPECT_TRUE(json.ok()) << file << json.status();
  return json.value_or(Json());
}

RenderOptions OptionsOf(const Json& cases, const Json& chosen) {
  RenderOptions options;
  for (const auto& [name, text] : cases["special_tokens"].items()) {
    options.special_tokens.emplace_back(name, text.get<std::string>());
  }
  if (chosen.contains("variables")) options.variables = chosen["variables"];
  options.now = absl::FromUnixSeconds(static_cast<int64_t>(cases["now"].get<double>()));
  return options;
}

// How many texts were equal.
int CompareTemplate(const std::string& name, const Json& golden, const Json& cases) {
  const auto parsed = ChatTemplate::Parse(golden["source"].get<std::string>());
  EXPECT_TRUE(parsed.ok()) << name << ": " << parsed.status();
  if (!parsed.ok()) return 0;
  int equal = 0;
  for (const Json& answer : golden["answers"]) {
    for (const Json& chosen : cases["cases"]) {
      if (chosen["name"] != answer["case"]) continue;
      const std::string what = absl::StrCat(name, ", ", answer["case"].get<std::string>());
      RenderOptions options = OptionsOf(cases, chosen);
      options.add_generation_prompt = answer["add_generation_prompt"].get<bool>();
      const auto text = parsed->Render(
          chosen["messages"], chosen.contains("tools") ? chosen["tools"] : Json::array(), options);
      if (answer.contains("failed")) {
        EXPECT_FALSE(text.ok()) << what << ": " << answer["failed"] << "\n" << text.value_or("");
        continue;
      }
      EXPECT_TRUE(text.ok()) << what << ": " << text.status();
      EXPECT_EQ(text.value_or(""), answer["text"].get<std::string>()) << what;
      equal += text.ok();
    }
  }
  return equal;
}

void CompareFolder(const std::filesystem::path& folder, int at_least) {
  const Json cases = ReadGolden(folder / "cases.json");
  int templates = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const std::string name = file.path().filename().string();
    if (file.path().extension() != ".json" || name == "cases.json" || name == "checked.json") {
      continue;
    }
    EXPECT_GE(CompareTemplate(name, ReadGolden(file.path()), cases), 2) << name;
    ++templates;
  }
  EXPECT_GE(templates, at_least);
}

TEST(ChatGoldensTest, EveryTemplateRendersAsTransformersDoes) { CompareFolder(GoldenFolder(), 6); }

// Templates that are not in the repository, made by make_chat.py --templates.
TEST(ChatGoldensTest, OthersToo) {
  const char* folder = std::getenv("FLOWMESH_CHAT_GOLDENS");
  if (folder == nullptr) GTEST_SKIP() << "FLOWMESH_CHAT_GOLDENS is not set";
  CompareFolder(folder, 1);
}

}  // namespace
}  // namespace flowmesh::chat
