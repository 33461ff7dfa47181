// Files, documents, and the sandbox of Bash and Python.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "executors/agent/tools/catalogue.h"
#include "executors/agent/tools/sandbox.h"
#include "executors/agent/tools/toolbox.h"
#include "executors/retrieval/test_pdf.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class LocalToolsTest : public ::testing::Test {
 protected:
  LocalToolsTest() {
    fs::create_directories(dir_ / "work");
    std::ofstream(dir_ / "secret.txt") << "secret";
  }
  void Add(const std::string& name, const Json& options = Json::object()) {
    const auto tools =
        MakeTools({.name = name, .options = options, .path = "tools[0]"},
                  {.env = [](std::string_view) { return std::nullopt; },
                   .warn = [this](const std::string& text) { warnings_.push_back(text); }});
    ASSERT_TRUE(tools.ok()) << tools.status();
    for (const auto& tool : *tools) ASSERT_TRUE(box_.Add(tool).ok());
  }
  std::string Call(const std::string& name, const Json& arguments) {
    return box_.Call({.name = name, .arguments = DumpJson(arguments)}, context_)->text;
  }
  std::string Bash(const std::string& script) { return Call("bash", {{"script", script}}); }

  TempDir dir_;
  ToolContext context_{.workspace = dir_ / "work"};
  Toolbox box_{100000};
  std::vector<std::string> warnings_;
};

TEST_F(LocalToolsTest, FilesAreWrittenReadAndChanged) {
  Add("files");
  EXPECT_EQ(Call("list_files", Json::object()), "there are no files");
  EXPECT_EQ(Call("write_file", {{"path", "a/b.txt"}, {"content", "one two two"}}),
            "wrote 11 bytes to a/b.txt");
  EXPECT_EQ(Call("list_files", Json::object()), "a/\na/b.txt (11 bytes)\n");
  const auto edit = [&](const std::string& from, const std::string& to) {
    return Call("edit_file", {{"path", "a/b.txt"}, {"old_text", from}, {"new_text", to}});
  };
  EXPECT_EQ(edit("one", "1"), "changed a/b.txt");
  EXPECT_THAT(edit("two", "2"), StartsWith("error: old_text: stands in the file more than once"));
  EXPECT_THAT(edit("three", "3"), StartsWith("error: old_text: not found"));
  EXPECT_THAT(edit("", "3"), StartsWith("error: old_text: not found"));
  EXPECT_EQ(Call("read_file", {{"path", "a/b.txt"}}), "1 two two");
  EXPECT_EQ(Call("read_file", {{"path", "a/b.txt"}, {"start", 6}}), "two\n[bytes 6 to 9 of 9]");
  EXPECT_EQ(Call("read_file", {{"path", "a/b.txt"}, {"start", 1e300}}), "\n[bytes 9 to 9 of 9]");
}

TEST_F(LocalToolsTest, FilesElsewhereAreOutOfReach) {
  Add("files");
  fs::create_symlink(dir_ / "secret.txt", dir_ / "work/link");
  for (const std::string path : {"../secret.txt", "/etc/passwd", "link"}) {
    EXPECT_THAT(Call("read_file", {{"path", path}}),
                AllOf(StartsWith("error: "), Not(HasSubstr("secret\n"))))
        << path;
    EXPECT_THAT(Call("edit_file", {{"path", path}, {"old_text", "secret"}, {"new_text", "x"}}),
                StartsWith("error: "));
  }
  EXPECT_THAT(Call("write_file", {{"path", "../new.txt"}, {"content", "x"}}),
              StartsWith("error: ../new.txt: expected a path inside the folder"));
  EXPECT_EQ(ReadFile(dir_ / "secret.txt").value(), "secret");
}

TEST_F(LocalToolsTest, DocumentsAreReadOnly) {
  fs::create_directories(dir_ / "docs");
  std::ofstream(dir_ / "docs/a.md") << "# A";
  std::ofstream(dir_ / "docs/b.html") << "<title>B</title><p>text";
  Add("documents", {{"folder", (dir_ / "docs").string()}});
  EXPECT_EQ(box_.specs().size(), 2u);
  EXPECT_EQ(Call("list_documents", Json::object()), "a.md (3 bytes)\nb.html (23 bytes)\n");
  EXPECT_EQ(Call("read_document", {{"path", "a.md"}}), "# A");
  EXPECT_EQ(Call("read_document", {{"path", "b.html"}}), "B\n\ntext");
  EXPECT_THAT(Call("read_document", {{"path", "../secret.txt"}}), StartsWith("error: "));
  std::ofstream(dir_ / "docs/c.PDF") << retrieval::TestPdf("printed words");
  EXPECT_EQ(Call("read_document", {{"path", "c.PDF"}}), "printed words");
  EXPECT_EQ(Call("read_document", {{"path", "c.PDF"}, {"start", 8}}),
            "words\n[bytes 8 to 13 of 13]");
  std::ofstream(dir_ / "docs/d.pdf") << "this is no PDF";
  EXPECT_EQ(Call("read_document", {{"path", "d.pdf"}}),
            "error: d.pdf: expected a PDF, got something else");
  std::ofstream(dir_ / "docs/e.csv") << "a,b\n";
  EXPECT_EQ(Call("read_document", {{"path", "e.csv"}}), "a,b\n");
  std::ofstream(dir_ / "docs/f.txt") << "\xff";
  EXPECT_EQ(Call("read_document", {{"path", "f.txt"}}), "error: f.txt: expected text in UTF-8");
}

