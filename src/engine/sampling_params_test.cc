#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "loopserve/sampling.h"

namespace loopserve {
namespace {

using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

using Change = std::function<void(SamplingParams&)>;

TEST(SamplingParamsTest, TheDefaultsAndTheEndsOfRangesAreValid) {
  const Change kCases[] = {
      [](SamplingParams&) {},
      [](SamplingParams& p) { p.temperature = 100; },
      [](SamplingParams& p) { p.top_k = std::numeric_limits<int32_t>::max(); },
      [](SamplingParams& p) { p.top_p = std::numeric_limits<float>::denorm_min(); },
      [](SamplingParams& p) { p.min_p = 1; },
      [](SamplingParams& p) { p.repeat_penalty = 10; },
      [](SamplingParams& p) { p.presence_penalty = -2, p.frequency_penalty = 2; },
      [](SamplingParams& p) { p.presence_penalty = 2, p.frequency_penalty = -2; },
      [](SamplingParams& p) { p.penalty_window = 1 << 20; },
      [](SamplingParams& p) { p.penalty_window = 0; },
      [](SamplingParams& p) { p.max_tokens = 0; },
      [](SamplingParams& p) { p.stop.assign(16, std::string(1024, 'x')); },
      [](SamplingParams& p) {
        p.stop = {"\n", "Ende \xC3\xA4"};
      },
  };
  for (const Change& change : kCases) {
    SamplingParams params;
    change(params);
    const Status status = params.Validate();
    EXPECT_TRUE(status.ok()) << status.message();
  }
}

TEST(SamplingParamsTest, SaysFieldValueAndRange) {
  const struct {
    Change change;
    const char* says;
  } kCases[] = {
      {[](SamplingParams& p) { p.temperature = -0.5f; }, "temperature is -0.5; it must be in [0, 100]"},
      {[](SamplingParams& p) { p.temperature = 100.5f; }, "temperature is 100.5"},
      {[](SamplingParams& p) { p.temperature = kNan; }, "temperature is nan"},
      {[](SamplingParams& p) { p.temperature = kInf; }, "temperature is inf"},
      {[](SamplingParams& p) { p.top_k = -1; }, "top_k is -1; it must be in [0, 2^31)"},
      {[](SamplingParams& p) { p.top_p = 0; }, "top_p is 0; it must be in (0, 1]"},
      {[](SamplingParams& p) { p.top_p = 1.5f; }, "top_p is 1.5"},
      {[](SamplingParams& p) { p.top_p = kNan; }, "top_p is nan"},
      {[](SamplingParams& p) { p.min_p = -0.25f; }, "min_p is -0.25; it must be in [0, 1]"},
      {[](SamplingParams& p) { p.min_p = 1.25f; }, "min_p is 1.25"},
      {[](SamplingParams& p) { p.min_p = kNan; }, "min_p is nan"},
      {[](SamplingParams& p) { p.repeat_penalty = 0; }, "repeat_penalty is 0; it must be in (0, 10]"},
      {[](SamplingParams& p) { p.repeat_penalty = 10.5f; }, "repeat_penalty is 10.5"},
      {[](SamplingParams& p) { p.repeat_penalty = kNan; }, "repeat_penalty is nan"},
      {[](SamplingParams& p) { p.presence_penalty = 2.5f; }, "presence_penalty is 2.5; it must be in [-2, 2]"},
      {[](SamplingParams& p) { p.presence_penalty = -kInf; }, "presence_penalty is -inf"},
      {[](SamplingParams& p) { p.presence_penalty = kNan; }, "presence_penalty is nan"},
      {[](SamplingParams& p) { p.frequency_penalty = -2.5f; }, "frequency_penalty is -2.5; it must be in [-2, 2]"},
      {[](SamplingParams& p) { p.frequency_penalty = kNan; }, "frequency_penalty is nan"},
      {[](SamplingParams& p) { p.penalty_window = -1; }, "penalty_window is -1; it must be in [0, 2^20]"},
      {[](SamplingParams& p) { p.penalty_window = (1 << 20) + 1; }, "penalty_window is 1048577"},
      {[](SamplingParams& p) { p.max_tokens = -2; }, "max_tokens is -2; it must be -1 or at least 0"},
      {[](SamplingParams& p) { p.stop.assign(17, "x"); }, "stop is a list of 17; it must be at most 16"},
      {[](SamplingParams& p) {
         p.stop = {"a", ""};
       },
       "stop[1] is empty"},
      {[](SamplingParams& p) { p.stop = {std::string(1025, 'x')}; }, "stop[0] is 1025 bytes long"},
      {[](SamplingParams& p) { p.stop = {"\xC3"}; }, "stop[0] is not valid UTF-8"},
  };
  for (const auto& c : kCases) {
    SamplingParams params;
    c.change(params);
    const Status status = params.Validate();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(status.message(), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace loopserve
