#include "src/base/paths.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "src/base/temp_dir.h"

namespace loopserve {
namespace {

// Sets the three variables for one test and puts them back.
class CacheDirTest : public testing::Test {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < std::size(kNames); ++i) {
      const char* value = std::getenv(kNames[i]);
      had_[i] = value != nullptr;
      if (had_[i]) old_[i] = value;
      unsetenv(kNames[i]);
    }
  }
  void TearDown() override {
    for (size_t i = 0; i < std::size(kNames); ++i) {
      if (had_[i]) {
        setenv(kNames[i], old_[i].c_str(), 1);
      } else {
        unsetenv(kNames[i]);
      }
    }
  }
  static constexpr const char* kNames[] = {"LOOPSERVE_CACHE", "XDG_CACHE_HOME", "HOME"};
  bool had_[3] = {};
  std::string old_[3];
};

TEST_F(CacheDirTest, TakesTheFirstVariableThatIsSet) {
  EXPECT_EQ(CacheDir().status().code(), StatusCode::kNotFound);
  setenv("HOME", "/home/x", 1);
  EXPECT_EQ(*CacheDir(), "/home/x/.cache/loopserve");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(*CacheDir(), "/home/x/.cache/loopserve");
  setenv("XDG_CACHE_HOME", "/xdg", 1);
  EXPECT_EQ(*CacheDir(), "/xdg/loopserve");
  setenv("LOOPSERVE_CACHE", "/own/cache", 1);
  EXPECT_EQ(*CacheDir(), "/own/cache");
  setenv("LOOPSERVE_CACHE", "here", 1);
  EXPECT_EQ(*CacheDir(), std::filesystem::current_path() / "here");
}

TEST(CreateDirsTest, CreatesParentsAndNamesWhatFailed) {
  TempDir dir;
  EXPECT_TRUE(CreateDirs(dir.path() / "a" / "b").ok());
  EXPECT_TRUE(CreateDirs(dir.path() / "a" / "b").ok());
  std::ofstream(dir.path() / "plain") << "x";
  const Status status = CreateDirs(dir.path() / "plain" / "sub");
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_NE(status.message().find("plain/sub"), std::string::npos);
}

}  // namespace
}  // namespace loopserve
