#include "src/cli/policy_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace loopserve {
namespace {

std::string Of(const char* spec) {
  const auto policy = Policy::Parse(spec);
  EXPECT_TRUE(policy.ok()) << policy.status().message();
  return policy.ok() ? SettingsOf(*policy) : "";
}

TEST(PolicySettingsTest, DefaultsAreSpeltOut) {
  EXPECT_EQ(Of("loopserve:rows=24"), Of("loopserve"));
  EXPECT_EQ(Of("paper:alpha=0.50"), Of("paper:alpha=0.5"));
  EXPECT_THAT(Of("paper:budget=77"), testing::HasSubstr("decode.budget=77"));
}

TEST(PolicySettingsTest, EveryKeyCounts) {
  for (const char* changed : {"paper:alpha=0.5",
                              "paper:rows=1",
                              "paper:min_keys=9",
                              "paper:seed=3",
                              "paper:budget=9",
                              "paper:interval=3",
                              "paper:queries=3",
                              "loopserve:decode_min_keys=9",
                              "loopserve:recent=9",
                              "loopserve:per_query_head=1",
                              "minference:columns=99",
                              "minference:slashes=99",
                              "flexprefill:gamma=0.5",
                              "flexprefill:tau=0.5",
                              "flexprefill:min_budget=9",
                              "xattention:threshold=0.5",
                              "xattention:stride=4",
                              "xattention:block=64",
                              "snapkv:budget=99",
                              "snapkv:window=9",
                              "snapkv:pool=9",
                              "snapkv:when=every_turn",
                              "snapkv:observe=output",
                              "pyramidkv:beta=9",
                              "adakv:alpha=0.5",
                              "h2o:budget=9",
                              "streaming:sinks=9",
                              "a_shape:sinks=9",
                              "a_shape:local=9",
                              "a_shape:reference=9",
                              "tri_shape:last=9",
                              "quest:budget=9",
                              "quest:dense_layers=1",
                              "quest:per_query_head=1",
                              "quest:decode_min_keys=9"}) {
    const std::string name = std::string(changed).substr(0, std::string(changed).find(':'));
    EXPECT_NE(Of(changed), Of(name.c_str())) << changed;
  }
}

}  // namespace
}  // namespace loopserve
