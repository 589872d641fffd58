#include "src/base/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace loopserve {
namespace {

class MappedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "mapped_file_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string Path(const std::string& name) const { return (dir_ / name).string(); }

  std::filesystem::path dir_;
};

TEST_F(MappedFileTest, HoldsTheFilesBytesEvenAfterItsNameIsGone) {
  const std::string content("a\0b\nc", 5);
  std::ofstream(Path("file"), std::ios::binary) << content;
  auto file = MappedFile::Open(Path("file"));
  ASSERT_TRUE(file.ok()) << file.status().message();
  std::filesystem::remove(Path("file"));
  EXPECT_EQ(std::string((*file)->bytes().begin(), (*file)->bytes().end()), content);
  EXPECT_EQ((*file)->size_bytes(), 5u);
}

TEST_F(MappedFileTest, RefusesWhatCannotBeMapped) {
  std::ofstream(Path("empty"));
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  const struct {
    std::string path;
    StatusCode code;
  } cases[] = {
      {Path("missing"), StatusCode::kNotFound},
      {Path("empty/below"), StatusCode::kNotFound},
      {Path("empty"), StatusCode::kCorruptData},
      {dir_.string(), StatusCode::kIoError},
      {Path("fifo"), StatusCode::kIoError},
      {"/dev/null", StatusCode::kIoError},
      {std::string("a\0b", 3), StatusCode::kNotFound},
      {"", StatusCode::kNotFound},
      {std::string(100000, 'x'), StatusCode::kIoError},  // longer than any path may be
  };
  for (const auto& c : cases) {
    auto file = MappedFile::Open(c.path);
    ASSERT_FALSE(file.ok()) << c.path;
    EXPECT_EQ(file.status().code(), c.code) << file.status().message();
    EXPECT_FALSE(file.status().message().empty());
  }
}

}  // namespace
}  // namespace loopserve
