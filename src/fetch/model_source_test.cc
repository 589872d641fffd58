#include "src/fetch/model_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace loopserve {
namespace {

using testing::HasSubstr;

TEST(ModelSourceTest, EveryKnownNameResolves) {
  ASSERT_FALSE(KnownModels().empty());
  for (const KnownModel& model : KnownModels()) {
    const Result<ModelSource> source = ResolveModelSource(model.name);
    ASSERT_TRUE(source.ok()) << model.name << ": " << source.status().message();
    EXPECT_EQ(source->reference, model.name);
    EXPECT_EQ(source->cache_path.extension(), ".gguf");
    EXPECT_TRUE(!source->url.empty() || source->sha256.size() == 64) << "a wheel's model must have a checksum";
  }
}

TEST(ModelSourceTest, HubReferencesBecomeUrlsOfTheEndpoint) {
  const Result<ModelSource> source = ResolveModelSource("hf:Owner/Repo/sub/my model.gguf", "http://127.0.0.1:9/hub/");
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->url, "http://127.0.0.1:9/hub/Owner/Repo/resolve/main/sub/my%20model.gguf");
  EXPECT_EQ(source->cache_path, "hf/Owner/Repo/sub/my model.gguf");
  EXPECT_TRUE(source->from_hub);
}

TEST(ModelSourceTest, UrlsWithTheSameLastSegmentAreKeptApart) {
  const auto a = ResolveModelSource("https://h/a/m.gguf");
  const auto b = ResolveModelSource("https://h/b/m.gguf");
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->cache_path.filename(), "m.gguf");
  EXPECT_NE(a->cache_path, b->cache_path);
  EXPECT_FALSE(a->from_hub);
}

TEST(ModelSourceTest, RefusesHostileAndMalformedReferences) {
  const std::string cases[] = {
      "hf:",
      "hf:a/b",
      "hf:a/b/",
      "hf:a/b/c.bin",
      "hf:../../x.gguf",
      "hf:a/../x.gguf",
      "hf:a/b/../../../x.gguf",
      "hf:/etc/passwd/x.gguf",
      "hf:a//x.gguf",
      "hf:a/b/.gguf",
      "hf:a/b/.hidden.gguf",
      "hf:a/b/back\\slash.gguf",
      "hf:a/b/new\nline.gguf",
      std::string("hf:a/b/nul\0.gguf", 15),
      "hf:a/b/" + std::string(300, 'x') + ".gguf",
      "hf:1/2/3/4/5/6/7/8/9.gguf",
      "ftp://h/x.gguf",
  };
  for (const std::string& reference : cases) {
    const Status status = ResolveModelSource(reference).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << reference;
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
}

TEST(ModelSourceTest, AnUnknownNameListsTheKnownOnes) {
  const Status status = ResolveModelSource("gpt-9").status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("smollm2"));
}

TEST(ModelSourceTest, FileNamesFromServersCannotLeaveTheirFolder) {
  EXPECT_EQ(SafeFileName("model.gguf"), "model.gguf");
  EXPECT_EQ(SafeFileName(""), "model.gguf");
  EXPECT_EQ(SafeFileName("../../etc/passwd"), "_._.._etc_passwd.gguf");
  EXPECT_EQ(SafeFileName(".."), "_..gguf");
  EXPECT_EQ(SafeFileName("a\nb\x7f\\c"), "a_b__c.gguf");
  EXPECT_EQ(SafeFileName("C:evil"), "C_evil.gguf");
  EXPECT_LE(SafeFileName(std::string(1000, 'x')).size(), 150u);
  for (int c = 0; c < 256; ++c) {
    const std::string name = SafeFileName(std::string(3, static_cast<char>(c)));
    EXPECT_EQ(name.find('/'), std::string::npos);
    EXPECT_NE(name[0], '.');
  }
}

}  // namespace
}  // namespace loopserve
