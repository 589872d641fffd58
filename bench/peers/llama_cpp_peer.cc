#include "bench/peers/llama_cpp_peer.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "ggml-cpu.h"
#include "llama.h"
#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/base/format.h"
#include "src/base/temp_dir.h"
#include "src/gguf/ggml_log.h"
#include "src/gguf/gguf_file.h"

namespace loopserve::bench {
namespace {

// Room for the vocabulary and the other metadata of a model file.
constexpr uint64_t kMetadataBytes = uint64_t{128} << 20;

void InitLibrary() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set([](ggml_log_level level, const char* text, void*) { GgmlLogSink(level, text); }, nullptr);
    llama_backend_init();
  });
}

struct ModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
struct ContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};
struct ThreadpoolDeleter {
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};
using ModelPtr = std::unique_ptr<llama_model, ModelDeleter>;

Result<ModelPtr> LoadModel(const std::string& path) {
  InitLibrary();
  GgmlErrorCapture errors;
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  ModelPtr model(llama_model_load_from_file(path.c_str(), params));
  if (!model) {
    const std::string reason = errors.first_error().empty() ? "no reason given" : errors.first_error();
    return Status(StatusCode::kUnsupported, "llama.cpp cannot load " + path + ": " + reason);
  }
  return model;
}

/// Lets the compute threads poll for work while it lives, as they would in a program of llama.cpp's own.
class ThreadsAwake {
 public:
  explicit ThreadsAwake(ggml_threadpool* pool) : pool_(pool) { ggml_threadpool_resume(pool_); }
  ~ThreadsAwake() { ggml_threadpool_pause(pool_); }
  ThreadsAwake(const ThreadsAwake&) = delete;
  ThreadsAwake& operator=(const ThreadsAwake&) = delete;

 private:
  ggml_threadpool* pool_;
};

}  // namespace

struct LlamaCppPeer::State {
  ModelPtr model;
  std::unique_ptr<ggml_threadpool, ThreadpoolDeleter> threads;
  std::unique_ptr<llama_context, ContextDeleter> context;  // uses the two above: goes first
  std::vector<Token> held;
  bool has_logits = false;  // of the last held token
  int batch_rows = 0;
  const std::atomic<bool>* cancel = nullptr;
};

LlamaCppPeer::LlamaCppPeer(std::unique_ptr<State> state) : state_(std::move(state)) {}
LlamaCppPeer::~LlamaCppPeer() = default;

Result<std::unique_ptr<LlamaCppPeer>> LlamaCppPeer::Open(const LlamaCppOptions& options) {
  if (options.threads < 1 || options.batch_rows < 1 || options.context_tokens < 0) {
    return Status(StatusCode::kInvalidArgument, "llama.cpp: threads and batch rows must be positive");
  }
  auto state = std::make_unique<State>();
  LS_ASSIGN_OR_RETURN(state->model, LoadModel(options.model_path));
  state->batch_rows = options.batch_rows;
  state->cancel = options.cancel;

  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(options.context_tokens);
  params.n_batch = static_cast<uint32_t>(options.batch_rows);
  params.n_ubatch = static_cast<uint32_t>(options.batch_rows);
  params.n_threads = options.threads;
  params.n_threads_batch = options.threads;
  params.flash_attn_type = options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.swa_full = false;  // sliding-window layers keep their window only: less to read for each token
  GgmlErrorCapture errors;
  state->context.reset(llama_init_from_model(state->model.get(), params));
  if (!state->context) {
    return Status(StatusCode::kUnsupported, "llama.cpp cannot make a context: " + errors.first_error());
  }
  ggml_threadpool_params pool_params = ggml_threadpool_params_default(options.threads);
  pool_params.paused = true;
  state->threads.reset(ggml_threadpool_new(&pool_params));
  if (!state->threads) return Status(StatusCode::kResourceExhausted, "llama.cpp cannot start its threads");
  llama_attach_threadpool(state->context.get(), state->threads.get(), state->threads.get());
  return std::unique_ptr<LlamaCppPeer>(new LlamaCppPeer(std::move(state)));
}

