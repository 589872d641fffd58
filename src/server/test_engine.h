// A tiny random model for the server's tests, and what its dialogues say when each is alone.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve::server {

/// Sparse from the first tokens on.
inline constexpr char kSparsePolicy[] = "loopserve:min_keys=64,decode_min_keys=64,budget=64,recent=8";

class TestModel {
 public:
  explicit TestModel(int context_tokens = 4096)
      : path_((std::filesystem::path(testing::TempDir()) / ("server_" + std::to_string(getpid()) + ".gguf")).string()) {
    TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
    options.context_tokens = context_tokens;
    options.weight_type = GGML_TYPE_Q8_0;  // one that answers share their steps with
    options.chat_template =
        "{% for m in messages %}{% if m.role == 'thrown' %}{{ raise_exception('no such role here') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    const Status status = WriteTinyGguf(options, path_);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  ~TestModel() { std::filesystem::remove(path_); }

  std::shared_ptr<Engine> Open(size_t kv_budget_bytes = 0) const {
    EngineOptions options;
    options.model_path = path_;
    options.threads = 1;
    options.kv_budget_bytes = kv_budget_bytes;
    auto engine = Engine::Open(options);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return engine.ok() ? *engine : nullptr;
  }

 private:
  std::string path_;
};

inline std::vector<Token> TestTokens(int n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens(static_cast<size_t>(n));
  for (Token& token : tokens) token = static_cast<Token>(random() % 256);
  return tokens;
}

inline std::string TestWords(int n, unsigned seed) {
  std::mt19937 random(seed);
  std::string text = "secret" + std::to_string(seed);
  for (int i = 0; i < n; ++i) text += std::string(" ") + static_cast<char>('a' + random() % 26) + "o";
  return text;
}

inline SamplingParams TestSampling(int max_tokens) {
  SamplingParams sampling;
  sampling.max_tokens = max_tokens;
  sampling.ignore_end_of_text = true;
  return sampling;
}

}  // namespace loopserve::server
