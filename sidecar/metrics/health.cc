#include "sidecar/metrics/health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace flowmesh::sidecar {
namespace {

constexpr absl::Duration kSilenceLimit = absl::Minutes(30);

// `generating, 3 of 10 items`.
std::string ToText(const v1::TaskProgress& progress) {
  if (progress.stage().empty()) return "";
  std::string text = progress.stage();
  if (progress.done() > 0 || progress.total() > 0) absl::StrAppend(&text, ", ", progress.done());
  if (progress.total() > 0) absl::StrAppend(&text, " of ", progress.total());
  if (!progress.unit().empty()) absl::StrAppend(&text, " ", progress.unit());
  return text;
}

}  // namespace

bool HealthPart::ready() const {
  return problem.empty() && std::all_of(parts.begin(), parts.end(),
                                        [](const HealthPart& part) { return part.ready(); });
}

std::string HealthPart::Why() const {
  if (!problem.empty()) return problem;
  for (const HealthPart& part : parts) {
    if (!part.ready()) return absl::StrCat(part.name, ": ", part.Why());
  }
  return "";
}

Json HealthPart::ToJson() const {
  Json json = {{"name", name}, {"ready", ready()}};
  if (!ready()) json["reason"] = Why();
  if (!detail.empty()) json["detail"] = detail;
  for (const HealthPart& part : parts) json["parts"].push_back(part.ToJson());
  return json;
}

HealthPart HealthOfTask(const std::string& task_id, absl::Duration silent,
                        const v1::TaskProgress& progress) {
  HealthPart task{.name = absl::StrCat("task ", task_id)};
  const std::string text = ToText(progress);
  const std::string for_long = absl::FormatDuration(absl::Trunc(silent, absl::Seconds(1)));
  task.detail = absl::StrCat(text, text.empty() ? "" : ", ", "last sign ", for_long, " ago");
  if (silent > kSilenceLimit) task.problem = absl::StrCat("it has given no sign for ", for_long);
  return task;
}

}  // namespace flowmesh::sidecar
