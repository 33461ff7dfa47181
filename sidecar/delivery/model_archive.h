// The archive of a trained model or adapter (PROTOCOL.md 6.3 and 7): what the result says of it,
// and the clean-up after its upload.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "common/json.h"
#include "common/status.h"
#include "flowmesh/v1/executor.pb.h"
#include "sidecar/archive/archiver.h"
#include "sidecar/delivery/delivery_job.h"

namespace flowmesh::sidecar {

// One FINAL_MODEL or FINAL_LORA of a unit; a view of both. It writes the keys that begin with
// `final_model_archive` or `final_lora_archive` into the unit's result, and no others.
class ModelArchive {
 public:
  ModelArchive(const v1::OutputFile& file, const DeliveryUnit& unit);

  // The archive's bare file name.
  std::string name() const;
  // An adapter gets an archive also when nothing is sent.
  bool is_wanted() const;

  // Makes it beside the folder. InvalidArgument when that is not inside the unit's directory; else
  // MakeArchive's errors.
  absl::StatusOr<ArchiveFile> Make(const ArchiveOptions& options,
                                   const std::function<bool()>& is_cancelled) const;

  void SetMade(Json& result, const ArchiveFile& archive) const;
  void SetUploaded(Json& result, const ArchiveFile& archive, const std::string& link) const;
  void SetFailed(Json& result, const absl::Status& status) const;

  // When the folder is gone because an earlier delivery to `link` cleaned it up: what the result
  // said then. False otherwise.
  bool RestoreUploaded(Json& result, const std::string& link) const;

  // Whether CleanUp has deleted it.
  bool IsCleanedUp() const;

  // Deletes folder and archive, once `result` was received that says they are uploaded. Before
  // that it notes down what that says: a crash may bring the delivery again.
  absl::Status CleanUp(const Json& result) const;

 private:
  std::string Key(std::string_view suffix) const { return prefix_ + std::string(suffix); }
  std::filesystem::path Note() const;
  void Forget(Json& result) const;
  // Whether it lies in the unit's directory, also by way of links.
  bool IsInside() const;

  const DeliveryUnit& unit_;
  const bool is_adapter_;
  const std::string prefix_;
  const std::filesystem::path folder_;
};

}  // namespace flowmesh::sidecar
