#include "tests/support/tiny_gguf.h"

#include <cmath>
#include <memory>
#include <numbers>
#include <random>

#include "gguf.h"
#include "tests/support/tiny_vocab.h"

namespace loopserve {
namespace {

constexpr float kRopeFactor = 4.0f;
constexpr float kLogitScale = 2.5f;  // standard deviation of the logits

struct GgmlDeleter {
  void operator()(ggml_context* context) const { ggml_free(context); }
};
struct GgufDeleter {
  void operator()(gguf_context* context) const { gguf_free(context); }
};

const char* Architecture(TinyFamily family) {
  switch (family) {
    case TinyFamily::kQwen2:
      return "qwen2";
    case TinyFamily::kQwen3:
      return "qwen3";
    case TinyFamily::kGemma3:
      return "gemma3";
    default:
      return "llama";
  }
}

class Writer {
 public:
  explicit Writer(const TinyGgufOptions& options)
      : options_(options), arch_(Architecture(options.family)), random_(options.seed), gguf_(gguf_init_empty()) {
    // Descriptions only: the numbers are kept in data_.
    ggml_.reset(ggml_init({/*.mem_size=*/ggml_tensor_overhead() * static_cast<size_t>(16 + 32 * options.n_layers),
                           /*.mem_buffer=*/nullptr, /*.no_alloc=*/true}));
  }

  Status Write(const std::string& path) {
    LS_RETURN_IF_ERROR(CheckOptions());
    SetKeys();
    AddGlobalTensors();
    for (int layer = 0; layer < options_.n_layers; ++layer) AddLayer(layer);
    if (!gguf_write_to_file(gguf_.get(), path.c_str(), /*only_meta=*/false)) {
      return Status(StatusCode::kIoError, "cannot write " + path);
    }
    return Status::Ok();
  }

 private:
  bool gemma() const { return options_.family == TinyFamily::kGemma3; }
  int q_width() const { return options_.n_heads * options_.head_dim; }
  int kv_width() const { return options_.n_kv_heads * options_.head_dim; }

  Status CheckOptions() const {
    const int64_t block = ggml_blck_size(options_.weight_type);
    if (block <= 0 || options_.n_embd % block != 0 || q_width() % block != 0 || options_.n_ff % block != 0) {
      return Status(StatusCode::kInvalidArgument, "tiny model: rows are not multiples of the weight type's block");
    }
    if (options_.n_kv_heads <= 0 || options_.n_heads % options_.n_kv_heads != 0 || options_.head_dim % 2 != 0) {
      return Status(StatusCode::kInvalidArgument, "tiny model: impossible heads");
    }
    // libllama takes n_embd for the width of Qwen2's queries.
    if (options_.family == TinyFamily::kQwen2 && q_width() != options_.n_embd) {
      return Status(StatusCode::kInvalidArgument, "tiny model: Qwen2 needs head_dim = n_embd / n_heads");
    }
    return Status::Ok();
  }

  std::string Key(const std::string& name) const { return arch_ + "." + name; }
  void SetUint(const std::string& name, int value) {
    gguf_set_val_u32(gguf_.get(), Key(name).c_str(), static_cast<uint32_t>(value));
  }
  void SetFloat(const std::string& name, float value) { gguf_set_val_f32(gguf_.get(), Key(name).c_str(), value); }

  void SetKeys() {
    gguf_set_val_str(gguf_.get(), "general.architecture", arch_.c_str());
    gguf_set_val_str(gguf_.get(), "general.name", "tiny random model");
    SetUint("context_length", options_.context_tokens);
    SetUint("embedding_length", options_.n_embd);
    SetUint("block_count", options_.n_layers);
    SetUint("feed_forward_length", options_.n_ff);
    SetUint("attention.head_count", options_.n_heads);
    SetUint("attention.head_count_kv", options_.n_kv_heads);
    SetFloat("attention.layer_norm_rms_epsilon", 1e-5f);
    SetUint("attention.key_length", options_.head_dim);
    SetUint("attention.value_length", options_.head_dim);
    SetUint("rope.dimension_count", options_.head_dim);
    SetFloat("rope.freq_base", gemma() || arch_ != "llama" ? 1e6f : 1e4f);
    if (gemma()) SetUint("attention.sliding_window", options_.sliding_window);
    if (options_.final_softcap > 0) SetFloat("final_logit_softcapping", options_.final_softcap);
    if (options_.rope_scaling == TinyRopeScaling::kLinear || options_.rope_scaling == TinyRopeScaling::kYarn) {
      const bool yarn = options_.rope_scaling == TinyRopeScaling::kYarn;
      gguf_set_val_str(gguf_.get(), Key("rope.scaling.type").c_str(), yarn ? "yarn" : "linear");
      SetFloat("rope.scaling.factor", kRopeFactor);
      if (yarn) SetUint("rope.scaling.original_context_length", options_.context_tokens / 4);
    }
    SetVocab();
    SetUint("vocab_size", n_vocab_);
    if (!options_.chat_template.empty()) {
      gguf_set_val_str(gguf_.get(), "tokenizer.chat_template", options_.chat_template.c_str());
    }
  }

