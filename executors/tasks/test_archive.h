// For tests: archives of a few files.
#pragma once

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "common/files.h"

namespace flowmesh::tasks {

enum class TestArchive { kTarGz, kZip };

// Writes an archive of `files`, contents by name.
inline void WriteTestArchive(const std::filesystem::path& path, TestArchive kind,
                             const std::map<std::string, std::string>& files) {
  struct archive* archive = archive_write_new();
  if (kind == TestArchive::kZip) {
    archive_write_set_format_zip(archive);
  } else {
    archive_write_set_format_pax_restricted(archive);
    archive_write_add_filter_gzip(archive);
  }
  ASSERT_EQ(archive_write_open_filename(archive, path.c_str()), ARCHIVE_OK);
  for (const auto& [name, content] : files) {
    struct archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(content.size()));
    ASSERT_EQ(archive_write_header(archive, entry), ARCHIVE_OK) << archive_error_string(archive);
    archive_write_data(archive, content.data(), content.size());
    archive_entry_free(entry);
  }
  ASSERT_EQ(archive_write_close(archive), ARCHIVE_OK);
  archive_write_free(archive);
}

// The files of `folder`, which go into an archive below `top`.
inline std::map<std::string, std::string> FilesOf(const std::filesystem::path& folder,
                                                  const std::string& top) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files[top + "/" + entry.path().filename().string()] = ReadFile(entry.path()).value();
  }
  return files;
}

}  // namespace flowmesh::tasks
