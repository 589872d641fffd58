// Our forward pass against libllama's on tiny random models of every family and variant.
//
// With f32 weights both sides compute the same function with f32 sums and f16 KV: what is left is rounding. libllama's
// quantised path also rounds activations to 8 bits, so quantised files are compared at the precision that each path
// has.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "loopserve/engine.h"
#include "tests/support/reference_model.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

/// Rows: past several KV blocks' worth of prefill pieces and the tiny sliding window, with a remainder everywhere.
constexpr int kTokens = 331;

class TinyFile {
 public:
  explicit TinyFile(const TinyGgufOptions& options) {
    path_ = (std::filesystem::path(testing::TempDir()) /
             ("parity_" + std::to_string(getpid()) + "_" + std::to_string(counter_++) + ".gguf"))
                .string();
    const Status status = WriteTinyGguf(options, path_);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  ~TinyFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  static inline int counter_ = 0;
  std::string path_;
};

std::vector<Token> RandomTokens(int n, int n_vocab) {
  std::mt19937 random(3);
  std::vector<Token> tokens(static_cast<size_t>(n));
  for (Token& token : tokens) token = static_cast<Token>(random() % static_cast<unsigned>(n_vocab));
  return tokens;
}

std::vector<float> OurLogits(const std::string& path, LinearPath linear_path, const std::vector<Token>& tokens,
                             KvPrecision kv = KvPrecision::kF16) {
  EngineOptions options;
  options.model_path = path;
  options.threads = 2;
  options.linear_path = linear_path;
  options.kv_precision = kv;
  const auto engine = Engine::Open(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  if (!engine.ok()) return {};
  Session session = (*engine)->NewSession();
  std::vector<float> logits;
  const auto stats = session.Sync(tokens, {}, [&](int64_t position, std::span<const float> row) {
    EXPECT_EQ(position, static_cast<int64_t>(logits.size() / row.size()));
    logits.insert(logits.end(), row.begin(), row.end());
  });
  EXPECT_TRUE(stats.ok()) << stats.status().message();
  return logits;
}

/// Whether this build and this CPU have the path, asked of an engine on a tiny file.
bool IsAvailable(LinearPath path) {
  const TinyFile file(TinyModel(TinyFamily::kLlama));
  EngineOptions options;
  options.model_path = file.path();
  options.threads = 1;
  options.linear_path = path;
  return Engine::Open(options).status().code() != StatusCode::kUnsupported;
}

LogitsDifference CompareWithLibllama(const TinyGgufOptions& options, LinearPath linear_path) {
  const TinyFile file(options);
  const auto reference = ReferenceModel::Load(file.path());
  EXPECT_NE(reference, nullptr);
  if (reference == nullptr) return {1, 1, 0, 1};
  const std::vector<Token> tokens = RandomTokens(kTokens, reference->n_vocab());
  const std::vector<float> expected = reference->Logits(tokens);
  const std::vector<float> actual = OurLogits(file.path(), linear_path, tokens);
  EXPECT_EQ(expected.size(), actual.size());
  EXPECT_EQ(actual.size(), static_cast<size_t>(kTokens) * static_cast<size_t>(reference->n_vocab()));
  if (expected.size() != actual.size()) return {1, 1, 0, 1};
  return CompareLogits(expected, actual, reference->n_vocab());
}

class EveryFamily : public testing::TestWithParam<NamedTinyModel> {};

TEST_P(EveryFamily, F32WeightsGiveLibllamasLogits) {
  for (const LinearPath path : {LinearPath::kQuantized, LinearPath::kF32}) {
    if (!IsAvailable(path)) continue;
    SCOPED_TRACE(path == LinearPath::kF32 ? "packed" : "stored");
    const LogitsDifference difference = CompareWithLibllama(GetParam().options, path);
    EXPECT_LE(difference.mean_kl, 1e-5);
    EXPECT_GE(difference.top1_agreement, 0.99);
  }
}

TEST_P(EveryFamily, Bf16ProductsStayNearLibllama) {
  if (!IsAvailable(LinearPath::kBf16)) GTEST_SKIP() << "this CPU does not multiply bf16 natively";
  const LogitsDifference difference = CompareWithLibllama(GetParam().options, LinearPath::kBf16);
  // Operands carry 8 bits of mantissa (relative error 2^-9). The random models' distributions are flat, so that the two
  // likeliest tokens are often nearly equal: KL is the measure, top-1 a guard against gross errors.
  EXPECT_LE(difference.mean_kl, 1e-3);
  EXPECT_GE(difference.top1_agreement, 0.93);
}

TEST_P(EveryFamily, Int8ProductsStayNearLibllama) {
  if (!IsAvailable(LinearPath::kInt8)) GTEST_SKIP() << "this CPU does not multiply 8-bit integers natively";
  const LogitsDifference difference = CompareWithLibllama(GetParam().options, LinearPath::kInt8);
  // Weights of an f32 file are rounded to 8 bits in groups of 32 here, and activations too: as q8_0 with libllama.
  EXPECT_LE(difference.mean_kl, 1e-2);
  EXPECT_GE(difference.top1_agreement, 0.85);
  EXPECT_GT(difference.max_abs, 1e-6) << "8 bits round: equal logits mean that the option does nothing";
}

INSTANTIATE_TEST_SUITE_P(Tiny, EveryFamily, testing::ValuesIn(AllTinyModels()),
                         [](const auto& test) { return test.param.name; });

/// Every stored type: the f32 path on the quantised file must equal it on the same weights, dequantised by libllama's
/// own arithmetic up to its activation rounding.
class EveryType : public testing::TestWithParam<ggml_type> {};

TEST_P(EveryType, QuantisedWeightsAgreeWithLibllama) {
  TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
  options.n_embd = 256;
  options.n_ff = 512;
  options.n_heads = 4;
  options.head_dim = 64;
  options.weight_type = GetParam();
  for (const LinearPath path : {LinearPath::kQuantized, LinearPath::kAuto, LinearPath::kInt8}) {
    if (!IsAvailable(path)) continue;
    SCOPED_TRACE(path == LinearPath::kQuantized ? "stored" : path == LinearPath::kAuto ? "packed" : "packed in 8 bits");
    const LogitsDifference difference = CompareWithLibllama(options, path);
    // 8-bit activations (one part in 254 of a block's largest) on the reference's side; in 8 bits ours too, and
    // weights.
    EXPECT_LE(difference.mean_kl, path == LinearPath::kInt8 ? 3e-2 : 1e-2);
    EXPECT_GE(difference.top1_agreement, 0.85);
  }
}

std::vector<ggml_type> StoredTypes() {
  return {GGML_TYPE_F16,     GGML_TYPE_BF16,   GGML_TYPE_Q4_0,    GGML_TYPE_Q4_1,  GGML_TYPE_Q5_0,  GGML_TYPE_Q5_1,
          GGML_TYPE_Q8_0,    GGML_TYPE_Q2_K,   GGML_TYPE_Q3_K,    GGML_TYPE_Q4_K,  GGML_TYPE_Q5_K,  GGML_TYPE_Q6_K,
          GGML_TYPE_IQ4_NL,  GGML_TYPE_IQ4_XS, GGML_TYPE_IQ3_XXS, GGML_TYPE_IQ3_S, GGML_TYPE_IQ2_S, GGML_TYPE_IQ2_XS,
          GGML_TYPE_IQ2_XXS, GGML_TYPE_IQ1_S,  GGML_TYPE_IQ1_M,   GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0, GGML_TYPE_MXFP4};
}

INSTANTIATE_TEST_SUITE_P(Tiny, EveryType, testing::ValuesIn(StoredTypes()),
                         [](const auto& test) { return std::string(ggml_type_name(test.param)); });

TEST(KvPrecisionTest, Q8KeysAndValuesStayNearF16) {
  TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
  options.head_dim = 32;
  const TinyFile file(options);
  const auto reference = ReferenceModel::Load(file.path());
  ASSERT_NE(reference, nullptr);
  const std::vector<Token> tokens = RandomTokens(kTokens, reference->n_vocab());
  const std::vector<float> f16 = OurLogits(file.path(), LinearPath::kQuantized, tokens);
  const std::vector<float> q8 = OurLogits(file.path(), LinearPath::kQuantized, tokens, KvPrecision::kQ8_0);
  const LogitsDifference difference = CompareLogits(f16, q8, reference->n_vocab());
  EXPECT_LE(difference.mean_kl, 5e-3);
  EXPECT_GT(difference.max_abs, 0) << "q8_0 rounds: equal logits mean that the option does nothing";
}

}  // namespace
}  // namespace loopserve
