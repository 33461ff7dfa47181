// The recipes of the images install what the programs need that they copy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <regex>
#include <set>

#include "absl/strings/str_replace.h"
#include "common/strings.h"
#include "k8s/program_output.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::PrintToString;

constexpr char kDpkgQuery[] = "/usr/bin/dpkg-query";
constexpr char kReadelf[] = "/usr/bin/readelf";

using Names = std::set<std::string>;

// All matches of the first group of `pattern`.
Names AllMatches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  Names names;
  for (std::sregex_iterator match(text.begin(), text.end(), regex), end; match != end; ++match) {
    names.insert((*match)[1]);
  }
  return names;
}

class Recipe {
 public:
  explicit Recipe(const std::string& name)
      : text_(absl::StrReplaceAll(
            ReadFile(fs::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "k8s/images" / name).value(),
            {{"\\\n", " "}})) {}

  // Places below the build folder: `bin/flowmeshctl`.
  Names Copied() const { return AllMatches(text_, "build/release/((?:bin|lib)/[^ ]+)"); }
  // What the last stage installs by name.
  Names Packages() const {
    const std::string stage = text_.substr(text_.rfind("FROM "));
    const std::string installed =
        *AllMatches(stage, "apt-get install -y --no-install-recommends ([^&]*)&&").begin();
    const std::vector<std::string> names = SplitTrimmed(installed, ' ');
    return Names(names.begin(), names.end());
  }

 private:
  const std::string text_;
};

// The packages that apt would install for `roots`, by what dpkg knows of this machine's.
Names WithDependencies(const Names& roots) {
  std::map<std::string, Names> depends;
  for (const std::string& line : SplitTrimmed(
           ProgramOutput({kDpkgQuery, "-W", "-f", "${Package}\t${Pre-Depends}, ${Depends}\n"}),
           '\n')) {
    const size_t tab = line.find('\t');
    // Of alternatives apt takes the first.
    depends[line.substr(0, tab)] = AllMatches(line.substr(tab + 1), "(?:^|,) *([^ ,:|]+)[^,]*");
  }
  Names all;
  std::vector<std::string> open(roots.begin(), roots.end());
  while (!open.empty()) {
    const std::string name = open.back();
    open.pop_back();
    if (!all.insert(name).second) continue;
    EXPECT_TRUE(depends.contains(name) || !roots.contains(name)) << name << " is not installed";
    open.insert(open.end(), depends[name].begin(), depends[name].end());
  }
  return all;
}

// The packages that hold files of these names, `/usr/bin/bwrap` or, wherever it stands,
// `libc.so.6`.
std::map<std::string, Names> PackagesWith(const Names& files) {
  std::vector<std::string> argv = {kDpkgQuery, "-S"};
  for (const std::string& file : files) argv.push_back(file[0] == '/' ? file : "*/" + file);
  std::map<std::string, Names> packages;
  // `libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6`
  for (const std::string& line : SplitTrimmed(ProgramOutput(argv), '\n')) {
    const std::string path = line.substr(line.rfind(' ') + 1);
    const std::string package = line.substr(0, line.find(':'));
    packages[path].insert(package);
    packages[fs::path(path).filename()].insert(package);
  }
  return packages;
}

Names NeededLibraries(const fs::path& program) {
  return AllMatches(ProgramOutput({kReadelf, "--dynamic", "--wide", program}),
                    "\\(NEEDED\\)[^[]*\\[([^\\]]+)\\]");
}

// In folders that an image takes as a whole: libtorch's and Arrow's.
bool ComesWithAFolder(const std::string& library) {
  const char* folders = std::getenv("FLOWMESH_LIBRARY_FOLDERS");
  for (const std::string& folder : SplitTrimmed(folders == nullptr ? "" : folders, ':')) {
    if (fs::exists(fs::path(folder) / library)) return true;
  }
  return false;
}

bool AnyOf(const Names& names, const Names& among) {
  for (const std::string& name : names) {
    if (among.contains(name)) return true;
  }
  return false;
}

class ImagesTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    for (const char* program : {kDpkgQuery, kReadelf}) {
      if (::access(program, X_OK) != 0) GTEST_SKIP() << "no " << program << " on this machine";
    }
  }
};

TEST_P(ImagesTest, InstallsTheLibrariesOfTheProgramsItCopies) {
  const Recipe recipe(GetParam());
  const fs::path build = fs::path(std::getenv("FLOWMESH_BIN_DIR")).parent_path();
  const Names installed = WithDependencies(recipe.Packages());
  ASSERT_THAT(recipe.Copied(), Contains("bin/flowmeshctl"));
  std::map<std::string, Names> needed_by;  // libraries
  for (const std::string& copied : recipe.Copied()) {
    if (!fs::exists(build / copied)) {
      std::printf("not looked at, for this build has no %s\n", copied.c_str());
      continue;
    }
    const Names libraries = NeededLibraries(build / copied);
    EXPECT_THAT(libraries, Contains("libc.so.6"));
    for (const std::string& library : libraries) {
      if (!ComesWithAFolder(library)) needed_by[library].insert(copied);
    }
  }
  Names libraries;
  for (const auto& [library, programs] : needed_by) libraries.insert(library);
  std::map<std::string, Names> packages = PackagesWith(libraries);
  for (const auto& [library, programs] : needed_by) {
    EXPECT_TRUE(AnyOf(packages[library], installed))
        << PrintToString(programs) << " need " << library << " of "
        << PrintToString(packages[library]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ImagesTest,
                         ::testing::Values("sidecar.Containerfile", "executor.Containerfile"));

// Agents' Bash and Python tools run in bubblewrap (executors/agent/tools/sandbox.cc).
TEST_F(ImagesTest, TheExecutorHasTheProgramsOfAgentsTools) {
  const Names installed = WithDependencies(Recipe("executor.Containerfile").Packages());
  for (const auto& [program, packages] : PackagesWith({"/usr/bin/bwrap", "/usr/bin/python3"})) {
    EXPECT_TRUE(AnyOf(packages, installed)) << program;
  }
}

}  // namespace
}  // namespace flowmesh