// The sandbox's own tests. Where the kernel does not let bubblewrap work, the tools are off, and
// that is what is tested.
class SandboxTest : public LocalToolsTest {
 protected:
  void SetUp() override {
    const absl::Status works = CheckBubblewrap();
    if (works.ok()) return;
    Add("bash");
    EXPECT_THAT(box_.specs(), IsEmpty());
    EXPECT_THAT(warnings_.at(0), HasSubstr("the tool bash is off"));
    GTEST_SKIP() << works;
  }
};

TEST_F(SandboxTest, ProgramsWorkInTheFolder) {
  Add("bash");
  Add("python");
  EXPECT_EQ(Bash("echo hello > x.txt; pwd; ls; exit 3"),
            absl::StrCat((dir_ / "work").string(), "\nx.txt\n[exit code 3]\n"));
  EXPECT_EQ(ReadFile(dir_ / "work/x.txt").value(), "hello\n");
  EXPECT_EQ(
      Call("python", {{"code", "import json\nprint(json.dumps([6 * 7]), open('x.txt').read())"}}),
      "[42] hello\n\n");
  EXPECT_EQ(Bash("true"), "[no output]\n");
  EXPECT_THAT(Bash("kill -9 $$"), HasSubstr("[exit code 137]"));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(SandboxTest, TheMachineIsNotThere) {
  ::setenv("FLOWMESH_TEST_CANARY", "canary-in-the-environment", 1);
  Add("bash");
  const std::string seen = Bash(
      absl::StrCat("cat ", (dir_ / "secret.txt").string(), "; ls ", dir_.path().string(),
                   "; cat /etc/passwd /etc/shadow; ls /root /home; env; cat /proc/*/environ; "
                   "touch /usr/x /x; echo $(ls /proc | grep -c '^[0-9]*$') processes; "
                   "cat /proc/net/dev | wc -l; unshare -U true; mount -t tmpfs t /mnt; id -u"));
  ::unsetenv("FLOWMESH_TEST_CANARY");
  EXPECT_THAT(seen, AllOf(Not(HasSubstr("secret\n")), Not(HasSubstr("root:")),
                          Not(HasSubstr("canary")), HasSubstr("1000\n")));
  EXPECT_FALSE(fs::exists("/usr/x"));
  EXPECT_EQ(Bash("touch /usr/x || echo refused"),
            "touch: cannot touch '/usr/x': Read-only file system\nrefused\n");
  for (const std::string path : {"/x", "/dev/x"}) {
    EXPECT_THAT(Bash("touch " + path), HasSubstr("Read-only file system"));
  }
  EXPECT_EQ(Bash("echo x > /tmp/x && echo y > /dev/shm/y && cat /tmp/x /dev/shm/y"), "x\ny\n");
  EXPECT_THAT(Bash("head -c 100M /dev/zero > /tmp/x"), HasSubstr("No space left"));
  EXPECT_EQ(Bash("unshare -U true && echo out || true").find("out"), std::string::npos);
  // Loopback of its own, and nothing else: two lines of heading and one.
  EXPECT_EQ(Bash("wc -l < /proc/net/dev"), "3\n");
  EXPECT_THAT(Bash("exec 3<>/dev/tcp/1.1.1.1/80 && echo connected"), Not(HasSubstr("connected\n")));
}

// A connection of the worker's would be a way out.
TEST_F(SandboxTest, OpenFilesOfTheWorkerAreNotInherited) {
  const UniqueFd leaked(::open((dir_ / "secret.txt").c_str(), O_RDONLY));  // not close-on-exec
  Add("bash");
  EXPECT_THAT(Bash(absl::StrCat("cat <&", leaked.get())), HasSubstr("Bad file descriptor"));
}

TEST_F(SandboxTest, WhatNeverEndsIsEnded) {
  Add("bash", {{"timeout_sec", 0.5}});
  const absl::Duration begin = Clock::Real().Monotonic();
  EXPECT_EQ(Bash("echo begun; sleep 100 & sleep 100"), "begun\n[ended: not over within 500ms]\n");
  EXPECT_EQ(Bash("exec >/dev/null 2>&1; sleep 100"), "[ended: not over within 500ms]\n");
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(5));
}

