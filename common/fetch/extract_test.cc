#include "common/fetch/extract.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <locale.h>
#include <sys/stat.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// An entry as an evil maker of archives wants it.
struct Entry {
  std::string name;
  std::string content;
  mode_t type = AE_IFREG;
  mode_t mode = 0644;
  std::string link;  // of AE_IFLNK
  std::string hard_link;
};

using SetUp = std::function<void(struct archive*)>;

// libarchive writes what it is told to, whatever that is.
void WriteArchive(const fs::path& path, const SetUp& set_up, const std::vector<Entry>& entries) {
  // pax holds names as UTF-8, which the writer makes of the locale's encoding.
  const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  const locale_t previous = ::uselocale(utf8);
  struct archive* archive = archive_write_new();
  set_up(archive);
  ASSERT_EQ(archive_write_open_filename(archive, path.c_str()), ARCHIVE_OK);
  for (const Entry& entry : entries) {
    struct archive_entry* header = archive_entry_new();
    archive_entry_set_pathname(header, entry.name.c_str());
    archive_entry_set_mode(header, entry.type | entry.mode);
    archive_entry_set_uid(header, 12345);
    archive_entry_set_gid(header, 12345);
    archive_entry_set_size(header, entry.content.size());
    if (!entry.link.empty()) archive_entry_set_symlink(header, entry.link.c_str());
    if (!entry.hard_link.empty()) archive_entry_set_hardlink(header, entry.hard_link.c_str());
    ASSERT_EQ(archive_write_header(archive, header), ARCHIVE_OK) << archive_error_string(archive);
    archive_write_data(archive, entry.content.data(), entry.content.size());
    archive_entry_free(header);
  }
  archive_write_free(archive);
  ::uselocale(previous);
  ::freelocale(utf8);
}

std::string Noise(size_t size) {
  std::mt19937 random(1);
  std::string noise(size, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  return noise;
}

void GnuTar(struct archive* archive) { archive_write_set_format_gnutar(archive); }

class ExtractTest : public ::testing::Test {
 protected:
  absl::Status Unpack(ArchiveFormat format = ArchiveFormat::kTar) {
    return Extract(archive_, format, into_, limits_, nullptr);
  }

  // Of a tar with these entries, which must be refused with nothing left.
  std::string Error(const std::vector<Entry>& entries) {
    WriteArchive(archive_, GnuTar, entries);
    const absl::Status status = Unpack();
    EXPECT_FALSE(status.ok());
    ExpectNothing();
    return Message(status);
  }

  void ExpectNothing() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(temp_.path())) {
      names.push_back(entry.path().filename().string());
    }
    EXPECT_THAT(names, UnorderedElementsAre("archive", "outside"));
    EXPECT_EQ(std::distance(fs::directory_iterator(temp_ / "outside"), fs::directory_iterator()),
              1);
    EXPECT_EQ(ReadFile(temp_ / "outside/secret").value(), "canary");
  }

  std::string Content(const std::string& name) { return ReadFile(into_ / name).value_or("none"); }

  void SetUp() override {
    fs::create_directory(temp_ / "outside");
    ASSERT_TRUE(WriteFileAtomically(temp_ / "outside/secret", "canary").ok());
  }

  TempDir temp_;
  const fs::path archive_ = temp_ / "archive";
  const fs::path into_ = temp_ / "into";
  ExtractLimits limits_{.min_free_bytes = 0};
};

