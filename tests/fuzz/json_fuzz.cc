// Any bytes: a parsed document must survive being written and read again, and being turned into
// text.
#include <cstdlib>
#include <string_view>

#include "common/field.h"
#include "common/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<flowmesh::Json> parsed =
      flowmesh::ParseJson({reinterpret_cast<const char*>(data), size});
  if (!parsed.ok()) return 0;
  const absl::StatusOr<flowmesh::Json> again = flowmesh::ParseJson(flowmesh::DumpJson(*parsed));
  if (!again.ok()) std::abort();
  flowmesh::JsonToText(*parsed);
  flowmesh::DescribeJson(*parsed);
  const flowmesh::Field field(&*parsed, "spec");
  (void)field.Int();
  (void)field.Bool();
  (void)field["a"][0].Number();
  return 0;
}
