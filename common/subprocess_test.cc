#include "common/subprocess.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace flowmesh {
namespace {

using ::testing::StartsWith;

constexpr absl::Duration kSoon = absl::Seconds(10);

// A pipe; what a child wrote into it is read to the end.
class Pipe {
 public:
  Pipe() {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    read_ = UniqueFd(fds[0]);
    write_ = UniqueFd(fds[1]);
  }

  int write_fd() const { return write_.get(); }

  // Up to the first line's end, which stays out.
  std::string ReadLine() {
    std::string line;
    char c = 0;
    while (::read(read_.get(), &c, 1) == 1 && c != '\n') line += c;
    return line;
  }

  // Until every writer is gone; our own end is closed first.
  std::string ReadAll() {
    write_.Reset();
    std::string text;
    char buffer[4096];
    ssize_t n = 0;
    while ((n = ::read(read_.get(), buffer, sizeof(buffer))) > 0) text.append(buffer, n);
    return text;
  }

 private:
  UniqueFd read_, write_;
};

SubprocessOptions Shell(const std::string& script) { return {.argv = {"sh", "-c", script}}; }

// What a script prints.
std::string Output(SubprocessOptions options) {
  Pipe pipe;
  options.stdout_fd = pipe.write_fd();
  Subprocess process = Subprocess::Start(options).value();
  std::string text = pipe.ReadAll();
  const std::optional<ExitStatus> status = process.Wait(kSoon);
  EXPECT_TRUE(status && status->ok());
  return text;
}

ExitStatus EndOf(const std::string& script) {
  Subprocess process = Subprocess::Start(Shell(script)).value();
  const std::optional<ExitStatus> status = process.Wait(kSoon);
  EXPECT_TRUE(status);
  return status.value_or(ExitStatus{.exit_code = -1});
}

bool IsAlive(pid_t pid) { return ::kill(pid, 0) == 0; }

TEST(SubprocessTest, TellsHowAProcessEnded) {
  const ExitStatus good = EndOf("exit 0");
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(good.ToString(), "exit code 0");
  const ExitStatus bad = EndOf("exit 3");
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.exit_code, 3);
  EXPECT_EQ(bad.ToString(), "exit code 3");
  const ExitStatus killed = EndOf("kill -9 $$");
  EXPECT_FALSE(killed.ok());
  EXPECT_EQ(killed.signal, SIGKILL);
  EXPECT_EQ(killed.ToString(), "signal 9 (Killed)");
}

TEST(SubprocessTest, AProgramThatDoesNotExistIsNamed) {
  for (const char* name : {"no-such-program-here", "/no/such/program"}) {
    const absl::Status status = Subprocess::Start({.argv = {name}}).status();
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_THAT(Message(status), StartsWith(absl::StrCat("cannot start ", name)));
  }
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "plain", "text").ok());
  EXPECT_TRUE(
      absl::IsPermissionDenied(Subprocess::Start({.argv = {(temp / "plain").string()}}).status()));
}

TEST(SubprocessTest, ArgumentsPassUntouched) {
  EXPECT_EQ(Output({.argv = {"printf", "%s|", "a b", "", "$HOME", "ü\n"}}), "a b||$HOME|ü\n|");
}

TEST(SubprocessTest, TheEnvironmentIsAddedToOrReplaced) {
  ::setenv("FLOWMESH_SUBPROCESS_TEST", "ours", 1);
  SubprocessOptions options = Shell("echo $FLOWMESH_SUBPROCESS_TEST,$ADDED,${PATH:+path}");
  options.env = {{"ADDED", "a=b c"}};
  EXPECT_EQ(Output(options), "ours,a=b c,path\n");
  options.env["FLOWMESH_SUBPROCESS_TEST"] = "theirs";
  EXPECT_EQ(Output(options), "theirs,a=b c,path\n");
  SubprocessOptions clear{.argv = {"env"}, .env = {{"ONLY", "this"}}, .clear_env = true};
  EXPECT_EQ(Output(clear), "ONLY=this\n");
}

TEST(SubprocessTest, TheWorkingDirectory) {
  TempDir temp;
  SubprocessOptions options = Shell("pwd -P");
  options.working_directory = temp.path();
  EXPECT_EQ(Output(options), std::filesystem::canonical(temp.path()).string() + "\n");
  options.working_directory = temp / "none";
  EXPECT_FALSE(Subprocess::Start(options).ok());
}

TEST(SubprocessTest, StandardInputIsNothingUnlessGiven) {
  EXPECT_EQ(Output({.argv = {"cat"}}), "");
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "in", "from a file").ok());
  const UniqueFd in(::open((temp / "in").c_str(), O_RDONLY | O_CLOEXEC));
  SubprocessOptions options{.argv = {"cat"}};
  options.stdin_fd = in.get();
  EXPECT_EQ(Output(options), "from a file");
}