int LlamaCppPeer::n_vocab() const { return llama_vocab_n_tokens(llama_model_get_vocab(state_->model.get())); }
int64_t LlamaCppPeer::n_parameters() const { return static_cast<int64_t>(llama_model_n_params(state_->model.get())); }
int64_t LlamaCppPeer::context_tokens() const { return llama_n_ctx(state_->context.get()); }
bool LlamaCppPeer::can_rewind() const { return llama_model_n_swa(state_->model.get()) == 0; }

Status LlamaCppPeer::Sync(std::span<const Token> tokens, const LogitsCallback& on_logits) {
  if (tokens.empty()) return Status(StatusCode::kInvalidArgument, "llama.cpp: an empty prompt");
  if (std::cmp_greater(tokens.size(), context_tokens())) {
    return Status(StatusCode::kContextLength, "llama.cpp: " + std::to_string(tokens.size()) +
                                                  " tokens, but a context of " + std::to_string(context_tokens()));
  }
  if (std::any_of(tokens.begin(), tokens.end(), [&](Token t) { return t < 0 || t >= n_vocab(); })) {
    return Status(StatusCode::kInvalidArgument, "llama.cpp: a token outside the vocabulary");
  }
  std::vector<Token>& held = state_->held;
  size_t kept =
      static_cast<size_t>(std::mismatch(tokens.begin(), tokens.end(), held.begin(), held.end()).first - tokens.begin());
  if (kept == tokens.size()) kept -= (kept == held.size() && state_->has_logits) ? 0 : 1;
  if (kept < held.size()) {
    llama_memory_t memory = llama_get_memory(state_->context.get());
    if (!can_rewind()) kept = 0;
    if (kept == 0) {
      llama_memory_clear(memory, false);
    } else {
      LS_CHECK(llama_memory_seq_rm(memory, 0, static_cast<llama_pos>(kept), -1));
    }
    held.resize(kept);
  }
  if (kept == tokens.size()) return Status::Ok();
  return Decode(tokens.subspan(kept), static_cast<int64_t>(kept), static_cast<bool>(on_logits), on_logits);
}

Status LlamaCppPeer::Decode(std::span<const Token> tokens, int64_t position, bool all_logits,
                            const LogitsCallback& on_logits) {
  ThreadsAwake awake(state_->threads.get());
  llama_batch batch = llama_batch_init(state_->batch_rows, 0, 1);
  std::unique_ptr<llama_batch, void (*)(llama_batch*)> guard(&batch, [](llama_batch* b) { llama_batch_free(*b); });
  state_->has_logits = false;
  const auto batch_rows = static_cast<size_t>(state_->batch_rows);
  for (size_t begin = 0; begin < tokens.size(); begin += batch_rows) {
    if (state_->cancel != nullptr && state_->cancel->load()) return Status(StatusCode::kCancelled, "interrupted");
    const size_t rows = std::min(batch_rows, tokens.size() - begin);
    batch.n_tokens = static_cast<int32_t>(rows);
    for (size_t i = 0; i < rows; ++i) {
      batch.token[i] = tokens[begin + i];
      batch.pos[i] = static_cast<llama_pos>(position + static_cast<int64_t>(begin + i));
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = all_logits || begin + i + 1 == tokens.size();
    }
    if (const int32_t code = llama_decode(state_->context.get(), batch); code != 0) {
      Clear();
      return Status(StatusCode::kInternal, "llama.cpp: llama_decode returned " + std::to_string(code));
    }
    state_->held.insert(state_->held.end(), tokens.begin() + begin, tokens.begin() + begin + rows);
    for (size_t i = 0; on_logits && i < rows; ++i) {
      const float* row = llama_get_logits_ith(state_->context.get(), static_cast<int32_t>(i));
      on_logits(batch.pos[i], {row, static_cast<size_t>(n_vocab())});
    }
  }
  state_->has_logits = true;
  return Status::Ok();
}

