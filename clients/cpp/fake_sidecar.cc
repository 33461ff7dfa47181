#include "clients/cpp/fake_sidecar.h"

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/json.h"

namespace flowmesh::client {
namespace {

constexpr int64_t kBegin = 1762160400;  // of all tasks, Unix seconds

std::vector<v1::TaskEvent> EventsOf(const Json& spec) {
  static const Json kProgress = {{{"stage", "generating"},
                                  {"done", 1},
                                  {"total", 4},
                                  {"unit", "items"},
                                  {"tokens_per_second", 12.5}}};
  std::vector<v1::TaskEvent> events;
  for (const Json& progress : spec.value("progress", kProgress)) {
    v1::TaskEvent& event = events.emplace_back();
    event.set_sequence(events.size() - 1);
    event.mutable_time()->set_seconds(kBegin + 2 * static_cast<int64_t>(events.size()));
    const auto status =
        google::protobuf::util::JsonStringToMessage(DumpJson(progress), event.mutable_progress());
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  return events;
}

}  // namespace

FakeSidecar::FakeSidecar(std::string target) : target_(std::move(target)) {
  if (target_.empty()) target_ = absl::StrCat("unix:", (dir_ / "s.sock").string());
  grpc::ServerBuilder builder;
  builder.AddListeningPort(target_, grpc::InsecureServerCredentials());
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  EXPECT_NE(server_, nullptr);
}

FakeSidecar::~FakeSidecar() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
}

void FakeSidecar::BreakNextWatch() {
  absl::MutexLock lock(&mutex_);
  break_next_ = true;
}

std::vector<uint64_t> FakeSidecar::WatchStarts() {
  absl::MutexLock lock(&mutex_);
  return watch_starts_;
}

std::vector<std::string> FakeSidecar::Documents() {
  absl::MutexLock lock(&mutex_);
  return documents_;
}

void FakeSidecar::SetUptime(double seconds) {
  absl::MutexLock lock(&mutex_);
  uptime_ = seconds;
}

grpc::Status FakeSidecar::SubmitTask(grpc::ServerContext*, const v1::SubmitTaskRequest* request,
                                     v1::SubmitTaskResponse* response) {
  const absl::StatusOr<Json> document = ParseJson(request->document_json());
  if (!document.ok() || !document->is_object() || !document->contains("spec")) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "spec: expected a map, got nothing"};
  }
  const Json& spec = (*document)["spec"];
  absl::MutexLock lock(&mutex_);
  documents_.push_back(request->document_json());
  const std::string id =
      request->task_id().empty() ? absl::StrCat("task-", tasks_.size() + 1) : request->task_id();
  response->set_task_id(id);
  response->set_worker_id("w");
  if (tasks_.contains(id)) {
    response->set_already_known(true);
    return grpc::Status::OK;
  }
  v1::TaskRecord& record = tasks_[id];
  order_.insert(order_.begin(), id);
  events_[id] = EventsOf(spec);
  record.set_task_id(id);
  record.set_worker_id("w");
  record.set_task_type(spec.value("taskType", ""));
  record.set_task_dir("/results/" + id);
  record.set_source("local");
  record.mutable_received_at()->set_seconds(kBegin);
  if (spec.contains("fail")) {
    record.set_state(v1::FAILED);
    record.set_error(spec["fail"].get<std::string>());
  } else if (spec.value("hang", false)) {
    record.set_state(v1::RUNNING);
  } else {
    record.set_state(v1::SUCCEEDED);
    record.set_result_json(
        DumpJson(spec.contains("result") ? spec["result"] : Json{{"ok", true}, {"echo", spec}}));
  }
  return grpc::Status::OK;
}

