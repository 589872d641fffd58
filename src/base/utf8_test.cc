#include "src/base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace loopserve {
namespace {

TEST(Utf8Test, AcceptsEveryScalarValueAndRefusesSurrogates) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string text;
    if (c < 0x80) {
      text = {static_cast<char>(c)};
    } else if (c < 0x800) {
      text = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      text = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
              static_cast<char>(0x80 | (c & 63))};
    } else {
      text = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
              static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    }
    ASSERT_EQ(IsValidUtf8(text), c < 0xD800 || c > 0xDFFF) << std::hex << c;
    if (text.size() > 1) {
      ASSERT_EQ(FindInvalidUtf8("a" + text.substr(0, text.size() - 1)), 1u) << std::hex << c;
    }
  }
}

TEST(Utf8Test, NamesTheFirstBadByte) {
  const struct {
    const char* name;
    std::string text;
    size_t position;
  } cases[] = {
      {"stray continuation", "ab\x80", 2},
      {"overlong slash", "\xC0\xAF", 0},
      {"overlong three bytes", "\xE0\x80\xAF", 0},
      {"overlong four bytes", "\xF0\x80\x80\xAF", 0},
      {"above U+10FFFF", "\xF4\x90\x80\x80", 0},
      {"five bytes", "x\xF8\x88\x80\x80\x80", 1},
      {"cut in the middle",
       "\xE2\x82"
       "a",
       0},
      {"latin-1", "caf\xE9!", 3},
  };
  for (const auto& c : cases) EXPECT_EQ(FindInvalidUtf8(c.text), c.position) << c.name;
  EXPECT_EQ(FindInvalidUtf8(""), std::string_view::npos);
}

}  // namespace
}  // namespace loopserve
