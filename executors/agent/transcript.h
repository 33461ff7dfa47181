// What one run of an agent did: short lines for people, and every message in a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "executors/agent/chat_model.h"

namespace flowmesh::agent {

// One thread at a time. Whatever goes in, `secrets` do not come out.
class Transcript {
 public:
  using OnLine = std::function<void(const std::string& line)>;

  // `file` gets a JSON object for each message, one a line, as they are said. `on_line` may be
  // null.
  Transcript(std::filesystem::path file, std::vector<std::string> secrets, OnLine on_line)
      : file_(std::move(file)), secrets_(std::move(secrets)), on_line_(std::move(on_line)) {}

  void Line(const std::string& text);
  // `agent`: which of a team said or was told this; empty where there is one only.
  void Message(const std::string& agent, const chat::Message& message);
  void Count(const ChatUsage& usage);  // of one reply

  std::string WithoutSecrets(const std::string& text) const;

  const std::vector<std::string>& lines() const { return lines_; }
  const ChatUsage& usage() const { return usage_; }
  int64_t replies() const { return replies_; }
  // The first failure to write the file.
  const absl::Status& status() const { return status_; }

 private:
  const std::filesystem::path file_;
  const std::vector<std::string> secrets_;
  const OnLine on_line_;
  std::vector<std::string> lines_;
  ChatUsage usage_;
  int64_t replies_ = 0;
  absl::Status status_;
};

}  // namespace flowmesh::agent
