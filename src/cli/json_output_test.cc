#include "src/cli/json_output.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "src/base/temp_dir.h"

namespace loopserve {
namespace {

TEST(JsonOutputTest, KeepsTheOrderAndReplacesWhatJsonCannotHold) {
  const Json document = {{"z", "caf\xE9"}, {"a", std::nan("")}, {"m", JsonOrNull(std::optional<double>())}};
  EXPECT_EQ(ToJsonText(document), "{\n  \"z\": \"caf\xEF\xBF\xBD\",\n  \"a\": null,\n  \"m\": null\n}\n");
}

TEST(JsonOutputTest, WritesFilesAndReportsAFullDisk) {
  TempDir dir;
  const std::string path = dir.path() / "o.json";
  ASSERT_TRUE(WriteJson(path, {{"a", 1}}).ok());
  std::ifstream in(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "{\n  \"a\": 1\n}\n");
  EXPECT_EQ(WriteJson("/dev/full", {{"a", 1}}).code(), StatusCode::kResourceExhausted);
}

TEST(JsonOutputTest, TheCheckLeavesNoTraceAndFindsBadPaths) {
  TempDir dir;
  EXPECT_TRUE(CheckJsonPath("-").ok());
  EXPECT_TRUE(CheckJsonPath(dir.path() / "o.json").ok());
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_EQ(CheckJsonPath(dir.path() / "none" / "o.json").code(), StatusCode::kNotFound);
  EXPECT_EQ(CheckJsonPath(dir.path()).code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace loopserve
