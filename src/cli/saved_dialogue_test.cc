#include "src/cli/saved_dialogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "src/base/temp_dir.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

std::shared_ptr<Engine> OpenTiny(const std::filesystem::path& path, uint64_t seed) {
  TinyGgufOptions tiny = TinyModel(TinyFamily::kLlama);
  tiny.seed = seed;
  EXPECT_TRUE(WriteTinyGguf(tiny, path.string()).ok());
  EngineOptions options;
  options.model_path = path.string();
  options.threads = 1;
  auto engine = Engine::Open(options);
  EXPECT_TRUE(engine.ok());
  return *engine;
}

TEST(SavedDialogueTest, MetadataRoundTripsAndForeignOnesAreRefused) {
  const std::vector<ChatMessage> messages = {{"system", "s"}, {"user", "caf\u00e9 \"\n\\"}, {"assistant", ""}};
  const auto back = FromMetadata(ToMetadata(messages));
  ASSERT_TRUE(back.ok());
  ASSERT_EQ(back->size(), 3u);
  EXPECT_EQ((*back)[1].content, messages[1].content);
  for (const char* bad : {"", "{", "[]", "{\"messages\":1}", "{\"messages\":[1]}", "{\"messages\":[{\"role\":1}]}",
                          "{\"messages\":[{\"role\":\"user\"}]}"}) {
    EXPECT_EQ(FromMetadata(bad).status().code(), StatusCode::kCorruptData) << bad;
  }
}

TEST(SavedDialogueTest, ADialogueGoesOnWithItsKvOrFromItsText) {
  TempDir dir;
  const auto engine = OpenTiny(dir.path() / "a.gguf", 1);
  const auto other = OpenTiny(dir.path() / "b.gguf", 2);
  for (const std::string& name : {std::string("named"), (dir.path() / "file").string()}) {
    const auto saved = SavedDialogue::Open(name, (dir.path() / "sessions").string());
    ASSERT_TRUE(saved.ok()) << saved.status().message();
    EXPECT_FALSE(Resume(*saved, *engine, {})->has_value()) << "there is none yet";
    Session session = engine->NewSession(*Policy::Parse("paper"));
    ASSERT_TRUE(session.Sync(std::vector<Token>{1, 2, 3}).ok());
    const std::vector<ChatMessage> messages = {{"user", "u"}, {"assistant", "a"}};
    ASSERT_TRUE(saved->Save(session, messages).ok());

    auto resumed = Resume(*saved, *engine, {});
    ASSERT_TRUE(resumed.ok() && resumed->has_value());
    EXPECT_EQ((*resumed)->messages.size(), 2u);
    ASSERT_TRUE((*resumed)->session.has_value());
    EXPECT_EQ((*resumed)->session->tokens().size(), 3u);
    EXPECT_EQ((*resumed)->session->policy().ToString(), session.policy().ToString());

    resumed = Resume(*saved, *engine, *Policy::Parse("dense"));
    ASSERT_TRUE(resumed.ok() && resumed->has_value());
    EXPECT_FALSE((*resumed)->session.has_value());
    EXPECT_THAT((*resumed)->note, HasSubstr("dense"));

    resumed = Resume(*saved, *other, {});
    ASSERT_TRUE(resumed.ok() && resumed->has_value());
    EXPECT_FALSE((*resumed)->session.has_value());
    EXPECT_EQ((*resumed)->messages[1].content, "a");
    EXPECT_THAT((*resumed)->note, HasSubstr("another model"));
  }
}

}  // namespace
}  // namespace loopserve
