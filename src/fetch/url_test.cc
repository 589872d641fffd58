#include "src/fetch/url.h"

#include <gtest/gtest.h>

namespace loopserve {
namespace {

TEST(UrlTest, ParsesWhatUsersAndServersWrite) {
  const struct {
    const char* text;
    const char* expected;
  } cases[] = {
      {"https://Example.org/a/b.gguf?download=true#frag", "https://example.org:443/a/b.gguf?download=true"},
      {"http://127.0.0.1:8080", "http://127.0.0.1:8080/"},
      {"http://h?x=1", "http://h:80/?x=1"},
      {"http://[::1]:81/f", "http://[::1]:81/f"},
      {"http://h/with space/\xC3\xA4%20", "http://h:80/with%20space/%C3%A4%20"},
  };
  for (const auto& c : cases) {
    const Result<Url> url = ParseUrl(c.text);
    ASSERT_TRUE(url.ok()) << c.text << ": " << url.status().message();
    EXPECT_EQ(url->ToString(), c.expected);
  }
}

TEST(UrlTest, RefusesWhatIsNoUrlOrNotSafe) {
  const char* cases[] = {"",
                         "example.org/x",
                         "ftp://h/x",
                         "file:///etc/passwd",
                         "http://",
                         "http:///x",
                         "http://h:0/",
                         "http://h:65536/",
                         "http://h:8x/",
                         "http://user:secret@h/",
                         "http://h/\r\nHost: evil",
                         "http://h\\evil/",
                         "http://a b/"};
  for (const char* text : cases) {
    const Status status = ParseUrl(text).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(status.message().find("secret"), std::string::npos);
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
}

TEST(UrlTest, ResolvesLocations) {
  const Url base = *ParseUrl("https://h/a/b?q=1");
  const struct {
    const char* location;
    const char* expected;
  } cases[] = {
      {"http://o/x", "http://o:80/x"},   {"//o/x", "https://o:443/x"},
      {"/x?y=2", "https://h:443/x?y=2"}, {"c?next=http://o/", "https://h:443/a/c?next=http://o/"},
      {"", "https://h:443/a/"},
  };
  for (const auto& c : cases) {
    const Result<Url> url = ResolveLocation(base, c.location);
    ASSERT_TRUE(url.ok()) << c.location;
    EXPECT_EQ(url->ToString(), c.expected);
  }
  EXPECT_FALSE(ResolveLocation(base, "ftp://o/x").ok());
}

TEST(UrlTest, GivesTheLastSegmentDecoded) {
  EXPECT_EQ(LastPathSegment(*ParseUrl("http://h/a/b%20c.gguf?x=/y")), "b c.gguf");
  EXPECT_EQ(LastPathSegment(*ParseUrl("http://h/")), "");
  EXPECT_EQ(LastPathSegment(*ParseUrl("http://h/%2e%2e%2fetc")), "../etc");
  EXPECT_EQ(LastPathSegment(*ParseUrl("http://h/100%")), "100%");
}

}  // namespace
}  // namespace loopserve
