// For tests: a small encoder in sentence-transformers' layout, with vectors that the original made.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/json.h"

namespace flowmesh::model {

struct GoldenEncoder {
  std::vector<std::string> texts;
  std::vector<std::vector<float>> embeddings;  // of the texts, 32 components each
};

// Makes `folder` the first encoder of tests/goldens/embeddings, which reads 10 tokens of a text.
inline GoldenEncoder MakeGoldenEncoder(const std::filesystem::path& folder) {
  const std::filesystem::path goldens =
      std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "tests/goldens";
  const Json golden = ParseJson(ReadFile(goldens / "embeddings/cases.json").value()).value();
  const Json& layout = golden["cases"][0];
  std::filesystem::copy(goldens / "encoders" / layout["encoder"].get<std::string>(), folder);
  for (const auto& [name, content] : layout["files"].items()) {
    std::filesystem::create_directories((folder / name).parent_path());
    std::ofstream(folder / name) << content.dump();
  }
  return {golden["texts"], layout["embeddings"]};
}

}  // namespace flowmesh::model
