// Any bytes as a data file of each text format and as a split: a table that was read must be whole,
// and every place in it have a name.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "executors/data/data_files.h"
#include "executors/data/read_table.h"
#include "executors/data/split.h"

namespace {

void Check(const absl::StatusOr<flowmesh::data::Table>& table) {
  if (!table.ok()) {
    if (table.status().message().empty()) std::abort();
    return;
  }
  for (size_t row = 0; row < table->rows.size(); ++row) {
    if (table->Place(row).empty()) std::abort();
    for (const auto& [name, value] : table->rows[row].values.items()) {
      if (!table->HasColumn(name)) std::abort();
    }
  }
}

void CheckSplit(std::string_view text) {
  const auto parts = flowmesh::data::ParseSplit(text);
  if (!parts.ok()) return;
  for (const flowmesh::data::SplitPart& part : *parts) {
    for (const size_t rows : {0, 1, 7, 1000}) {
      const flowmesh::data::Range range = flowmesh::data::Slice(part, rows);
      if (range.begin > range.end || range.end > rows) std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Check(flowmesh::data::ReadJsonl(text, "f"));
  Check(flowmesh::data::ReadJson(text, "f"));
  Check(flowmesh::data::ReadCsv(text, ',', "f"));
  Check(flowmesh::data::ReadText(text, "f"));
  CheckSplit(text.substr(0, 100));
  (void)flowmesh::data::FindConfigurations({"train.csv", "data/a-00000-of-00001.txt"}, text);
  return 0;
}
