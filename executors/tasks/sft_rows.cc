#include "executors/tasks/sft_rows.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace flowmesh::tasks {

absl::StatusOr<SftRowOptions> ReadSftRowOptions(const Field& spec) {
  const Field training = spec["training"];
  SftRowOptions options;
  ASSIGN_OR_RETURN(options.max_seq_length,
                   training.FirstOf({"max_seq_length", "max_length"}).IntOr(1024, 1));
  ASSIGN_OR_RETURN(options.packing, training["packing"].BoolOr(false));
  return options;
}

absl::StatusOr<std::vector<train::SftRow>> LoadSftRows(const data::SftData& data,
                                                       const SftRowOptions& options,
                                                       TrainingJob& job) {
  std::vector<std::string> texts;
  RETURN_IF_ERROR(job.InTurn([&]() -> absl::Status {
    ASSIGN_OR_RETURN(texts, data::LoadSftData(data, job.data_context()));
    return absl::OkStatus();
  }));
  job.set_dataset_size(static_cast<int64_t>(texts.size()));
  const int64_t limit = job.base().config.max_positions;
  if (options.max_seq_length > limit) {
    job.Warn(absl::StrCat("spec.training.max_seq_length: ", options.max_seq_length, " lowered to ",
                          limit, ", the model's limit"));
  }
  ASSIGN_OR_RETURN(
      auto rows, train::MakeSftRows(texts, job.tokenizer(), std::min(options.max_seq_length, limit),
                                    options.packing));
  if (rows.empty()) return absl::InvalidArgumentError("spec.data: no text has a token");
  return rows;
}

DataSize SizeOf(const std::vector<train::SftRow>& rows) {
  DataSize size = {.rows = static_cast<int64_t>(rows.size())};
  for (const train::SftRow& row : rows) {
    for (const train::Ids& document : row) size.tokens += static_cast<int64_t>(document.size());
  }
  return size;
}

}  // namespace flowmesh::tasks