  void SetVocab() {
    const bool spm_family = gemma() || options_.family == TinyFamily::kMistral;
    const bool spm =
        options_.tokenizer == TinyTokenizer::kFamilyDefault ? spm_family : options_.tokenizer == TinyTokenizer::kSpm;
    if (spm) {
      n_vocab_ = WriteTinySpmVocab(gguf_.get(), /*add_space_prefix=*/!gemma());
    } else if (arch_ == "llama") {
      n_vocab_ = WriteTinyBpeVocab(gguf_.get(), "llama-bpe", /*add_bos=*/true);
    } else {
      n_vocab_ = WriteTinyBpeVocab(gguf_.get(), "qwen2", /*add_bos=*/false);
    }
  }

  // Box-Muller, because the standard library's normal distribution differs between libraries.
  float Normal() {
    constexpr double kScale = 1.0 / 9007199254740992.0;  // 2^-53
    const double u = (static_cast<double>(random_() >> 11) + 0.5) * kScale;
    const double v = static_cast<double>(random_() >> 11) * kScale;
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
  }

  /// `values` is f32 [rows, columns]; stored as `type`.
  void AddTensor(const std::string& name, ggml_type type, const std::vector<float>& values, int columns, int rows) {
    ggml_tensor* tensor = rows == 0 ? ggml_new_tensor_1d(ggml_.get(), type, columns)
                                    : ggml_new_tensor_2d(ggml_.get(), type, columns, rows);
    ggml_set_name(tensor, name.c_str());
    data_.emplace_back(ggml_nbytes(tensor));
    const std::vector<float> importance(static_cast<size_t>(columns), 1.0f);
    ggml_quantize_chunk(type, values.data(), data_.back().data(), 0, std::max(rows, 1), columns, importance.data());
    tensor->data = data_.back().data();
    gguf_add_tensor(gguf_.get(), tensor);
  }

  /// A matrix [rows, columns]; `gain` is the size of its output for inputs of size 1.
  void AddMatrix(const std::string& name, int columns, int rows, float gain = 1.0f) {
    const float scale = gain / std::sqrt(static_cast<float>(columns));
    std::vector<float> values(static_cast<size_t>(columns) * static_cast<size_t>(rows));
    for (float& value : values) value = scale * Normal();
    AddTensor(name, options_.weight_type, values, columns, rows);
  }

  void AddVector(const std::string& name, int n, float mean, float deviation) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = mean + deviation * Normal();
    AddTensor(name, GGML_TYPE_F32, values, n, 0);
  }
  void AddNorm(const std::string& name, int n) { AddVector(name, n, 1.0f, 0.1f); }

  /// Llama 3's factors (as transformers computes them): low frequencies are slowed down, high ones kept.
  void AddRopeFactors() {
    const double original = options_.context_tokens / 8.0, low = 1.0, high = 4.0;
    std::vector<float> factors;
    for (int i = 0; i < options_.head_dim / 2; ++i) {
      const double wavelength = 2.0 * std::numbers::pi * std::pow(1e4, 2.0 * i / options_.head_dim);
      const double smooth = (original / wavelength - low) / (high - low);
      if (wavelength < original / high) {
        factors.push_back(1.0f);
      } else if (wavelength > original / low) {
        factors.push_back(kRopeFactor);
      } else {
        factors.push_back(static_cast<float>(1.0 / ((1.0 - smooth) / kRopeFactor + smooth)));
      }
    }
    AddTensor("rope_freqs.weight", GGML_TYPE_F32, factors, options_.head_dim / 2, 0);
  }

  void AddGlobalTensors() {
    AddMatrix("token_embd.weight", options_.n_embd, n_vocab_, options_.tied_embeddings ? kLogitScale : 1.0f);
    AddNorm("output_norm.weight", options_.n_embd);
    if (!options_.tied_embeddings) AddMatrix("output.weight", options_.n_embd, n_vocab_, kLogitScale);
    if (options_.rope_scaling == TinyRopeScaling::kLlama3) AddRopeFactors();
  }