Result<LlamaCppGeneration> LlamaCppPeer::Generate(int n_tokens) {
  LS_CHECK(state_->has_logits && n_tokens >= 1);
  ThreadsAwake awake(state_->threads.get());
  LlamaCppGeneration generation;
  const auto start = Clock::now();
  llama_context* context = state_->context.get();
  for (int i = 0; i < n_tokens; ++i) {
    const float* logits = llama_get_logits_ith(context, -1);
    Token token = static_cast<Token>(std::max_element(logits, logits + n_vocab()) - logits);
    generation.tokens.push_back(token);
    if (i == 0) generation.first_token_ms = MillisecondsSince(start);
    if (i + 1 == n_tokens) break;
    state_->has_logits = false;
    if (const int32_t code = llama_decode(context, llama_batch_get_one(&token, 1)); code != 0) {
      return Status(code == 1 ? StatusCode::kContextLength : StatusCode::kInternal,
                    "llama.cpp: llama_decode returned " + std::to_string(code));
    }
    state_->held.push_back(token);
    state_->has_logits = true;
  }
  if (n_tokens > 1) generation.tpot_ms = (MillisecondsSince(start) - generation.first_token_ms) / (n_tokens - 1);
  return generation;
}

void LlamaCppPeer::Clear() {
  llama_memory_clear(llama_get_memory(state_->context.get()), false);
  state_->held.clear();
  state_->has_logits = false;
}

Status LlamaCppPeer::SaveState(const std::filesystem::path& path) const {
  if (llama_state_seq_save_file(state_->context.get(), path.c_str(), 0, state_->held.data(), state_->held.size()) ==
      0) {
    return Status(StatusCode::kIoError, "llama.cpp cannot write its state to " + path.string());
  }
  return Status::Ok();
}

Status LlamaCppPeer::LoadState(const std::filesystem::path& path) {
  Clear();
  std::vector<Token> tokens(static_cast<size_t>(context_tokens()));
  size_t count = 0;
  if (llama_state_seq_load_file(state_->context.get(), path.c_str(), 0, tokens.data(), tokens.size(), &count) == 0) {
    return Status(StatusCode::kIoError, "llama.cpp cannot read its state from " + path.string());
  }
  tokens.resize(count);
  state_->held = std::move(tokens);
  return Status::Ok();
}

Result<std::unique_ptr<LlamaCppPeer>> OpenDequantized(const LlamaCppOptions& options,
                                                      const std::filesystem::path& scratch) {
  LS_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(options.model_path));
  uint64_t needed = kMetadataBytes;
  for (const ggml_tensor* tensor : file->tensors())
    needed += sizeof(float) * static_cast<uint64_t>(ggml_nelements(tensor));
  LS_ASSIGN_OR_RETURN(TempDir folder, TempDir::In(scratch));
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder.path(), error);
  if (!error && space.available < needed) {
    return Status(StatusCode::kResourceExhausted,
                  "the exact reference needs " + FormatBytes(needed) + " in " + scratch.string() +
                      " for a while, and " + FormatBytes(space.available) +
                      " are free; free some room, or use llama.cpp:arithmetic=quantized");
  }
  const std::string path = (folder.path() / "f32.gguf").string();
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.nthread = options.threads;
  params.ftype = LLAMA_FTYPE_ALL_F32;
  params.allow_requantize = true;
  GgmlErrorCapture errors;
  if (llama_model_quantize(options.model_path.c_str(), path.c_str(), &params) != 0) {
    return Status(StatusCode::kUnsupported,
                  "llama.cpp cannot dequantise " + options.model_path + ": " + errors.first_error());
  }
  LlamaCppOptions exact = options;
  exact.model_path = path;
  return LlamaCppPeer::Open(exact);
}

}  // namespace loopserve::bench
