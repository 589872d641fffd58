// Writes tiny models with random weights and a small but complete tokenizer, in every family and variant that loopserve
// runs, so that tests need no downloaded model. libllama loads and runs them too: it is the reference in parity tests.
// Weights are scaled so that activations keep their size from layer to layer and the next token is neither certain nor
// a matter of chance. The same options give the same file, byte for byte.
// Thread rule: pure functions. Errors are values, so that a test can show what went wrong.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ggml.h"
#include "loopserve/status.h"

namespace loopserve {

enum class TinyFamily { kLlama, kMistral, kQwen2, kQwen3, kGemma3 };
/// kLlama3: per-dimension factors in rope_freqs.weight. kLinear, kYarn: rope.scaling.* keys, factor 4.
enum class TinyRopeScaling { kNone, kLlama3, kLinear, kYarn };
/// kFamilyDefault: SPM for Mistral and Gemma 3, BPE for the others.
enum class TinyTokenizer { kFamilyDefault, kBpe, kSpm };

struct TinyGgufOptions {
  TinyFamily family = TinyFamily::kLlama;
  TinyRopeScaling rope_scaling = TinyRopeScaling::kNone;
  TinyTokenizer tokenizer = TinyTokenizer::kFamilyDefault;
  int n_layers = 2;
  int n_embd = 64;
  int n_heads = 4;
  int n_kv_heads = 2;
  int head_dim = 16;
  int n_ff = 128;
  int context_tokens = 8192;
  int sliding_window = 32;      ///< Gemma 3: keys that a local layer sees
  bool tied_embeddings = true;  ///< no output.weight of its own
  bool qkv_bias = false;        ///< Qwen2 always has it
  bool output_bias = false;     ///< a bias on the attention's output
  float final_softcap = 0;      ///< Gemma 3 only; 0 = off
  /// Of all matrices; norms and biases are f32. Rows must be multiples of the type's block: 256 for k-quants.
  ggml_type weight_type = GGML_TYPE_F32;
  uint64_t seed = 1;
  std::string chat_template;  ///< empty: the file has none
};

/// Options that show what is special about a family: GQA, a head_dim that is not n_embd / n_heads, separate output
/// weights, local and global layers.
TinyGgufOptions TinyModel(TinyFamily family);

/// Every family and variant, each with a name for the test's output.
struct NamedTinyModel {
  std::string name;
  TinyGgufOptions options;
};
std::vector<NamedTinyModel> AllTinyModels();

/// Errors: kInvalidArgument (options that do not fit together), kIoError.
Status WriteTinyGguf(const TinyGgufOptions& options, const std::string& path);

}  // namespace loopserve