TEST(SubprocessTest, OnlyTheGivenDescriptorsAreInherited) {
  Pipe extra;
  const UniqueFd ours(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int theirs = ours.get() == 7 ? 8 : 7;
  SubprocessOptions options =
      Shell(absl::StrCat("exec >&", theirs, "; echo given; if [ -e /proc/self/fd/", ours.get(),
                         " ]; then echo leaked; fi"));
  options.inherited_fds = {{extra.write_fd(), theirs}};
  Subprocess process = Subprocess::Start(options).value();
  EXPECT_EQ(extra.ReadAll(), "given\n");
  EXPECT_TRUE(process.Wait(kSoon));
}

TEST(SubprocessTest, OtherDescriptorsAreClosedWhereAsked) {
  Pipe given;
  const UniqueFd leaked(::open("/dev/null", O_RDONLY));  // not close-on-exec
  SubprocessOptions options = Shell("ls /proc/self/fd");
  options.inherited_fds = {{given.write_fd(), 5}};
  EXPECT_NE(Output(options).find(absl::StrCat("\n", leaked.get(), "\n")), std::string::npos);
  options.closes_other_fds = true;
  // What stands below the given one stays.
  const std::string open = Output(options);
  EXPECT_EQ(open.find("\n6\n"), std::string::npos) << open;
  options.inherited_fds.clear();
  EXPECT_EQ(Output(options), "0\n1\n2\n3\n");
}

TEST(SubprocessTest, ErrorsGoWhereTheyAreSent) {
  Pipe pipe;
  SubprocessOptions options = Shell("echo complaint >&2");
  options.stderr_fd = pipe.write_fd();
  Subprocess process = Subprocess::Start(options).value();
  EXPECT_EQ(pipe.ReadAll(), "complaint\n");
}

TEST(SubprocessTest, WaitingIsBounded) {
  Subprocess process = Subprocess::Start(Shell("exec sleep 1000")).value();
  EXPECT_GT(process.pid(), 0);
  EXPECT_EQ(process.Poll(), std::nullopt);
  EXPECT_EQ(process.Wait(absl::Milliseconds(20)), std::nullopt);
  process.Signal(SIGINT);
  const std::optional<ExitStatus> status = process.Wait(kSoon);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->signal, SIGINT);
  EXPECT_EQ(process.Poll()->signal, SIGINT);  // and stays so
}

TEST(SubprocessTest, TerminateAsksFirst) {
  Pipe pipe;
  SubprocessOptions options = Shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
  options.stdout_fd = pipe.write_fd();
  Subprocess process = Subprocess::Start(options).value();
  ASSERT_EQ(pipe.ReadLine(), "ready");
  EXPECT_EQ(process.Terminate(kSoon).exit_code, 5);
}

TEST(SubprocessTest, TerminateKillsWhoeverDoesNotListen) {
  Pipe pipe;
  SubprocessOptions options = Shell("trap '' TERM; echo ready; while :; do sleep 1; done");
  options.stdout_fd = pipe.write_fd();
  Subprocess process = Subprocess::Start(options).value();
  ASSERT_EQ(pipe.ReadLine(), "ready");
  EXPECT_EQ(process.Terminate(absl::Milliseconds(50)).signal, SIGKILL);
}

TEST(SubprocessTest, TheWholeGroupEnds) {
  Pipe pipe;
  pid_t grandchild = 0;
  {
    SubprocessOptions options = Shell("sleep 1000 & echo $!; exec sleep 1000");
    options.stdout_fd = pipe.write_fd();
    const Subprocess process = Subprocess::Start(options).value();
    ASSERT_TRUE(absl::SimpleAtoi(pipe.ReadLine(), &grandchild));
    EXPECT_TRUE(IsAlive(grandchild));
  }
  // Both held the pipe: its end is theirs.
  EXPECT_EQ(pipe.ReadAll(), "");
}

TEST(SubprocessTest, AGrandchildThatOutlivesItsParentEndsToo) {
  Pipe pipe;
  SubprocessOptions options = Shell("sleep 1000 & echo ready");
  options.stdout_fd = pipe.write_fd();
  Subprocess process = Subprocess::Start(options).value();
  ASSERT_EQ(pipe.ReadLine(), "ready");
  ASSERT_TRUE(process.Wait(kSoon));
  EXPECT_TRUE(process.Terminate(absl::ZeroDuration()).ok());
  EXPECT_EQ(pipe.ReadAll(), "");
}

TEST(SubprocessTest, AChildHasTheUsualSignals) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &blocked, &before), 0);
  const auto handler = ::signal(SIGPIPE, SIG_IGN);
  Subprocess process = Subprocess::Start(Shell("kill -TERM $$; exit 7")).value();
  EXPECT_EQ(process.Wait(kSoon)->signal, SIGTERM);
  Subprocess piped = Subprocess::Start(Shell("kill -PIPE $$; exit 7")).value();
  EXPECT_EQ(piped.Wait(kSoon)->signal, SIGPIPE);
  ::signal(SIGPIPE, handler);
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
}

TEST(SubprocessTest, OwnershipMoves) {
  Subprocess first = Subprocess::Start(Shell("exec sleep 1000")).value();
  const pid_t pid = first.pid();
  Subprocess second(std::move(first));
  EXPECT_EQ(second.pid(), pid);
  first = Subprocess::Start(Shell("exec sleep 1000")).value();
  const pid_t other = first.pid();
  EXPECT_TRUE(IsAlive(other));
  first = std::move(second);
  EXPECT_FALSE(IsAlive(other)) << "what is assigned to ends what it had";
  EXPECT_TRUE(IsAlive(pid));
}

}  // namespace
}  // namespace flowmesh
