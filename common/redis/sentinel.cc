#include "common/redis/sentinel.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace flowmesh::redis {
namespace {

absl::Duration Now() { return Clock::Real().Monotonic(); }

// Sets host and port of `master` to what the sentinel answers.
absl::Status AskForMaster(const Address& sentinel, absl::Duration deadline, Address& master,
                          State& state) {
  ConnectError error;
  const std::unique_ptr<Connection> connection =
      Connection::Open(sentinel, deadline - Now(), error);
  if (connection == nullptr) {
    state = error.state;
    return error.status;
  }
  ASSIGN_OR_RETURN(
      const Reply reply,
      connection->Ask({"SENTINEL", "GET-MASTER-ADDR-BY-NAME", master.master}, deadline));
  if (reply.is_error()) {
    state = StateOfError(reply.text).value_or(State::kLost);
    return absl::UnavailableError(absl::StrCat("SENTINEL: ", reply.text));
  }
  if (reply.kind == Reply::Kind::kNil) {
    return absl::UnavailableError(absl::StrCat("it knows no master ", master.master));
  }
  if (reply.elements.size() != 2 || !absl::SimpleAtoi(reply.elements[1].text, &master.port)) {
    return absl::UnavailableError("its answer names no host and port");
  }
  master.host = reply.elements[0].text;
  return absl::OkStatus();
}

// A sentinel that has not heard of a failover still names the old master.
absl::Status CheckRole(Connection& connection, absl::Duration deadline, State& state) {
  ASSIGN_OR_RETURN(const Reply reply, connection.Ask({"ROLE"}, deadline));
  if (reply.is_error()) {
    state = StateOfError(reply.text).value_or(State::kLost);
    return absl::UnavailableError(absl::StrCat("ROLE: ", reply.text));
  }
  const std::string role = reply.elements.empty() ? "" : reply.elements[0].text;
  if (role == "master") return absl::OkStatus();
  state = State::kReadOnly;
  return absl::UnavailableError(absl::StrCat("it is no master but a ", role));
}

// What `sentinel` names, connected and found to be a master.
std::unique_ptr<Connection> OpenBy(const Address& sentinel, Address master, absl::Duration deadline,
                                   ConnectError& error) {
  error = {};
  error.status = AskForMaster(sentinel, deadline, master, error.state);
  if (!error.status.ok()) {
    error.status = Annotate(error.status, absl::StrCat("sentinel ", sentinel.ToString()));
    return nullptr;
  }
  master.sentinels.clear();
  std::unique_ptr<Connection> connection = Connection::Open(master, deadline - Now(), error);
  if (connection != nullptr) error.status = CheckRole(*connection, deadline, error.state);
  if (error.status.ok()) return connection;
  error.status = Annotate(error.status, absl::StrCat(master.master, " at ", master.ToString()));
  return nullptr;
}

}  // namespace

std::unique_ptr<Connection> OpenMaster(const Address& address, absl::Duration timeout,
                                       ConnectError& error) {
  const absl::Duration deadline = Now() + timeout;
  size_t left = address.sentinels.size();
  for (const Address& sentinel : address.sentinels) {
    const absl::Duration now = Now();
    auto connection = OpenBy(sentinel, address, now + (deadline - now) / left--, error);
    if (connection != nullptr) return connection;
  }
  return nullptr;
}

MasterWatch::MasterWatch(const Address& address, std::function<void()> on_moved)
    : on_moved_(std::move(on_moved)) {
  // `<name> <old host> <old port> <new host> <new port>`.
  const auto hear = [this, name = address.master + " "](std::string_view, std::string_view text) {
    if (text.substr(0, name.size()) == name) on_moved_();
  };
  // A sentinel that cannot be heard is no news: the connection to the master tells of its loss.
  const auto ignore = [](bool, const std::string&) {};
  for (const Address& sentinel : address.sentinels) {
    listeners_.push_back(std::make_unique<Subscriber>(
        sentinel, std::vector<std::string>{"+switch-master"}, SubscriberOptions{}, hear, ignore));
  }
}

}  // namespace flowmesh::redis
