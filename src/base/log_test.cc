#include "src/base/log.h"

#include <gtest/gtest.h>

#include <vector>

namespace loopserve {
namespace {

TEST(LogTest, IsSilentUntilASinkIsSetAndAgainAfterwards) {
  std::vector<std::string> seen;
  EXPECT_FALSE(LogEnabled(LogLevel::kError));
  SetLogSink([&](LogLevel, std::string_view message) { seen.emplace_back(message); }, LogLevel::kInfo);
  EXPECT_FALSE(LogEnabled(LogLevel::kDebug));
  Log(LogLevel::kDebug, "hidden");
  Log(LogLevel::kInfo, "shown");
  SetLogSink({});
  Log(LogLevel::kError, "after");
  EXPECT_EQ(seen, std::vector<std::string>{"shown"});
}

}  // namespace
}  // namespace loopserve
