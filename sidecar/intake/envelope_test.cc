#include "sidecar/intake/envelope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::HasSubstr;

constexpr size_t kLimit = 1 << 20;

Json Message(const std::string& worker = "w") {
  return {{"task_id", "t1"},
          {"task", {{"apiVersion", "flowmesh/v1"}, {"spec", {{"taskType", "echo"}}}}},
          {"assigned_worker", worker},
          {"dispatched_at", "2025-11-03T09:01:00.000001+00:00"}};
}

Intake Read(const std::string& text) { return EnvelopeReader({"w", "w.b"}, kLimit).Read(text); }
Intake Read(const Json& message) { return Read(DumpJson(message)); }

std::string BadReason(const Intake& intake) {
  const auto* bad = std::get_if<BadMessage>(&intake);
  return bad == nullptr ? "" : bad->reason;
}

TEST(EnvelopeTest, ReadsWhatIsAddressedToUs) {
  Json message = Message("w.b");
  message["merged_children"] = {{{"task_id", "c"}, {"spec", {{"taskType", "echo"}}}}};
  const Intake intake = Read(message);
  const auto& envelope = std::get<Envelope>(intake);
  EXPECT_TRUE(envelope.problem.ok());
  EXPECT_EQ(envelope.task_id, "t1");
  EXPECT_EQ(envelope.worker_id, "w.b");
  EXPECT_EQ(envelope.task_type, "echo");
  EXPECT_EQ(envelope.dispatched_at, "2025-11-03T09:01:00.000001+00:00");
  const Json& document = *envelope.document;
  EXPECT_EQ(document["task_id"], "t1");
  EXPECT_EQ(document["merge_children"], message["merged_children"]);
  EXPECT_EQ(document["apiVersion"], "flowmesh/v1");
}

TEST(EnvelopeTest, KeepsATaskIdOfTheDocumentAndTakesAnIntegerId) {
  Json message = Message();
  message["task"]["task_id"] = "inner";
  message["task_id"] = 42;
  const Intake intake = Read(message);
  EXPECT_EQ(std::get<Envelope>(intake).task_id, "42");
  EXPECT_EQ((*std::get<Envelope>(intake).document)["task_id"], "inner");
}

TEST(EnvelopeTest, LeavesForeignMessagesAlone) {
  EXPECT_TRUE(std::holds_alternative<ForeignMessage>(Read(Message("x"))));
  EXPECT_TRUE(std::holds_alternative<ForeignMessage>(Read(Message("W"))));
  Json number = Message();
  number["assigned_worker"] = 7;
  EXPECT_TRUE(std::holds_alternative<ForeignMessage>(Read(number)));
  // Not even parsed when no id of ours occurs in it.
  EXPECT_TRUE(std::holds_alternative<ForeignMessage>(Read(std::string("{"))));
  // An escaped id is the same id.
  const std::string escaped = R"({"assigned_worker":"\u0077","task_id":"t","task":{"spec":{}}})";
  EXPECT_EQ(std::get<Envelope>(Read(escaped)).worker_id, "w");
}

TEST(EnvelopeTest, NamesWhatIsBad) {
  EXPECT_EQ(BadReason(Read(std::string("\"w\" not json"))), "not_json");
  EXPECT_EQ(BadReason(Read(std::string("[\"w\", \"\xff\"]"))), "not_utf8");
  EXPECT_EQ(BadReason(Read(std::string("[\"w\"]"))), "not_a_map");
  EXPECT_EQ(BadReason(Read("[\"w\"," + std::string(100000, '['))), "not_json");
  Json message = Message();
  message.erase("task_id");
  EXPECT_EQ(BadReason(Read(message)), "no_task_id");
  message["task_id"] = "";
  EXPECT_EQ(BadReason(Read(message)), "no_task_id");
}

TEST(EnvelopeTest, AnUnusableTaskIsStillAnEnvelope) {
  struct Case {
    std::string key;
    Json value;
    std::string problem;
  };
  for (const Case& c : std::vector<Case>{
           {"task", "text", "task: expected a map, got \"text\""},
           {"task", nullptr, "task: expected a map, got nothing"},
           {"task", {{"spec", 3}}, "spec: expected a map, got 3"},
           {"task", Json::object(), "spec: required"},
           {"task_id", "../x", "task_id: expected a plain file name"},
           {"task_id", "..", "task_id: expected a plain file name"},
           {"task_id", std::string(201, 'a'), "task_id: expected a plain file name"},
       }) {
    Json message = Message();
    message[c.key] = c.value;
    const Intake intake = Read(message);
    ASSERT_TRUE(std::holds_alternative<Envelope>(intake)) << DumpJson(message);
    EXPECT_THAT(std::string(std::get<Envelope>(intake).problem.message()), HasSubstr(c.problem));
    EXPECT_NE(std::get<Envelope>(intake).document, nullptr);
  }
}

TEST(EnvelopeTest, ANonTextTaskTypeIsNoTaskType) {
  Json message = Message();
  message["task"]["spec"]["taskType"] = {1};
  const Intake intake = Read(message);
  EXPECT_FALSE(std::get<Envelope>(intake).task_type);
  EXPECT_TRUE(std::get<Envelope>(intake).problem.ok());
}

TEST(EnvelopeTest, AnOversizedMessageOfOursIsAnswered) {
  Json message = Message();
  message["task"]["spec"]["data"] = std::string(kLimit, 'x');
  const Intake intake = Read(message);
  const auto& envelope = std::get<Envelope>(intake);
  EXPECT_EQ(envelope.task_id, "t1");
  EXPECT_TRUE(absl::IsResourceExhausted(envelope.problem));
  EXPECT_THAT(std::string(envelope.problem.message()), HasSubstr("MAX_MESSAGE_BYTES"));

  message["assigned_worker"] = "x";
  EXPECT_TRUE(std::holds_alternative<ForeignMessage>(Read(message)));
  EXPECT_EQ(BadReason(Read(std::string(kLimit + 1, 'x'))), "too_large");
}

}  // namespace
}  // namespace flowmesh::sidecar