grpc::Status FakeSidecar::WatchTask(grpc::ServerContext* context,
                                    const v1::WatchTaskRequest* request,
                                    grpc::ServerWriter<v1::TaskUpdate>* writer) {
  bool break_now = false;
  v1::TaskUpdate update;
  std::vector<v1::TaskEvent> events;
  {
    absl::MutexLock lock(&mutex_);
    const auto task = tasks_.find(request->task_id());
    if (task == tasks_.end()) return {grpc::StatusCode::NOT_FOUND, "no such task"};
    watch_starts_.push_back(request->from_sequence());
    std::swap(break_now, break_next_);
    *update.mutable_record() = task->second;
    update.mutable_record()->set_state(v1::RUNNING);
    update.mutable_record()->clear_result_json();
    update.mutable_record()->clear_error();
    events = events_[request->task_id()];
  }
  for (const v1::TaskEvent& event : events) {
    if (event.sequence() < request->from_sequence()) continue;
    *update.mutable_event() = event;
    writer->Write(update);
    update.clear_record();
  }
  if (update.has_record()) writer->Write(update);
  if (break_now) return {grpc::StatusCode::UNAVAILABLE, "connection lost"};
  while (true) {
    absl::MutexLock lock(&mutex_);
    const v1::TaskRecord& record = tasks_[request->task_id()];
    if (record.state() == v1::SUCCEEDED || record.state() == v1::FAILED) {
      v1::TaskUpdate last;
      *last.mutable_record() = record;
      writer->Write(last);
      return grpc::Status::OK;
    }
    if (context->IsCancelled() || stopping_) return grpc::Status::CANCELLED;
    const auto over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return record.state() != v1::RUNNING || stopping_;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&over), absl::Milliseconds(5));
  }
}

grpc::Status FakeSidecar::GetTask(grpc::ServerContext*, const v1::GetTaskRequest* request,
                                  v1::TaskRecord* response) {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(request->task_id());
  if (task == tasks_.end()) return {grpc::StatusCode::NOT_FOUND, "no such task"};
  *response = task->second;
  return grpc::Status::OK;
}

grpc::Status FakeSidecar::ListTasks(grpc::ServerContext*, const v1::ListTasksRequest* request,
                                    v1::ListTasksResponse* response) {
  absl::MutexLock lock(&mutex_);
  for (const std::string& id : order_) {
    if (request->limit() > 0 && response->tasks_size() >= static_cast<int>(request->limit())) break;
    *response->add_tasks() = tasks_[id];
  }
  return grpc::Status::OK;
}

grpc::Status FakeSidecar::CancelTask(grpc::ServerContext*, const v1::CancelTaskRequest* request,
                                     v1::CancelTaskResponse* response) {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(request->task_id());
  if (task == tasks_.end()) return {grpc::StatusCode::NOT_FOUND, "no such task"};
  if (task->second.state() == v1::RUNNING) {
    response->set_was_active(true);
    task->second.set_state(v1::FAILED);
    task->second.set_error("cancelled");
  }
  return grpc::Status::OK;
}

grpc::Status FakeSidecar::GetWorker(grpc::ServerContext*, const v1::GetWorkerRequest*,
                                    v1::GetWorkerResponse* response) {
  response->set_version("0.1");
  response->set_redis("none");
  {
    absl::MutexLock lock(&mutex_);
    response->set_uptime_seconds(uptime_);
  }
  v1::Worker& worker = *response->add_workers();
  worker.set_worker_id("w");
  worker.set_status("IDLE");
  worker.set_executor_target("unix:/e.sock");
  worker.set_executor_connected(true);
  worker.mutable_executor()->add_runnable_task_types("echo");
  worker.set_hardware_json(R"({"cpu":{"logical_cores":2},"memory":{"total_bytes":4294967296}})");
  return grpc::Status::OK;
}

grpc::Status FakeSidecar::Drain(grpc::ServerContext*, const v1::DrainRequest*,
                                v1::DrainResponse* response) {
  response->set_tasks_running(2);
  return grpc::Status::OK;
}

}  // namespace flowmesh::client
