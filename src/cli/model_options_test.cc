#include "src/cli/model_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "src/base/temp_dir.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ModelOptionsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* old = std::getenv("LOOPSERVE_CACHE")) old_cache_ = old;
    setenv("LOOPSERVE_CACHE", dir_.path().c_str(), 1);
  }
  void TearDown() override {
    old_cache_ ? setenv("LOOPSERVE_CACHE", old_cache_->c_str(), 1) : unsetenv("LOOPSERVE_CACHE");
  }
  TempDir dir_;
  std::optional<std::string> old_cache_;
};

TEST_F(ModelOptionsTest, APathIsTakenAsItIs) {
  const std::string path = dir_.path() / "m.gguf";
  std::ofstream(path) << "x";
  EXPECT_EQ(*ResolveModelPath(path), path);
  EXPECT_THAT(ResolveModelPath(dir_.path()).status().message(), HasSubstr("is a folder"));
  EXPECT_THAT(ResolveModelPath(dir_.path() / "none.gguf").status().message(), HasSubstr("no such model file"));
}

TEST_F(ModelOptionsTest, NamesAndReferencesAreFoundInTheCache) {
  for (const char* reference : {"smollm2", "hf:O/R/m.gguf", "https://h/m.gguf"}) {
    const Status status = ResolveModelPath(reference).status();
    EXPECT_EQ(status.code(), StatusCode::kNotFound);
    EXPECT_THAT(status.message(), HasSubstr(std::string("loopserve pull ") + reference));
  }
  fs::create_directories(dir_.path() / "models/hf/O/R");
  std::ofstream(dir_.path() / "models/hf/O/R/m.gguf") << "x";
  EXPECT_EQ(*ResolveModelPath("hf:O/R/m.gguf"), (dir_.path() / "models/hf/O/R/m.gguf").string());
  EXPECT_THAT(ResolveModelPath("nonsense").status().message(), HasSubstr("known are smollm2"));
}

TEST_F(ModelOptionsTest, OptionsReachTheEngine) {
  ModelOptions options;
  options.model = dir_.path() / "m.gguf";
  std::ofstream(options.model) << "x";
  options.threads = 3;
  options.context_tokens = 77;
  options.kv_type = "q8_0";
  options.linear = "f32";
  const Result<EngineOptions> engine = ToEngineOptions(options);
  ASSERT_TRUE(engine.ok());
  EXPECT_EQ(engine->model_path, options.model);
  EXPECT_EQ(engine->threads, 3);
  EXPECT_EQ(engine->max_context_tokens, 77);
  EXPECT_EQ(engine->kv_precision, KvPrecision::kQ8_0);
  EXPECT_EQ(engine->linear_path, LinearPath::kF32);
}

TEST(SplitPoliciesTest, KeysBelongToThePolicyBeforeThem) {
  EXPECT_THAT(SplitPolicies("dense"), testing::ElementsAre("dense"));
  EXPECT_THAT(SplitPolicies("dense,a:x=1,y=2,b"), testing::ElementsAre("dense", "a:x=1,y=2", "b"));
  EXPECT_THAT(SplitPolicies("a:x=1,b:z=3"), testing::ElementsAre("a:x=1", "b:z=3"));
  EXPECT_THAT(SplitPolicies("x=1"), testing::ElementsAre("x=1"));  // the parser of policies will refuse it
}

}  // namespace
}  // namespace loopserve
