#include "loopserve/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace loopserve {
namespace {

using ::testing::HasSubstr;

TEST(PolicyTest, DefaultIsDense) {
  const Policy policy;
  EXPECT_TRUE(policy.is_dense());
  EXPECT_EQ(policy.ToString(), "dense");
}

TEST(PolicyTest, ParsesEveryNameAndItsCanonicalForm) {
  for (const char* spec : {"dense", "full"}) {
    const Result<Policy> policy = Policy::Parse(spec);
    ASSERT_TRUE(policy.ok()) << policy.status().message();
    EXPECT_EQ(policy.value().ToString(), "dense");
    const Result<Policy> again = Policy::Parse(policy.value().ToString());
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again.value().ToString(), policy.value().ToString());
  }
}

TEST(PolicyTest, SaysWhatIsWrong) {
  const struct {
    std::string_view spec;
    const char* says;
  } kCases[] = {
      {"", "empty policy; there is: dense (or full)"},
      {"sparse", "unknown policy 'sparse'; there is: dense (or full)"},
      {"Dense", "unknown policy 'Dense'"},
      {":alpha=1", "no name before ':'"},
      {"dense:", "expected key=value, not ''"},
      {"dense:alpha", "expected key=value, not 'alpha'"},
      {"dense:alpha=", "expected key=value, not 'alpha='"},
      {"dense:=1", "expected key=value, not '=1'"},
      {"dense:alpha=1,", "expected key=value, not ''"},
      {"dense:,alpha=1", "expected key=value, not ''"},
      {"dense:alpha=1", "unknown key 'alpha'; dense takes no keys"},
      {"full:alpha=1", "unknown key 'alpha'; dense takes no keys"},
      {"dense:alpha=1,alpha=2", "key 'alpha' is given twice"},
      {" dense", "white space"},
      {"dense ", "white space"},
      {"dense\n", "white space"},
      {std::string_view("dense\0", 6), "control characters"},
      {"dense:alpha= 1", "white space"},
      {"dense,full", "unknown policy 'dense,full'"},
  };
  for (const auto& c : kCases) {
    const Result<Policy> policy = Policy::Parse(c.spec);
    ASSERT_FALSE(policy.ok()) << c.spec;
    EXPECT_EQ(policy.status().code(), StatusCode::kInvalidArgument) << c.spec;
    EXPECT_THAT(policy.status().message(), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace loopserve
