#include "src/server/reading_order.h"

#include <gtest/gtest.h>

namespace loopserve::server {
namespace {

TEST(ReadingOrder, ShorterOnesGoFirstInTurns) {
  struct Case {
    const char* name;
    int64_t new_tokens;
    Reading reading;
    bool goes_before;
  };
  const Case cases[] = {
      {"the long one has only begun", 100, {10'000, 0.005, 0}, false},
      {"it has read as much", 100, {10'000, 0.01, 0}, true},
      {"nothing to read", 0, {10'000, 0.0, 0}, true},
      {"another went before it already", 100, {10'000, 0.01, 1}, false},
      {"and it has made up for that", 100, {10'000, 0.02, 100}, true},
      {"as long as what is left", 5'000, {10'000, 0.5, 0}, true},
      {"longer than what is left", 5'001, {10'000, 0.5, 0}, false},
      {"nearly done", 300, {10'000, 0.98, 0}, false},
      {"done", 1, {10'000, 1.0, 0}, false},
  };
  for (const Case& c : cases) EXPECT_EQ(GoesBefore(c.new_tokens, c.reading), c.goes_before) << c.name;
}

TEST(ReadingOrder, NoPromptTakesMoreThanTwiceItsTime) {
  // Short prompts arrive without end.
  Reading reading{1000, 0, 0};
  int64_t steps = 0;
  for (int64_t read = 0; read < reading.new_tokens; ++steps) {
    if (GoesBefore(7, reading)) {
      reading.let_before += 7;
      steps += 6;
    } else {
      reading.share_read = static_cast<double>(++read) / static_cast<double>(reading.new_tokens);
    }
  }
  EXPECT_LE(steps, 2 * reading.new_tokens);
  EXPECT_GT(steps, 2 * reading.new_tokens - 20) << "the short ones had their turns";
}

}  // namespace
}  // namespace loopserve::server
