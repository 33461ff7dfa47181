// Any bytes as YAML: an error or a document, never a crash, a hang or unbounded memory.
#include <cstdint>

#include "common/yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)flowmesh::ParseYaml({reinterpret_cast<const char*>(data), size});
  return 0;
}