TEST_F(SandboxTest, WhatStaysInTheBackgroundEndsToo) {
  Add("bash");
  const absl::Duration begin = Clock::Real().Monotonic();
  EXPECT_EQ(Bash("(sleep 1; touch late.txt) & echo over"), "over\n");
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Milliseconds(900));
}

TEST_F(SandboxTest, AFloodIsCutAndEnded) {
  Add("bash");
  const std::string answer = Bash("yes flood");
  EXPECT_THAT(answer, AllOf(StartsWith("flood\nflood\n"),
                            HasSubstr("[ended: it wrote more than 16777216 bytes]\n"),
                            HasSubstr("bytes are left out]\n")));
  EXPECT_LT(answer.size(), 31000u);
  EXPECT_THAT(Bash("head -c 40000 /dev/zero | tr '\\0' x"),
              HasSubstr("\n[output cut: 10000 of 40000 bytes are left out]\n"));
  EXPECT_EQ(Bash("printf '\\xff'"), "\xEF\xBF\xBD\n");
}

TEST_F(SandboxTest, MemoryAndProcessesAreBounded) {
  Add("bash", {{"timeout_sec", 3}, {"memory_mb", 200}});
  Add("python", {{"memory_mb", 200}});
  EXPECT_THAT(Call("python", {{"code", "x = 'x' * (1 << 29)\nprint(len(x))"}}),
              AllOf(HasSubstr("MemoryError"), HasSubstr("[exit code 1]")));
  if (::geteuid() == 0) return;  // whose processes the kernel does not count
  EXPECT_THAT(Bash("for i in $(seq 100); do sleep 20 & done 2>&1; echo begun"),
              HasSubstr("Resource temporarily unavailable"));
}

TEST_F(SandboxTest, ACancelEndsAProgram) {
  Add("bash");
  const absl::Duration begin = Clock::Real().Monotonic();
  context_.is_stopped = [&] { return Clock::Real().Monotonic() - begin > absl::Milliseconds(200); };
  const auto answer =
      box_.Call({.name = "bash", .arguments = R"({"script": "sleep 100"})"}, context_);
  EXPECT_TRUE(absl::IsCancelled(answer.status()));
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(3));
}

TEST_F(LocalToolsTest, LimitsAloneHoldAProgramWhereAConfigurationSaysSo) {
  ::setenv("FLOWMESH_TEST_CANARY", "canary-in-the-environment", 1);
  SandboxLimits limits{.time = absl::Seconds(5), .memory_bytes = int64_t{200} << 20};
  const auto end = RunProgram({"/bin/bash", "-c", "env; ulimit -v; ulimit -c; pwd"}, context_,
                              limits, /*with_bubblewrap=*/false);
  ::unsetenv("FLOWMESH_TEST_CANARY");
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_THAT(end->output,
              AllOf(HasSubstr("204800\n0\n"), HasSubstr("/work\n"), Not(HasSubstr("canary"))));
}

TEST_F(LocalToolsTest, WhatAProgramHasInAllIsBounded) {
  const auto too_much = [&](const std::string& program, const SandboxLimits& limits) {
    const auto end = RunProgram({"/usr/bin/python3", "-c", program}, context_, limits,
                                /*with_bubblewrap=*/false);
    EXPECT_TRUE(end.ok()) << end.status();
    return end.ok() ? end->too_much : "";
  };
  // Each process is within its limit.
  EXPECT_EQ(too_much("import os, time\nfor i in range(3): os.fork()\nx = 'x' * (40 << 20)\n"
                     "time.sleep(60)",
                     {.memory_bytes = int64_t{200} << 20}),
            "memory");
  EXPECT_EQ(
      too_much("import os, time\nfor i in range(5): os.fork()\ntime.sleep(60)", {.processes = 10}),
      "processes");
  EXPECT_EQ(too_much("import time\nfor i in range(20): open(str(i), 'w').write('x' * (1 << 20))\n"
                     "time.sleep(60)",
                     {.folder_bytes = 10u << 20}),
            "files");
  // Also where whole paths are too long for the system.
  EXPECT_EQ(too_much("import os, time\n"
                     "for i in range(30): os.mkdir('n' * 200); os.chdir('n' * 200)\n"
                     "for i in range(20): open(str(i), 'w').write('x' * (1 << 20))\n"
                     "time.sleep(60)",
                     {.time = absl::Seconds(10), .folder_bytes = 30u << 20}),
            "files");
  EXPECT_EQ(too_much("print(1)", {}), "");
}

}  // namespace
}  // namespace flowmesh::agent
