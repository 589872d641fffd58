// The text side of a model through the public API: the same tokens as the engine's, from the metadata alone.
#include "loopserve/vocabulary.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

class VocabularyTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) / ("vocabulary_" + std::to_string(getpid()) + ".gguf")).string();
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_;
};

TEST_F(VocabularyTest, AgreesWithTheEngineOnEveryFamily) {
  std::vector<NamedTinyModel> models = AllTinyModels();
  for (NamedTinyModel& model : models) {
    SCOPED_TRACE(model.name);
    model.options.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    ASSERT_TRUE(WriteTinyGguf(model.options, path_).ok());
    EngineOptions options;
    options.model_path = path_;
    options.threads = 1;
    const auto engine = Engine::Open(options);
    const auto vocabulary = Vocabulary::Open(path_);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    ASSERT_TRUE(vocabulary.ok()) << vocabulary.status().message();
    EXPECT_EQ((*vocabulary)->context_tokens(), (*engine)->model().context_tokens);
    EXPECT_EQ((*vocabulary)->has_chat_template(), (*engine)->model().has_chat_template);
    for (const char* text : {"", "Hello, world", "caf\xC3\xA9 <|im_end|> 42\n\n"}) {
      for (const bool special : {false, true}) {
        const auto ours = (*vocabulary)->Tokenize(text, special, special);
        const auto theirs = (*engine)->Tokenize(text, special, special);
        ASSERT_TRUE(ours.ok() && theirs.ok());
        EXPECT_EQ(*ours, *theirs) << text;
        EXPECT_EQ((*vocabulary)->Detokenize(*ours, special), (*engine)->Detokenize(*ours, special));
      }
    }
    const std::vector<ChatMessage> messages = {{"user", "Hi"}, {"assistant", "Ho"}, {"user", "Hm"}};
    const auto ours = (*vocabulary)->RenderChat(messages);
    const auto theirs = (*engine)->RenderChat(messages);
    ASSERT_TRUE(ours.ok() && theirs.ok());
    EXPECT_EQ(*ours, *theirs);
  }
}

TEST_F(VocabularyTest, ErrorsNameTheFileOnce) {
  const Status missing = Vocabulary::Open("/nonexistent/m.gguf").status();
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  std::ofstream(path_) << "this is no model";
  const Status text = Vocabulary::Open(path_).status();
  EXPECT_EQ(text.code(), StatusCode::kCorruptData);
  for (const Status& status : {missing, text}) {
    const std::string name = status.code() == StatusCode::kNotFound ? "/nonexistent/m.gguf" : path_;
    const size_t at = status.message().find(name);
    EXPECT_NE(at, std::string::npos) << status.message();
    EXPECT_EQ(status.message().find(name, at + 1), std::string::npos) << status.message();
  }
}

}  // namespace
}  // namespace loopserve
