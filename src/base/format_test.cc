#include "src/base/format.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace loopserve {
namespace {

TEST(FormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(98362432), "93.8 MiB");
  EXPECT_EQ(FormatBytes(1023 * 1024 + 1000), "1.00 MiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<uint64_t>::max()), "16.0 EiB");
}

TEST(FormatTest, Counts) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(7168), "7,168");
  EXPECT_EQ(FormatCount(-1234567), "-1,234,567");
  EXPECT_EQ(FormatCount(-999), "-999");
}

TEST(FormatTest, Durations) {
  EXPECT_EQ(FormatMilliseconds(0.84), "0.8 ms");
  EXPECT_EQ(FormatMilliseconds(412.4), "412 ms");
  EXPECT_EQ(FormatMilliseconds(3421), "3.42 s");
  EXPECT_EQ(FormatMilliseconds(999.9), "1.00 s");
  EXPECT_EQ(FormatMilliseconds(59999), "1 min 00 s");
  EXPECT_EQ(FormatMilliseconds(125000), "2 min 05 s");
  EXPECT_EQ(FormatMilliseconds(3720000), "1 h 02 min");
  EXPECT_EQ(FormatMilliseconds(std::numeric_limits<double>::infinity()), "?");
}

TEST(FormatTest, FixedTakesAnyDouble) {
  EXPECT_EQ(FormatFixed(3.14159, 2), "3.14");
  EXPECT_EQ(FormatFixed(std::numeric_limits<double>::max(), 2).size(), 309u + 3u);
}

TEST(FormatTest, ControlCharactersDoNotReachATerminal) {
  EXPECT_EQ(OnOneLine("a\r\nb\x1b[2J\x7f"), "a  b [2J ");
  EXPECT_EQ(OnOneLine("caf\xC3\xA9\xC2\x9B"
                      "31m\xC2\xA7\xC2"),
            "caf\xC3\xA9  31m\xC2\xA7\xC2");
  EXPECT_EQ(OnOneLine(""), "");
}

}  // namespace
}  // namespace loopserve
