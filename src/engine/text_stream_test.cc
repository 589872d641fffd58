#include "src/engine/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "src/base/utf8.h"

namespace loopserve {
namespace {

using Texts = std::vector<std::string>;

constexpr const char* kBad = "\xEF\xBF\xBD";

std::string All(TextStream& stream, const Texts& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += stream.Push(piece);
  return text + stream.Finish();
}

TEST(TextStreamTest, ShowsWholeCharactersOnly) {
  TextStream stream({});
  EXPECT_EQ(stream.Push("a\xE2"), "a");
  EXPECT_EQ(stream.Push("\x82"), "");
  EXPECT_EQ(stream.Push("\xAC!"), "\xE2\x82\xAC!");
  EXPECT_EQ(stream.Push("\xF0\x9F\x98"), "");
  EXPECT_EQ(stream.Push(""), "");
  EXPECT_EQ(stream.Push("\x80"), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.Push("\xC3"), "");
  EXPECT_EQ(stream.Finish(), kBad);
  EXPECT_FALSE(stream.stopped());
}

// What other decoders that follow Unicode's recommendation (one U+FFFD for each maximal part) make of these bytes.
TEST(TextStreamTest, ReplacesInvalidBytes) {
  const std::string bad = kBad;
  const struct {
    const char* name;
    std::string bytes;
    std::string text;
  } kCases[] = {
      {"lone continuation", "a\x80z", "a" + bad + "z"},
      {"overlong slash in 2", "\xC0\xAF", bad + bad},
      {"overlong slash in 3", "\xE0\x80\xAF", bad + bad + bad},
      {"overlong in 4", "\xF0\x80\x80\xAF", bad + bad + bad + bad},
      {"surrogate", "\xED\xA0\x80", bad + bad + bad},
      {"above the last code point", "\xF4\x90\x80\x80", bad + bad + bad + bad},
      {"bytes that never occur", "\xFE\xFF\xF5", bad + bad + bad},
      {"cut 2", "\xC3(", bad + "("},
      {"cut 3", "\xE2\x82(", bad + "("},
      {"cut 4", "\xF0\x9F\x98(", bad + "("},
      {"cut by a new character", "\xE2\x82\xC3\xA4", bad + "\xC3\xA4"},
      {"cut by the end", "ok\xF1\x80\x80", "ok" + bad},
      {"zero byte", std::string("a\0b", 3), std::string("a\0b", 3)},
      {"first and last of each length",
       "\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF",
       "\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
  };
  for (const auto& c : kCases) {
    TextStream whole({});
    EXPECT_EQ(All(whole, {c.bytes}), c.text) << c.name;
    TextStream single({});
    Texts bytes;
    for (const char byte : c.bytes) bytes.emplace_back(1, byte);
    EXPECT_EQ(All(single, bytes), c.text) << c.name << ", byte by byte";
  }
}

TEST(TextStreamTest, HoldsBackOnlyWhatCouldBecomeAStopString) {
  TextStream stream({"###", "\nUser:"});
  EXPECT_EQ(stream.Push("ab#"), "ab");
  EXPECT_EQ(stream.Push("#"), "");
  EXPECT_EQ(stream.Push("c"), "##c");
  EXPECT_EQ(stream.Push("\nUs"), "");
  EXPECT_EQ(stream.Push("\nUser"), "\nUs");
  EXPECT_EQ(stream.Push("s: "), "\nUsers: ");
  EXPECT_EQ(stream.Push("end#"), "end");
  EXPECT_EQ(stream.Finish(), "#");
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStreamTest, StopsBeforeAStopStringThatSpansTokens) {
  TextStream stream({"\nUser:"});
  EXPECT_EQ(stream.Push("fine.\n"), "fine.");
  EXPECT_EQ(stream.Push("User"), "");
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.Push(": hello"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.Push("more"), "");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStreamTest, NamedStopCases) {
  const struct {
    const char* name;
    Texts stop;
    Texts pieces;
    std::string text;
    bool stopped;
  } kCases[] = {
      {"at once", {"x"}, {"xyz"}, "", true},
      {"in one token", {"STOP"}, {"goSTOPgo"}, "go", true},
      {"overlaps itself", {"aab"}, {"a", "a", "a", "b"}, "a", true},
      {"the one that begins first", {"cd", "bcd"}, {"abcd"}, "a", true},
      {"a longer one begins first and fails", {"abcd", "bc"}, {"xabc", "e"}, "xa", true},
      {"a longer one begins first and comes", {"abcd", "bc"}, {"xabc", "d"}, "x", true},
      {"a longer one begins first and the end comes", {"abcd", "bc"}, {"xabc"}, "xa", true},
      {"a prefix of another", {"ab", "abc"}, {"xab"}, "x", true},
      {"cut within a character", {"\xC3\xA4!"}, {"a\xC3", "\xA4", "!"}, "a", true},
      {"half of it at the end", {"STOP"}, {"goSTO"}, "goSTO", false},
      {"an invalid byte between", {"ab"}, {"a\x80", "b"}, std::string("a") + kBad + "b", false},
  };
  for (const auto& c : kCases) {
    TextStream stream(c.stop);
    EXPECT_EQ(All(stream, c.pieces), c.text) << c.name;
    EXPECT_EQ(stream.stopped(), c.stopped) << c.name;
  }
}

// Another way to the same text: takes the longest well-formed character, else the longest beginning of one.
std::string Sanitize(std::string_view bytes) {
  const Texts endings = {"\x80", "\x8F", "\x90", "\x9F", "\xA0", "\xBF"};
  static std::map<std::string, bool> known;
  const auto begins_a_character = [&](const std::string& part) {  // some continuation makes it well-formed
    const auto [entry, is_new] = known.try_emplace(part, false);
    if (!is_new || part.size() > 3) return entry->second;
    Texts open = {part};
    for (size_t length = part.size(); length < 4; ++length) {
      Texts longer;
      for (const std::string& s : open) {
        for (const std::string& ending : endings) longer.push_back(s + ending);
      }
      entry->second = entry->second || std::ranges::any_of(longer, [](const std::string& s) { return IsValidUtf8(s); });
      open = std::move(longer);
    }
    return entry->second;
  };
  std::string text;
  while (!bytes.empty()) {
    size_t length = 0;
    for (size_t n = 1; n <= std::min<size_t>(4, bytes.size()) && length == 0; ++n) {
      if (IsValidUtf8(bytes.substr(0, n))) length = n;
    }
    if (length > 0) {
      text += bytes.substr(0, length);
    } else {
      length = 1;
      while (length < bytes.size() && begins_a_character(std::string(bytes.substr(0, length + 1)))) ++length;
      text += kBad;
    }
    bytes.remove_prefix(length);
  }
  return text;
}

TEST(TextStreamTest, AnyCutIntoTokensGivesTheTextOfTheWhole) {
  std::mt19937 rng(1);
  const Texts alphabet = {"a",        "b",       "a",        "b",        "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x98\x80",
                          "\xC3",     "\x84",    "\xE2\x82", "\xF0\x9F", "\xED\xA0", "\xFF",         "\xC0",
                          "\xF4\x90", "\xE0\x80"};
  const auto random_text = [&](size_t n, size_t letters) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += alphabet[rng() % letters];
    return text;
  };
  int n_stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    Texts stop(rng() % 4);
    for (std::string& s : stop) s = random_text(1 + rng() % 5, 7);
    const std::string bytes = random_text(rng() % 40, alphabet.size());

    const std::string whole = Sanitize(bytes);
    size_t expected_length = std::string::npos;
    for (const std::string& s : stop) expected_length = std::min(expected_length, whole.find(s));
    const bool expects_stop = expected_length != std::string::npos;

    TextStream stream(stop);
    std::string text;
    for (size_t i = 0; i < bytes.size();) {
      const size_t n = std::min<size_t>(rng() % 4, bytes.size() - i);
      const std::string piece = stream.Push(std::string_view(bytes).substr(i, n));
      ASSERT_TRUE(IsValidUtf8(piece));
      text += piece;
      i += n;
      if (stream.stopped()) continue;
      // What is held back is the beginning of a stop string, then maybe of a character.
      const std::string known = Sanitize(std::string_view(bytes).substr(0, i));
      ASSERT_GE(known.size(), text.size());
      std::string held = known.substr(text.size());
      const auto begins_stop = [&] {
        return held.empty() || std::ranges::any_of(stop, [&](const std::string& s) { return s.starts_with(held); });
      };
      if (held.ends_with(kBad) && !begins_stop()) held.resize(held.size() - 3);
      ASSERT_TRUE(begins_stop()) << "round " << round << ": " << held;
    }
    text += stream.Finish();
    ASSERT_EQ(text, whole.substr(0, expected_length)) << "round " << round;
    ASSERT_EQ(stream.stopped(), expects_stop);
    n_stopped += expects_stop ? 1 : 0;
  }
  EXPECT_GT(n_stopped, 500);
  EXPECT_LT(n_stopped, 2500);
}

}  // namespace
}  // namespace loopserve
