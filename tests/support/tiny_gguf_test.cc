#include "tests/support/tiny_gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "llama.h"

namespace loopserve {
namespace {

std::string TempPath(const std::string& name) {
  return (std::filesystem::path(testing::TempDir()) / ("tiny_gguf_test_" + name + ".gguf")).string();
}

struct Removed {
  explicit Removed(std::string path_in) : path(std::move(path_in)) {}
  ~Removed() { std::filesystem::remove(path); }
  std::string path;
};

/// What libllama makes of a model: mean probability of its best next token, over some text.
struct Reference {
  bool ran = false;
  bool finite = true;
  double mean_top_probability = 0;
  int n_vocab = 0;
};

Reference RunLibllama(const std::string& path) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  Reference result;
  const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
      llama_model_load_from_file(path.c_str(), llama_model_default_params()), llama_model_free);
  if (!model) return result;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 256;
  params.n_batch = 256;
  params.n_threads = params.n_threads_batch = 1;
  const std::unique_ptr<llama_context, decltype(&llama_free)> context(llama_init_from_model(model.get(), params),
                                                                      llama_free);
  if (!context) return result;
  const llama_vocab* vocab = llama_model_get_vocab(model.get());
  result.n_vocab = llama_vocab_n_tokens(vocab);
  const std::string text =
      "The world is not the same, and you are in it: 12 of 345; hello! \xC3\xA9\xE2\x82\xAC\n\nOn it goes.";
  std::vector<llama_token> tokens(256);
  tokens.resize(static_cast<size_t>(llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                                                   static_cast<int32_t>(tokens.size()), true, false)));
  llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
  for (size_t i = 0; i < tokens.size(); ++i) {
    batch.token[i] = tokens[i];
    batch.pos[i] = static_cast<llama_pos>(i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  batch.n_tokens = static_cast<int32_t>(tokens.size());
  result.ran = llama_decode(context.get(), batch) == 0;
  for (int32_t i = 0; result.ran && i < batch.n_tokens; ++i) {
    const float* logits = llama_get_logits_ith(context.get(), i);
    double best = logits[0], sum = 0;
    for (int j = 0; j < result.n_vocab; ++j) {
      result.finite = result.finite && std::isfinite(logits[j]);
      best = std::max<double>(best, logits[j]);
    }
    for (int j = 0; j < result.n_vocab; ++j) sum += std::exp(logits[j] - best);
    result.mean_top_probability += 1.0 / sum / batch.n_tokens;
  }
  llama_batch_free(batch);
  return result;
}

void ExpectRuns(const NamedTinyModel& model) {
  SCOPED_TRACE(model.name);
  const Removed file(TempPath(model.name));
  const Status status = WriteTinyGguf(model.options, file.path);
  ASSERT_TRUE(status.ok()) << status.message();
  const Reference reference = RunLibllama(file.path);
  ASSERT_TRUE(reference.ran);
  EXPECT_TRUE(reference.finite);
  EXPECT_GE(reference.n_vocab, 300);
  // Peaked enough for top-1 agreement to mean something, not so much that one token always wins.
  EXPECT_GT(reference.mean_top_probability, 0.04);
  EXPECT_LT(reference.mean_top_probability, 0.9);
  testing::Test::RecordProperty(model.name, std::to_string(reference.mean_top_probability));
}

TEST(TinyGguf, LibllamaRunsEveryFamilyAndVariant) {
  for (const NamedTinyModel& model : AllTinyModels()) ExpectRuns(model);
}

TEST(TinyGguf, LibllamaRunsEveryWeightType) {
  int n_types = 0;
  for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
    const ggml_type weight_type = static_cast<ggml_type>(type);
    if (ggml_blck_size(weight_type) <= 0 || weight_type == GGML_TYPE_Q8_1 || weight_type == GGML_TYPE_Q8_K) continue;
    if (!ggml_is_quantized(weight_type) && weight_type != GGML_TYPE_F32 && weight_type != GGML_TYPE_F16 &&
        weight_type != GGML_TYPE_BF16) {
      continue;
    }
    TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
    options.n_layers = 1;
    options.n_embd = options.n_ff = 256;
    options.head_dim = 64;
    options.weight_type = weight_type;
    ExpectRuns({std::string("llama_") + ggml_type_name(weight_type), options});
    ++n_types;
  }
  EXPECT_GE(n_types, 20);
}

TEST(TinyGguf, TheSameOptionsGiveTheSameFile) {
  const Removed first(TempPath("first")), second(TempPath("second")), other(TempPath("other"));
  TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
  ASSERT_TRUE(WriteTinyGguf(options, first.path).ok());
  ASSERT_TRUE(WriteTinyGguf(options, second.path).ok());
  options.seed = 2;
  ASSERT_TRUE(WriteTinyGguf(options, other.path).ok());
  const auto content = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(content(first.path), content(second.path));
  EXPECT_NE(content(first.path), content(other.path));
}

TEST(TinyGguf, RefusesOptionsThatDoNotFit) {
  TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
  options.weight_type = GGML_TYPE_Q4_K;
  EXPECT_EQ(WriteTinyGguf(options, TempPath("misfit")).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteTinyGguf(TinyModel(TinyFamily::kLlama), "/nonexistent/x").code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace loopserve
