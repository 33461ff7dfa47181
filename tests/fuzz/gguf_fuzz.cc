// Any bytes as a GGUF file: an error, or a file whose every tensor and key can be read.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/model/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // One file per process, overwritten: GGUF files are mapped, so there must be a file.
  static const flowmesh::TempDir* const dir = new flowmesh::TempDir;
  static const std::filesystem::path path = *dir / absl::StrCat(getpid(), ".gguf");
  FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr || std::fwrite(data, 1, size, file) != size) std::abort();
  std::fclose(file);
  const auto gguf = flowmesh::model::GgufFile::Open(path);
  if (!gguf.ok()) return 0;
  unsigned sum = 0;
  for (const auto& tensor : (*gguf)->tensors()) {
    for (std::byte b : tensor.data) sum += std::to_integer<unsigned>(b);
  }
  (void)flowmesh::model::ReadGgufVocabulary(**gguf);
  return sum == 0x7fffffff ? 1 : 0;
}
