// For tests: a task in a temporary results folder, with what it reports.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/files.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

class TaskTest : public ::testing::Test {
 protected:
  // Of the task `id` with spec_; forgets what an earlier one logged.
  TaskContext Context(const std::string& id = "T1") {
    TaskContext context;
    context.task_id = id;
    context.document = {{"task_id", id}, {"spec", spec_}};
    context.task_dir = dir_ / id;
    context.results_dir = dir_.path();
    context.on_progress = [this](const Progress& progress) { progress_.push_back(progress); };
    context.on_log = [this](LogLevel, const std::string& text) { log_.push_back(text); };
    context.is_stopped = [this] { return stopped_; };
    context.on_failure_record = [this](Json record) { failure_ = std::move(record); };
    log_.clear();
    return context;
  }

  TempDir dir_;  // the results folder
  Json spec_;
  std::vector<Progress> progress_;
  std::vector<std::string> log_;
  Json failure_;
  bool stopped_ = false;
};

}  // namespace flowmesh::tasks
