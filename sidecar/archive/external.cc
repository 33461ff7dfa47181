#include "sidecar/archive/external.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sidecar/archive/folder_walk.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

constexpr size_t kPipeRead = 64 << 10;
constexpr int kLookAroundMs = 100;

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

absl::Status ExitError(const std::string& program, Subprocess& process) {
  const std::optional<ExitStatus> status = process.Wait(absl::InfiniteDuration());
  if (status->ok()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(program, ": ", status->ToString()));
}

// The names of what belongs into the archive, each ended by a zero byte, in a file without a name.
absl::StatusOr<UniqueFd> WriteNames(const fs::path& folder, std::vector<std::string>& skipped) {
  const fs::path parent = folder.parent_path();
  UniqueFd fd(::open(parent.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoError("cannot create a file in", parent);
  std::string names;
  const auto flush = [&]() -> absl::Status {
    for (std::string_view left = names; !left.empty();) {
      const ssize_t n = ::write(fd.get(), left.data(), left.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError("cannot write to a file in", parent);
      left.remove_prefix(static_cast<size_t>(n));
    }
    names.clear();
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(WalkFolder(
      folder,
      [&](const FolderEntry& entry) {
        names.append(entry.name).push_back('\0');
        return names.size() < kPipeRead ? absl::OkStatus() : flush();
      },
      skipped));
  RETURN_IF_ERROR(flush());
  if (::lseek(fd.get(), 0, SEEK_SET) != 0) return ErrnoError("cannot rewind a file in", parent);
  return fd;
}

// One read, handed to the sink. False at the end.
absl::StatusOr<bool> Pump(int fd, const ByteSink& sink) {
  std::string buffer(kPipeRead, '\0');
  const ssize_t n = ::read(fd, buffer.data(), buffer.size());
  if (n < 0 && WouldBlock()) return true;
  if (n < 0) return ErrnoError("cannot read", "a pipe");
  if (n == 0) return false;
  RETURN_IF_ERROR(sink(std::string_view(buffer).substr(0, static_cast<size_t>(n))));
  return true;
}

}  // namespace

absl::Status RunTar(const std::string& program, const fs::path& folder, const ByteSink& sink,
                    const std::function<bool()>& is_cancelled, std::vector<std::string>& skipped) {
  ASSIGN_OR_RETURN(const UniqueFd names, WriteNames(folder, skipped));
  ASSIGN_OR_RETURN(Pipe output, MakePipe());
  RETURN_IF_ERROR(SetNonBlocking(output.read));
  ASSIGN_OR_RETURN(
      Subprocess tar,
      Subprocess::Start({.argv = {program, "-C", folder.parent_path().string(), "--no-recursion",
                                  "--null", "-c", "-f", "-", "-T", "-"},
                         .stdin_fd = names.get(),
                         .stdout_fd = output.write.get()}));
  output.write.Reset();
  bool more = true;
  while (more) {
    if (is_cancelled && is_cancelled()) return absl::CancelledError("cancelled");
    pollfd wait{output.read.get(), POLLIN, 0};
    if (::poll(&wait, 1, kLookAroundMs) <= 0) continue;
    ASSIGN_OR_RETURN(more, Pump(output.read.get(), sink));
  }
  return ExitError(program, tar);
}

absl::StatusOr<Filter> Filter::Start(const std::vector<std::string>& argv, ByteSink sink,
                                     std::function<bool()> is_cancelled) {
  // A socket and no pipe: writing to one whose reader is gone can be told not to raise SIGPIPE.
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoError("cannot make", "a socket pair");
  }
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  ASSIGN_OR_RETURN(Pipe output, MakePipe());
  RETURN_IF_ERROR(SetNonBlocking(output.read));
  ASSIGN_OR_RETURN(
      Subprocess process,
      Subprocess::Start({.argv = argv, .stdin_fd = theirs.get(), .stdout_fd = output.write.get()}));
  return Filter(argv[0], std::move(process), std::move(ours), std::move(output.read),
                std::move(sink), std::move(is_cancelled));
}

Filter::Filter(std::string program, Subprocess process, UniqueFd input, UniqueFd output,
               ByteSink sink, std::function<bool()> is_cancelled)
    : program_(std::move(program)),
      process_(std::move(process)),
      input_(std::move(input)),
      output_(std::move(output)),
      sink_(std::move(sink)),
      is_cancelled_(std::move(is_cancelled)) {}

absl::Status Filter::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    if (is_cancelled_ && is_cancelled_()) return absl::CancelledError("cancelled");
    pollfd waits[] = {{input_.get(), POLLOUT, 0}, {output_ended_ ? -1 : output_.get(), POLLIN, 0}};
    if (::poll(waits, 2, kLookAroundMs) <= 0) continue;
    if (waits[1].revents != 0) {
      ASSIGN_OR_RETURN(const bool more, Pump(output_.get(), sink_));
      output_ended_ = !more;
    }
    if (waits[0].revents == 0) continue;
    const ssize_t n = ::send(input_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && !WouldBlock()) {
      RETURN_IF_ERROR(ExitError(program_, process_));
      return absl::UnavailableError(absl::StrCat(program_, ": ended before its input did"));
    }
    if (n > 0) bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status Filter::Finish() {
  input_.Reset();
  while (!output_ended_) {
    if (is_cancelled_ && is_cancelled_()) return absl::CancelledError("cancelled");
    pollfd wait{output_.get(), POLLIN, 0};
    if (::poll(&wait, 1, kLookAroundMs) <= 0) continue;
    ASSIGN_OR_RETURN(const bool more, Pump(output_.get(), sink_));
    output_ended_ = !more;
  }
  return ExitError(program_, process_);
}

}  // namespace flowmesh::sidecar
