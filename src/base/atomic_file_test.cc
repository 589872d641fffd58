#include "src/base/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "src/base/temp_dir.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

size_t CountEntries(const fs::path& dir) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(dir), fs::directory_iterator()));
}

TEST(AtomicFileTest, ReplacesTheOldContentOnlyOnCommit) {
  TempDir dir;
  const fs::path path = dir.path() / "report.json";
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write("new").ok());
    EXPECT_EQ(ReadFile(path), "old");
    ASSERT_TRUE(file->Commit().ok());
  }
  EXPECT_EQ(ReadFile(path), "new");
  EXPECT_EQ(CountEntries(dir.path()), 1u);
}

TEST(AtomicFileTest, AnUncommittedFileLeavesNothing) {
  TempDir dir;
  {
    auto file = AtomicFile::Create(dir.path() / "f");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write("half").ok());
  }
  EXPECT_EQ(CountEntries(dir.path()), 0u);
}

TEST(AtomicFileTest, FollowsLinksAndKeepsThem) {
  TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir.path() / "real", "old").ok());
  fs::create_symlink("real", dir.path() / "link");
  ASSERT_TRUE(WriteFileAtomically(dir.path() / "link", "new").ok());
  EXPECT_TRUE(fs::is_symlink(dir.path() / "link"));
  EXPECT_EQ(ReadFile(dir.path() / "real"), "new");
}

TEST(AtomicFileTest, WritesDevicesDirectlyAndReportsAFullOne) {
  EXPECT_TRUE(WriteFileAtomically("/dev/null", "x").ok());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  const Status full = WriteFileAtomically("/dev/full", "x");
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full.message();
  EXPECT_NE(full.message().find("/dev/full"), std::string::npos);
}

TEST(AtomicFileTest, NamesFoldersThatAreMissingOrNoFolders) {
  TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir.path() / "plain", "x").ok());
  EXPECT_EQ(WriteFileAtomically(dir.path() / "none" / "f", "x").code(), StatusCode::kNotFound);
  EXPECT_EQ(WriteFileAtomically(dir.path() / "plain" / "f", "x").code(), StatusCode::kIoError);
  EXPECT_EQ(WriteFileAtomically(dir.path(), "x").code(), StatusCode::kIoError);
}

TEST(AtomicFileTest, FilesGetTheModeOfTheUmask) {
  TempDir dir;
  const mode_t old_mask = umask(027);
  ASSERT_TRUE(WriteFileAtomically(dir.path() / "f", "x").ok());
  umask(old_mask);
  struct stat info {};
  ASSERT_EQ(stat((dir.path() / "f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

}  // namespace
}  // namespace loopserve
