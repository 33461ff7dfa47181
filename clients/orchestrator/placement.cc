#include "clients/orchestrator/placement.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

std::optional<uint64_t> AsUnsigned(const Json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number_integer()) {
    const int64_t number = value.get<int64_t>();
    if (number < 0) return std::nullopt;
    return static_cast<uint64_t>(number);
  }
  uint64_t number = 0;
  if (value.is_string() &&
      absl::SimpleAtoi(ToAbsl(Trim(value.get_ref<const std::string&>())), &number)) {
    return number;
  }
  return std::nullopt;
}

std::vector<const Json*> Gpus(const Json& hardware) {
  std::vector<const Json*> gpus;
  const Field list = Field(&hardware, "")["gpu"]["gpus"];
  for (size_t i = 0; i < list.size(); ++i) {
    if (list.json()[i].is_object()) gpus.push_back(&list.json()[i]);
  }
  return gpus;
}

uint64_t GpuMemory(const Json& gpu) {
  return AsUnsigned(Field(&gpu, "")["memory_total_bytes"].json()).value_or(0);
}

bool NameMatches(const Json& gpu, const std::string& wanted) {
  const Json& name = Field(&gpu, "")["name"].json();
  return name.is_string() &&
         ToLower(name.get_ref<const std::string&>()).find(wanted) != std::string::npos;
}

std::string Told(const Field& requirement) {
  return absl::StrCat(requirement.path(), ": ", JsonToText(requirement.json()));
}

std::string LackingGpus(const Field& required, const Json& hardware) {
  const std::vector<const Json*> gpus = Gpus(hardware);
  const std::optional<uint64_t> count = AsUnsigned(required["count"].json());
  if (count && gpus.size() < *count) return Told(required["count"]);
  if (const Json& type = required["type"].json(); type.is_string()) {
    const std::string wanted = ToLower(Trim(type.get_ref<const std::string&>()));
    const bool any = wanted.empty() || wanted == "any" || wanted == "auto" || wanted == "*";
    const auto matches = [&](const Json* gpu) { return NameMatches(*gpu, wanted); };
    if (!any && std::none_of(gpus.begin(), gpus.end(), matches)) return Told(required["type"]);
  }
  if (const std::optional<uint64_t> memory = ParseQuantity(required["memory"].json())) {
    const auto large = static_cast<uint64_t>(std::count_if(
        gpus.begin(), gpus.end(), [&](const Json* gpu) { return GpuMemory(*gpu) >= *memory; }));
    if (large < std::max<uint64_t>(count.value_or(1), 1)) return Told(required["memory"]);
  }
  return "";
}

// Greater is better, except for the id.
auto Rank(const Candidate& candidate) {
  uint64_t vram = 0;
  const std::vector<const Json*> gpus = Gpus(candidate.hardware);
  for (const Json* gpu : gpus) vram += GpuMemory(*gpu);
  const Field hardware(&candidate.hardware, "");
  return std::make_tuple(!gpus.empty(), vram,
                         AsUnsigned(hardware["memory"]["total_bytes"].json()).value_or(0),
                         AsUnsigned(hardware["cpu"]["logical_cores"].json()).value_or(0));
}

}  // namespace

std::optional<uint64_t> ParseQuantity(const Json& value) {
  if (!value.is_string()) return AsUnsigned(value);
  const std::string text = ToLower(Trim(value.get_ref<const std::string&>()));
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text.substr(0, digits), &number)) return std::nullopt;
  std::string_view unit = Trim(std::string_view(text).substr(digits));
  if (unit.empty()) return number;
  const size_t power = std::string_view("kmgt").find(unit.front());
  if (power == std::string_view::npos) return std::nullopt;
  unit.remove_prefix(1);
  if (!unit.empty() && unit.front() == 'i') unit.remove_prefix(1);
  if (!unit.empty() && unit != "b") return std::nullopt;
  const int shift = 10 * (static_cast<int>(power) + 1);
  if (number > std::numeric_limits<uint64_t>::max() >> shift) return std::nullopt;
  return number << shift;
}

std::string Lacking(const Json& document, const Json& hardware) {
  const Field required(&Field(&document, "")["spec"]["resources"]["hardware"].json(), "");
  const Field have(&hardware, "");
  if (const auto cores = AsUnsigned(required["cpu"].json())) {
    const auto has = AsUnsigned(have["cpu"]["logical_cores"].json());
    if (has.value_or(0) < *cores) return Told(required["cpu"]);
  }
  if (const auto memory = ParseQuantity(required["memory"].json())) {
    const auto has = AsUnsigned(have["memory"]["total_bytes"].json());
    if (has.value_or(0) < *memory) return Told(required["memory"]);
  }
  return LackingGpus(required["gpu"], hardware);
}

std::optional<size_t> ChooseWorker(const Json& document, const std::vector<Candidate>& candidates,
                                   std::string_view excluded) {
  std::optional<size_t> best;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].id == excluded || !Lacking(document, candidates[i].hardware).empty())
      continue;
    if (!best) {
      best = i;
      continue;
    }
    const auto challenger = Rank(candidates[i]);
    const auto champion = Rank(candidates[*best]);
    if (challenger > champion ||
        (challenger == champion && candidates[i].id < candidates[*best].id)) {
      best = i;
    }
  }
  return best;
}

}  // namespace flowmesh::orchestrator