  void AddLayer(int layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const int n_embd = options_.n_embd;
    AddNorm(prefix + "attn_norm.weight", n_embd);
    AddMatrix(prefix + "attn_q.weight", n_embd, q_width(), 1.5f);
    AddMatrix(prefix + "attn_k.weight", n_embd, kv_width(), 1.5f);
    AddMatrix(prefix + "attn_v.weight", n_embd, kv_width(), 2.0f);
    AddMatrix(prefix + "attn_output.weight", q_width(), n_embd);
    if (options_.qkv_bias || options_.family == TinyFamily::kQwen2) {
      AddVector(prefix + "attn_q.bias", q_width(), 0.0f, 0.5f);
      AddVector(prefix + "attn_k.bias", kv_width(), 0.0f, 0.5f);
      AddVector(prefix + "attn_v.bias", kv_width(), 0.0f, 0.5f);
    }
    if (options_.output_bias) AddVector(prefix + "attn_output.bias", n_embd, 0.0f, 0.2f);
    if (gemma() || options_.family == TinyFamily::kQwen3) {
      AddNorm(prefix + "attn_q_norm.weight", options_.head_dim);
      AddNorm(prefix + "attn_k_norm.weight", options_.head_dim);
    }
    if (gemma()) AddNorm(prefix + "post_attention_norm.weight", n_embd);
    AddNorm(prefix + "ffn_norm.weight", n_embd);
    AddMatrix(prefix + "ffn_gate.weight", n_embd, options_.n_ff);
    AddMatrix(prefix + "ffn_up.weight", n_embd, options_.n_ff);
    AddMatrix(prefix + "ffn_down.weight", options_.n_ff, n_embd, 2.0f);
    if (gemma()) AddNorm(prefix + "post_ffw_norm.weight", n_embd);
  }

  const TinyGgufOptions& options_;
  const std::string arch_;
  std::mt19937_64 random_;
  std::unique_ptr<gguf_context, GgufDeleter> gguf_;
  std::unique_ptr<ggml_context, GgmlDeleter> ggml_;
  std::vector<std::vector<uint8_t>> data_;
  int n_vocab_ = 0;
};

}  // namespace

TinyGgufOptions TinyModel(TinyFamily family) {
  TinyGgufOptions options;
  options.family = family;
  switch (family) {
    case TinyFamily::kLlama:
      break;
    case TinyFamily::kMistral:
      options.head_dim = 32;
      options.tied_embeddings = false;
      break;
    case TinyFamily::kQwen2:
      options.tied_embeddings = false;
      break;
    case TinyFamily::kQwen3:
      options.head_dim = 32;
      break;
    case TinyFamily::kGemma3:
      options.n_layers = 8;  // every sixth is global
      options.n_kv_heads = 1;
      options.head_dim = 32;
      break;
  }
  return options;
}

std::vector<NamedTinyModel> AllTinyModels() {
  std::vector<NamedTinyModel> models = {
      {"llama", TinyModel(TinyFamily::kLlama)},   {"mistral", TinyModel(TinyFamily::kMistral)},
      {"qwen2", TinyModel(TinyFamily::kQwen2)},   {"qwen3", TinyModel(TinyFamily::kQwen3)},
      {"gemma3", TinyModel(TinyFamily::kGemma3)},
  };
  const auto add = [&](const char* name, TinyFamily family, auto&& change) {
    TinyGgufOptions options = TinyModel(family);
    change(options);
    models.push_back({name, options});
  };
  add("llama3_rope", TinyFamily::kLlama, [](auto& o) { o.rope_scaling = TinyRopeScaling::kLlama3; });
  add("llama_linear_rope", TinyFamily::kLlama, [](auto& o) { o.rope_scaling = TinyRopeScaling::kLinear; });
  add("llama_yarn_rope", TinyFamily::kLlama, [](auto& o) { o.rope_scaling = TinyRopeScaling::kYarn; });
  add("llama_bias", TinyFamily::kLlama, [](auto& o) { o.qkv_bias = o.output_bias = true; });
  add("llama_untied", TinyFamily::kLlama, [](auto& o) { o.tied_embeddings = false; });
  add("qwen2_yarn_rope", TinyFamily::kQwen2, [](auto& o) { o.rope_scaling = TinyRopeScaling::kYarn; });
  add("qwen2_tied", TinyFamily::kQwen2, [](auto& o) { o.tied_embeddings = true; });
  add("qwen3_untied", TinyFamily::kQwen3, [](auto& o) { o.tied_embeddings = false; });
  add("qwen3_yarn_rope", TinyFamily::kQwen3, [](auto& o) { o.rope_scaling = TinyRopeScaling::kYarn; });
  add("gemma3_linear_rope", TinyFamily::kGemma3, [](auto& o) { o.rope_scaling = TinyRopeScaling::kLinear; });
  add("gemma3_softcap", TinyFamily::kGemma3, [](auto& o) { o.final_softcap = 10.0f; });
  return models;
}

Status WriteTinyGguf(const TinyGgufOptions& options, const std::string& path) { return Writer(options).Write(path); }

}  // namespace loopserve
