#include "clients/orchestrator/workers.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace flowmesh::orchestrator {
namespace {

constexpr char kIds[] = "workers:ids";
constexpr char kElasticDisabled[] = "workers:elastic_disabled";

std::string HashKey(const std::string& id) { return absl::StrCat("worker:", id); }
std::string BeatKey(const std::string& id) { return absl::StrCat("worker:", id, ":hb"); }

// Text of a hash field as JSON; `fallback` unless it parses to the same type.
Json ParseOr(const std::string& text, Json fallback) {
  absl::StatusOr<Json> value = ParseJson(text);
  return value.ok() && value->type() == fallback.type() ? *std::move(value) : fallback;
}

Json TextOrNull(const std::string& text) { return text.empty() ? Json() : Json(text); }

std::vector<std::string> Members(const redis::Reply& reply) {
  std::vector<std::string> members;
  for (const redis::Reply& element : reply.elements) members.push_back(element.text);
  std::sort(members.begin(), members.end());
  return members;
}

// Field and value pairs of a flat list.
std::map<std::string, std::string> Fields(const redis::Reply& reply) {
  std::map<std::string, std::string> fields;
  for (size_t i = 0; i + 1 < reply.elements.size(); i += 2) {
    fields[reply.elements[i].text] = reply.elements[i + 1].text;
  }
  return fields;
}

}  // namespace

std::string WorkerEntry::Field(const std::string& name) const {
  const auto field = hash.find(name);
  return field == hash.end() ? "" : field->second;
}

Json WorkerEntry::Hardware() const { return ParseOr(Field("hardware_json"), Json::object()); }

absl::Status Workers::LoadElastic() {
  ASSIGN_OR_RETURN(const redis::Reply reply, redis_.Ask({"SMEMBERS", kElasticDisabled}));
  const std::vector<std::string> ids = Members(reply);
  absl::MutexLock lock(&mutex_);
  elastic_disabled_.insert(ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<WorkerEntry>> Workers::Read(const std::vector<std::string>& ids) const {
  std::vector<redis::Command> commands;
  for (const std::string& id : ids) {
    commands.push_back({"HGETALL", HashKey(id)});
    commands.push_back({"TTL", BeatKey(id)});
  }
  ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies,
                   redis::WithoutErrors(redis_.Run(commands)));
  std::vector<WorkerEntry> workers;
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < ids.size(); ++i) {
    WorkerEntry worker{.id = ids[i], .hash = Fields(replies[2 * i])};
    if (worker.hash.empty()) continue;
    worker.stale = replies[2 * i + 1].integer < 0;
    worker.elastic_disabled = elastic_disabled_.contains(ids[i]);
    workers.push_back(std::move(worker));
  }
  return workers;
}

absl::StatusOr<std::vector<WorkerEntry>> Workers::List() const {
  ASSIGN_OR_RETURN(const redis::Reply reply, redis_.Ask({"SMEMBERS", kIds}));
  return Read(Members(reply));
}

absl::StatusOr<std::optional<WorkerEntry>> Workers::Find(const std::string& id) const {
  ASSIGN_OR_RETURN(std::vector<WorkerEntry> found, Read({id}));
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

absl::StatusOr<std::vector<Candidate>> Workers::Candidates() const {
  ASSIGN_OR_RETURN(const std::vector<WorkerEntry> workers, List());
  std::vector<Candidate> candidates;
  for (const WorkerEntry& worker : workers) {
    if (worker.Field("status") != "IDLE" || worker.stale || worker.elastic_disabled) continue;
    candidates.push_back({.id = worker.id, .hardware = worker.Hardware()});
  }
  return candidates;
}

absl::StatusOr<bool> Workers::IsStale(const std::string& id) const {
  ASSIGN_OR_RETURN(const redis::Reply reply, redis_.Ask({"TTL", BeatKey(id)}));
  return reply.integer < 0;
}

absl::Status Workers::SetStatus(const std::string& id, std::string_view status) {
  const std::string now = FormatTimestamp(clock_.Now());
  const Json event = {{"type", "STATUS"}, {"worker_id", id}, {"status", status}, {"ts", now}};
  return redis::TransactionStatus(redis_.Run(
      redis::Transaction({{"HSET", HashKey(id), "status", std::string(status), "last_seen", now},
                          {"PUBLISH", "workers.events", DumpJson(event)}})));
}

absl::Status Workers::SetElastic(const std::string& id, bool enabled) {
  RETURN_IF_ERROR(redis_.Ask({enabled ? "SREM" : "SADD", kElasticDisabled, id}).status());
  absl::MutexLock lock(&mutex_);
  if (enabled) {
    elastic_disabled_.erase(id);
  } else {
    elastic_disabled_.insert(id);
  }
  return absl::OkStatus();
}

void Workers::ForgetElastic(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  elastic_disabled_.erase(id);
}

std::vector<std::string> Workers::ElasticDisabled() const {
  absl::MutexLock lock(&mutex_);
  return {elastic_disabled_.begin(), elastic_disabled_.end()};
}

Json WorkerToJson(const WorkerEntry& worker) {
  const std::string status = worker.Field("status");
  Json pid, cost;
  if (int64_t number = 0; absl::SimpleAtoi(worker.Field("pid"), &number)) pid = number;
  if (double number = 0; absl::SimpleAtod(worker.Field("cost_per_hour"), &number)) cost = number;
  return {
      {"worker_id", worker.id},
      {"status", status.empty() ? "UNKNOWN" : status},
      {"started_at", TextOrNull(worker.Field("started_at"))},
      {"pid", pid},
      {"env", ParseOr(worker.Field("env_json"), Json::object())},
      {"hardware", worker.Hardware()},
      {"tags", ParseOr(worker.Field("tags_json"), Json::array())},
      {"last_seen", TextOrNull(worker.Field("last_seen"))},
      {"cached_models", ParseOr(worker.Field("cache_models_json"), Json::array())},
      {"cached_datasets", ParseOr(worker.Field("cache_datasets_json"), Json::array())},
      {"cache_updated_ts", TextOrNull(worker.Field("cache_updated_ts"))},
      {"cost_per_hour", cost},
      {"stale", worker.stale},
      {"elastic_disabled", worker.elastic_disabled},
  };
}

}  // namespace flowmesh::orchestrator