const std::vector<Entry>& Good() {
  static const auto* const entries = new std::vector<Entry>{
      {.name = "./", .type = AE_IFDIR, .mode = 0755},
      {.name = "model/", .type = AE_IFDIR, .mode = 0700},
      {.name = "model/weights", .content = std::string(700'000, 'w')},
      {.name = "model/größe 語", .content = "utf-8"},
      {.name = "model/deep/down/file", .content = "without entries above it"},
      {.name = "model/deep/", .type = AE_IFDIR, .mode = 0755},
      {.name = "model/run", .content = "#!", .mode = 0755},
      {.name = "model/empty", .content = ""},
      {.name = "model/deep/link", .type = AE_IFLNK, .mode = 0777, .link = "../weights"}};
  return *entries;
}

TEST_F(ExtractTest, TarUnderEveryUsualCompression) {
  using Add = int (*)(struct archive*);
  for (const auto& [name, filter] :
       std::vector<std::pair<std::string, Add>>{{"none", archive_write_add_filter_none},
                                                {"gzip", archive_write_add_filter_gzip},
                                                {"bzip2", archive_write_add_filter_bzip2},
                                                {"xz", archive_write_add_filter_xz},
                                                {"lzma", archive_write_add_filter_lzma},
                                                {"zstd", archive_write_add_filter_zstd},
                                                {"lz4", archive_write_add_filter_lz4},
                                                {"compress", archive_write_add_filter_compress}}) {
    for (const Add format : {archive_write_set_format_gnutar, archive_write_set_format_pax,
                             archive_write_set_format_ustar}) {
      WriteArchive(
          archive_,
          [&](struct archive* archive) {
            format(archive);
            ASSERT_EQ(filter(archive), ARCHIVE_OK) << name;
          },
          Good());
      ASSERT_EQ(Unpack(), absl::OkStatus()) << name;
      EXPECT_EQ(Content("model/weights"), std::string(700'000, 'w')) << name;
      EXPECT_EQ(Content("model/größe 語"), "utf-8");
      EXPECT_EQ(Content("model/deep/down/file"), "without entries above it");
      EXPECT_EQ(Content("model/deep/link"), std::string(700'000, 'w'));
      EXPECT_EQ(Content("model/empty"), "");
      fs::remove_all(into_);
    }
  }
}

TEST_F(ExtractTest, Zip) {
  WriteArchive(
      archive_, [](struct archive* archive) { archive_write_set_format_zip(archive); }, Good());
  ASSERT_EQ(Unpack(ArchiveFormat::kZip), absl::OkStatus());
  EXPECT_EQ(Content("model/weights"), std::string(700'000, 'w'));
  EXPECT_EQ(Content("model/größe 語"), "utf-8");
  EXPECT_EQ(Content("model/deep/link"), std::string(700'000, 'w'));
}

TEST_F(ExtractTest, TheFolderReplacesAnOlderOne) {
  fs::create_directory(into_);
  ASSERT_TRUE(WriteFileAtomically(into_ / "old", "x").ok());
  fs::create_directory(temp_ / ".into.0123abcd");  // of a process that was killed
  WriteArchive(archive_, GnuTar, {{.name = "new", .content = "y"}});
  ASSERT_EQ(Unpack(), absl::OkStatus());
  EXPECT_EQ(Content("new"), "y");
  EXPECT_FALSE(fs::exists(into_ / "old"));
  EXPECT_FALSE(fs::exists(temp_ / ".into.0123abcd"));
}

// --- P18: paths ----------------------------------------------------------------------------------

TEST_F(ExtractTest, P18_AbsoluteNamesAndNamesThatLeadOutAreRefused) {
  for (const std::string name :
       {"/etc/evil", "../outside/evil", "a/../../outside/evil", "..", "a/..", "//x"}) {
    EXPECT_THAT(
        Error({{.name = "good", .content = "x"}, {.name = name, .content = "evil"}}),
        HasSubstr(absl::StrCat("entry \"", name, "\": expected a relative name without \"..\"")));
  }
}

TEST_F(ExtractTest, P18_LinksThatLeadOutAreRefused) {
  for (const std::string target :
       {"/etc/passwd", "../outside/secret", "..", "../..", "a/../../outside", "x/..", "/"}) {
    EXPECT_THAT(Error({{.name = "link", .type = AE_IFLNK, .link = target}}),
                HasSubstr("entry \"link\": expected a link that stays inside the archive"))
        << target;
  }
  EXPECT_THAT(Error({{.name = "a/link", .type = AE_IFLNK, .link = "../../outside/secret"}}),
              HasSubstr("stays inside"));
  // Two links, each of which looks harmless by itself.
  EXPECT_THAT(Error({{.name = "here", .type = AE_IFLNK, .link = "."},
                     {.name = "up", .type = AE_IFLNK, .link = "here/../outside"}}),
              HasSubstr("entry \"up\""));
}

TEST_F(ExtractTest, P18_NothingIsWrittenThroughALink) {
  EXPECT_THAT(Error({{.name = "d/", .type = AE_IFDIR, .mode = 0755},
                     {.name = "link", .type = AE_IFLNK, .link = "d"},
                     {.name = "link/file", .content = "evil"}}),
              HasSubstr("entry \"link/file\": expected folders above it, got a file or link"));
  EXPECT_THAT(Error({{.name = "link", .type = AE_IFLNK, .link = "target"},
                     {.name = "link", .content = "evil"}}),
              HasSubstr("entry \"link\": expected each name once"));
  EXPECT_THAT(Error({{.name = "link", .type = AE_IFLNK, .link = "d"},
                     {.name = "link/", .type = AE_IFDIR, .mode = 0755}}),
              HasSubstr("expected each name once"));
  EXPECT_THAT(Error({{.name = "file", .content = "x"}, {.name = "file/below", .content = "y"}}),
              HasSubstr("expected folders above it"));
}

TEST_F(ExtractTest, P18_HardLinksLeadToFilesOfTheArchiveOnly) {
  WriteArchive(archive_, GnuTar,
               {{.name = "a/file", .content = "x"}, {.name = "b/same", .hard_link = "a/file"}});
  ASSERT_EQ(Unpack(), absl::OkStatus());
  EXPECT_EQ(Content("b/same"), "x");
  fs::remove_all(into_);
  for (const std::string target :
       {"/etc/passwd", "../outside/secret", "none", "d", "link", "link/file", "."}) {
    EXPECT_THAT(Error({{.name = "d/file", .content = "x"},
                       {.name = "link", .type = AE_IFLNK, .link = "d"},
                       {.name = "evil", .hard_link = target}}),
                HasSubstr("entry \"evil\": expected a link to a file that came before it"))
        << target;
  }
}

TEST_F(ExtractTest, P18_DevicesAndPipesAreRefused) {
  for (const mode_t type : {AE_IFCHR, AE_IFBLK, AE_IFIFO}) {
    EXPECT_THAT(Error({{.name = "good", .content = "x"}, {.name = "evil", .type = type}}),
                HasSubstr("entry \"evil\": expected a file, a folder or a link, got a device"));
  }
}

TEST_F(ExtractTest, P18_SpecialBitsAndOwnersAreDropped) {
  WriteArchive(archive_, GnuTar,
               {{.name = "program", .content = "x", .mode = 07777},
                {.name = "plain", .content = "x", .mode = 06606},
                {.name = "d/", .type = AE_IFDIR, .mode = 07000},
                {.name = "d/inside", .content = "x", .mode = 0}});
  const mode_t mask = ::umask(022);
  ASSERT_EQ(Unpack(), absl::OkStatus());
  ::umask(mask);
  for (const auto& [name, mode] : std::vector<std::pair<std::string, mode_t>>{
           {"program", 0755}, {"plain", 0644}, {"d", 0755}, {"d/inside", 0644}}) {
    struct stat info;
    ASSERT_EQ(::lstat((into_ / name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, mode) << name;
    EXPECT_EQ(info.st_uid, ::geteuid()) << name;
  }
}

// --- P18: amounts --------------------------------------------------------------------------------

TEST_F(ExtractTest, P18_AMillionEntriesAreTooMany) {
  struct archive* archive = archive_write_new();
  archive_write_set_format_ustar(archive);
  archive_write_add_filter_lz4(archive);
  ASSERT_EQ(archive_write_open_filename(archive, archive_.c_str()), ARCHIVE_OK);
  struct archive_entry* header = archive_entry_new();
  for (int i = 0; i < 1'000'000; ++i) {
    archive_entry_set_pathname(header, absl::StrCat("d/", i).c_str());
    archive_entry_set_mode(header, AE_IFREG | 0644);
    archive_entry_set_size(header, 0);
    ASSERT_EQ(archive_write_header(archive, header), ARCHIVE_OK);
  }
  archive_entry_free(header);
  archive_write_free(archive);
  limits_.max_entries = 2000;  // the default makes no difference but in time
  EXPECT_EQ(Message(Unpack()), archive_.string() + ": more than 2000 entries");
  ExpectNothing();
}

TEST_F(ExtractTest, P18_FoldersThatNoEntryNamesCountToo) {
  limits_.max_entries = 50;
  const std::string deep = "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/";
  EXPECT_THAT(
      Error({{.name = deep + "1", .content = "x"}, {.name = "b/" + deep + "2", .content = "x"}}),
      HasSubstr("more than 50 entries"));
  limits_.max_entries = 100'000;
  EXPECT_THAT(Error({{.name = deep + deep + deep + deep + "file", .content = "x"}}),
              HasSubstr("expected at most 100 folders"));
}

TEST_F(ExtractTest, P18_ABombIsTooLarge) {
  limits_.max_bytes = 10'000'000;
  WriteArchive(archive_,
               [](struct archive* archive) {
                 archive_write_set_format_gnutar(archive);
                 archive_write_add_filter_gzip(archive);
               },
               {{.name = "a", .content = std::string(6'000'000, '\0')},
                {.name = "b", .content = std::string(6'000'000, '\0')}});
  ASSERT_LT(fs::file_size(archive_), 100'000u);
  EXPECT_TRUE(absl::IsResourceExhausted(Unpack()));
  ExpectNothing();
  // In a zip, whose sizes need not be said beforehand.
  WriteArchive(archive_, [](struct archive* archive) { archive_write_set_format_zip(archive); },
               {{.name = "a", .content = std::string(20'000'000, '\0')}});
  EXPECT_EQ(Message(Unpack(ArchiveFormat::kZip)),
            archive_.string() + ": more than 10000000 bytes unpacked");
  ExpectNothing();
}

TEST_F(ExtractTest, P18_AClaimOfALargeFileIsRefusedBeforeItIsRead) {
  WriteArchive(archive_, GnuTar, {{.name = "a", .content = "x"}});
  std::string tar = ReadFile(archive_).value();
  tar.replace(124, 12, "77777777777\0", 12);  // 8 GiB, where it stands in the header
  // The checksum is the sum of the header's bytes with itself as spaces.
  tar.replace(148, 8, 8, ' ');
  unsigned int sum = 0;
  for (int i = 0; i < 512; ++i) sum += static_cast<unsigned char>(tar[i]);
  tar.replace(148, 8, absl::StrFormat("%06o", sum) + std::string("\0 ", 2));
  ASSERT_TRUE(WriteFileAtomically(archive_, tar).ok());
  limits_.max_bytes = uint64_t{1} << 32;
  EXPECT_EQ(Message(Unpack()), archive_.string() + ": more than 4294967296 bytes unpacked");
  ExpectNothing();
}

TEST_F(ExtractTest, P18_DiskStaysFree) {
  limits_.min_free_bytes = uint64_t{1} << 60;
  const std::string error = Error({{.name = "a", .content = "x"}});
  EXPECT_THAT(error, AllOf(HasSubstr("cannot unpack"), HasSubstr("are free on the disk")));
}

// --- Damage --------------------------------------------------------------------------------------

TEST_F(ExtractTest, P18_OneBadEntryLeavesNothingOfTheGoodOnes) {
  std::vector<Entry> entries = Good();
  entries.push_back({.name = "../evil", .content = "x"});
  Error(entries);
  // Nor of an older folder's content being touched.
  fs::create_directory(into_);
  ASSERT_TRUE(WriteFileAtomically(into_ / "old", "x").ok());
  EXPECT_FALSE(Unpack().ok());
  EXPECT_EQ(Content("old"), "x");
  EXPECT_FALSE(fs::exists(into_ / "model"));
}

TEST_F(ExtractTest, ATruncatedArchiveIsRefused) {
  for (const auto filter : {archive_write_add_filter_none, archive_write_add_filter_gzip,
                            archive_write_add_filter_xz, archive_write_add_filter_zstd}) {
    WriteArchive(archive_,
                 [&](struct archive* archive) {
                   archive_write_set_format_gnutar(archive);
                   filter(archive);
                 },
                 {{.name = "a", .content = Noise(100'000)}});
    fs::resize_file(archive_, 60'000);
    EXPECT_THAT(Message(Unpack()), HasSubstr("that is whole, got"));
    ExpectNothing();
  }
}

TEST_F(ExtractTest, AFlippedBitUnderGzipIsSeenWhereverItIs) {
  WriteArchive(archive_,
               [](struct archive* archive) {
                 archive_write_set_format_gnutar(archive);
                 archive_write_add_filter_gzip(archive);
               },
               {{.name = "a", .content = Noise(100'000)}});
  const std::string whole = ReadFile(archive_).value();
  for (const size_t at : {size_t{50'000}, whole.size() - 7, whole.size() - 1}) {
    std::string damaged = whole;
    damaged[at] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(archive_, damaged).ok());
    EXPECT_EQ(Message(Unpack()),
              archive_.string() + ": expected gzip that is whole, got a damaged file")
        << at;
    ExpectNothing();
  }
  ASSERT_TRUE(WriteFileAtomically(archive_, whole.substr(0, whole.size() - 3)).ok());
  EXPECT_FALSE(Unpack().ok());
  ASSERT_TRUE(WriteFileAtomically(archive_, whole + std::string(1000, '\0')).ok());
  EXPECT_EQ(Unpack(), absl::OkStatus()) << "padding is usual";
}

TEST_F(ExtractTest, SeveralGzipMembersAreOneArchive) {
  WriteArchive(archive_, GnuTar, {{.name = "a", .content = Noise(300'000)}});
  const std::string tar = ReadFile(archive_).value();
  std::string members;
  for (size_t at = 0; at < tar.size(); at += 70'001) {
    const fs::path part = temp_ / "part";
    struct archive* archive = archive_write_new();
    archive_write_set_format_raw(archive);
    archive_write_add_filter_gzip(archive);
    ASSERT_EQ(archive_write_open_filename(archive, part.c_str()), ARCHIVE_OK);
    struct archive_entry* header = archive_entry_new();
    archive_entry_set_pathname(header, "part");
    archive_entry_set_filetype(header, AE_IFREG);
    ASSERT_EQ(archive_write_header(archive, header), ARCHIVE_OK);
    const std::string piece = tar.substr(at, 70'001);
    archive_write_data(archive, piece.data(), piece.size());
    archive_entry_free(header);
    archive_write_free(archive);
    members += ReadFile(part).value();
    fs::remove(part);
  }
  ASSERT_TRUE(WriteFileAtomically(archive_, members).ok());
  ASSERT_EQ(Unpack(), absl::OkStatus());
  EXPECT_TRUE(Content("a") == Noise(300'000));
}

TEST_F(ExtractTest, WhatIsNoArchiveIsRefused) {
  for (const std::string_view content : {"", "no archive", "{\"a\": 1}"}) {
    ASSERT_TRUE(WriteFileAtomically(archive_, content).ok());
    for (const ArchiveFormat format : {ArchiveFormat::kTar, ArchiveFormat::kZip}) {
      EXPECT_TRUE(absl::IsInvalidArgument(Unpack(format))) << content;
      ExpectNothing();
    }
  }
  fs::remove(archive_);
  EXPECT_TRUE(absl::IsNotFound(Unpack()));
}

TEST_F(ExtractTest, ItCanBeCancelled) {
  WriteArchive(archive_, GnuTar, {{.name = "a", .content = std::string(3'000'000, 'x')}});
  int polls = 0;
  EXPECT_TRUE(absl::IsCancelled(
      Extract(archive_, ArchiveFormat::kTar, into_, limits_, [&] { return ++polls > 4; })));
  ExpectNothing();
}

// --- What is to be unpacked, and what was meant
// ---------------------------------------------------

TEST_F(ExtractTest, FormatsAreNamedOrFound) {
  WriteArchive(
      archive_,
      [](struct archive* archive) {
        archive_write_set_format_gnutar(archive);
        archive_write_add_filter_zstd(archive);
      },
      Good());
  const fs::path zip = temp_ / "a.zip";
  WriteArchive(
      zip, [](struct archive* archive) { archive_write_set_format_zip(archive); }, Good());
  const auto choose = [](std::string_view format, const fs::path& file, std::string_view name) {
    return ChooseArchiveFormat(format, file, name).value();
  };
  EXPECT_EQ(choose("auto", archive_, "model.bin"), ArchiveFormat::kTar) << "by content";
  EXPECT_EQ(choose("auto", zip, "model.ZIP"), ArchiveFormat::kZip) << "by name";
  EXPECT_EQ(choose("auto", zip, "model.pt"), std::nullopt) << "PyTorch's files are zip containers";
  EXPECT_EQ(choose(" TGZ ", zip, "x"), ArchiveFormat::kTar);
  EXPECT_EQ(choose("zip", archive_, "x"), ArchiveFormat::kZip);
  EXPECT_EQ(choose("none", archive_, "x.tar"), std::nullopt);
  EXPECT_EQ(Message(ChooseArchiveFormat("rar", zip, "x").status()),
            "expected auto, none, tar, tar.gz, tgz, tar.bz2, tar.xz or zip, got \"rar\"");
}

TEST_F(ExtractTest, ASingleFolderIsEntered) {
  fs::create_directories(into_ / "model/sub");
  ASSERT_TRUE(WriteFileAtomically(into_ / ".hidden", "").ok());
  EXPECT_EQ(UnpackedRoot(into_, "").value(), into_ / "model");
  EXPECT_EQ(UnpackedRoot(into_, "model/sub/").value(), into_ / "model/sub");
  EXPECT_EQ(Message(UnpackedRoot(into_, "other").status()), "the archive has no \"other\"");
  EXPECT_EQ(Message(UnpackedRoot(into_, "../outside").status()),
            "expected a folder inside the archive, got \"../outside\"");
  ASSERT_TRUE(WriteFileAtomically(into_ / "file", "").ok());
  EXPECT_EQ(UnpackedRoot(into_, "").value(), into_);
}

}  // namespace
}  // namespace flowmesh
