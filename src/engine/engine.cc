#include <algorithm>
#include <string>
#include <utility>

#include "ggml.h"
#include "src/base/machine_limits.h"
#include "src/engine/engine_impl.h"
#include "src/engine/session_impl.h"
#include "src/gguf/fingerprint.h"

namespace loopserve {
namespace {

constexpr int kMaxThreads = 512;

/// Count it up with every change after which the same tokens give other keys and values, queries, codes or logits by
/// more than the order of sums, or after which a policy's specification means other settings: stored sessions of before
/// are then read again from their text.
constexpr uint32_t kArithmetic = 1;

Status Validate(const EngineOptions& options) {
  if (options.model_path.empty()) return Status(StatusCode::kInvalidArgument, "no model was given");
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return Status(StatusCode::kInvalidArgument, "threads must be 0 (all cores) to " + std::to_string(kMaxThreads) +
                                                    ", not " + std::to_string(options.threads));
  }
  if (options.max_context_tokens < 0) {
    return Status(StatusCode::kInvalidArgument, "the context must be 0 (the model's own) or more tokens, not " +
                                                    std::to_string(options.max_context_tokens));
  }
  return Status::Ok();
}

std::string BillionsText(int64_t n) {
  std::string text = std::to_string(n / 1'000'000'000) + "." + std::to_string(n / 10'000'000 % 100 + 100).substr(1);
  return n >= 1'000'000'000 ? text + "B" : std::to_string(n / 1'000'000) + "M";
}

}  // namespace

Result<std::shared_ptr<EngineImpl>> EngineImpl::Open(const EngineOptions& options) {
  LS_RETURN_IF_ERROR(Validate(options));
  std::shared_ptr<EngineImpl> engine(new EngineImpl);
  if (const Status status = engine->Load(options); !status.ok()) return status.WithContext(options.model_path);
  engine->Describe(options);
  return engine;
}

Status EngineImpl::Load(const EngineOptions& options) {
  LS_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, GgufFile::Open(options.model_path));
  LS_ASSIGN_OR_RETURN(model_, Model::Load(std::move(file)));
  LS_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Load(model_->file()));
  const HyperParams& p = model_->params();
  if (tokenizer_->n_vocab() > p.n_vocab) {
    return Status(StatusCode::kCorruptData, "the tokenizer has " + std::to_string(tokenizer_->n_vocab()) +
                                                " tokens, but there are embeddings for " + std::to_string(p.n_vocab));
  }
  kv_layout_.n_layers = p.n_layers;
  kv_layout_.n_kv_heads = p.n_kv_heads;
  kv_layout_.head_dim = p.head_dim;
  kv_layout_.type = options.kv_precision == KvPrecision::kQ8_0 ? KvType::kQ8_0 : KvType::kF16;
  LS_RETURN_IF_ERROR(kv_layout_.Validate());
  kv_budget_ = std::make_shared<KvBudget>(options.kv_budget_bytes);
  LS_ASSIGN_OR_RETURN(
      threads_, ComputeThreads::Create(options.threads > 0 ? options.threads : std::min(UsableCores(), kMaxThreads)));
  LS_ASSIGN_OR_RETURN(forward_, Forward::Create(*model_, *threads_, {options.linear_path, options.weight_cache_bytes}));
  return Status::Ok();
}

void EngineImpl::Describe(const EngineOptions& options) {
  const HyperParams& p = model_->params();
  info_.family = p.family;
  const auto name = model_->file().FindString("general.name");
  info_.name = name.ok() && *name ? **name : p.family;
  info_.n_parameters = model_->n_parameters();
  info_.description = info_.name + ", " + BillionsText(model_->n_parameters()) + " parameters, " +
                      ggml_type_name(model_->layer(0).w_gate->type);
  info_.file_bytes = model_->file().file_bytes();
  info_.context_tokens =
      options.max_context_tokens > 0 ? std::min(options.max_context_tokens, p.context_tokens) : p.context_tokens;
  info_.n_layers = p.n_layers;
  info_.n_heads = p.n_heads;
  info_.n_kv_heads = p.n_kv_heads;
  info_.head_dim = p.head_dim;
  info_.n_vocab = p.n_vocab;
  for (int layer = 0; layer < p.n_layers; ++layer) info_.layer_windows.push_back(p.window(layer));
  info_.kv_bytes_per_token = kv_layout_.token_bytes();
  info_.has_chat_template = tokenizer_->has_chat_template();
  info_.linear_path = forward_->linear_path();
  info_.threads = threads_->n_threads();
  info_.n_layer_parameters = model_->n_layer_parameters();
}

const SnapshotKey& EngineImpl::snapshot_key() const {
  std::call_once(snapshot_key_made_, [&] {
    const HyperParams& p = params();
    snapshot_key_.model = ModelFingerprint(model_->file());
    snapshot_key_.tokenizer = TokenizerFingerprint(model_->file());
    snapshot_key_.kv_type = static_cast<uint32_t>(kv_layout_.type);
    snapshot_key_.linear_path = static_cast<uint32_t>(info_.linear_path);
    snapshot_key_.arithmetic = kArithmetic;
    snapshot_key_.n_layers = static_cast<uint32_t>(p.n_layers);
    snapshot_key_.n_kv_heads = static_cast<uint32_t>(p.n_kv_heads);
    snapshot_key_.head_dim = static_cast<uint32_t>(p.head_dim);
    snapshot_key_.n_heads = static_cast<uint32_t>(p.n_heads);
    snapshot_key_.n_vocab = static_cast<uint32_t>(p.n_vocab);
    snapshot_key_.block_tokens = static_cast<uint32_t>(kv_layout_.block_tokens);
  });
  return snapshot_key_;
}

Engine::Engine(std::shared_ptr<EngineImpl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::shared_ptr<Engine>> Engine::Open(const EngineOptions& options) {
  LS_ASSIGN_OR_RETURN(std::shared_ptr<EngineImpl> impl, EngineImpl::Open(options));
  return std::make_shared<Engine>(std::move(impl));
}

const ModelInfo& Engine::model() const { return impl_->info(); }

size_t Engine::kv_used_bytes() const { return impl_->kv_budget()->used_bytes(); }
size_t Engine::kv_block_bytes() const { return impl_->kv_layout().block_bytes(); }

size_t Engine::kv_bytes_for(const Policy& policy, int64_t n_tokens) const {
  const KvLayout& layout = impl_->kv_layout();
  const auto n_blocks = static_cast<size_t>((n_tokens + layout.block_tokens - 1) / layout.block_tokens);
  return n_blocks * layout.block_bytes() + BytesBeside(policy, impl_->params(), layout, n_tokens);
}

Session Engine::NewSession(const Policy& policy) const { return Session(std::make_unique<SessionImpl>(impl_, policy)); }

Result<Session> Engine::NewSharedPrefill(std::span<const Policy> policies) const {
  if (policies.empty()) return Status(StatusCode::kInvalidArgument, "a shared prefill needs a policy");
  int noted_queries = 0;
  for (const Policy& policy : policies) {
    if (!policy.SharesPrefill(policies.front())) {
      return Status(StatusCode::kInvalidArgument,
                    "the prefills of " + policies.front().ToString() + " and " + policy.ToString() + " differ");
    }
    noted_queries = std::max(noted_queries, NotedQueries(policy));
  }
  return Session(std::make_unique<SessionImpl>(impl_, policies.front().PrefillAlone(), noted_queries));
}

Result<std::vector<Token>> Engine::Tokenize(std::string_view text, bool add_special, bool parse_special) const {
  return impl_->tokenizer().Encode(text, add_special, parse_special);
}

std::string Engine::Detokenize(std::span<const Token> tokens, bool show_special) const {
  return impl_->tokenizer().Decode(tokens, show_special);
}

bool Engine::IsEndOfText(Token token) const { return impl_->tokenizer().IsEndOfText(token); }

Result<RenderedPrompt> Engine::Render(const ChatInput& input) const { return impl_->tokenizer().Render(input); }

const ToolCallForm* Engine::tool_call_form() const { return impl_->tokenizer().tool_call_form(); }

Status Engine::CheckForm(const AnswerForm& form) const {
  return impl_->tokenizer().NewMatcher(form.grammar, form.control_texts).status();
}

Result<std::vector<Token>> Engine::RenderChat(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                              std::span<const Token> held) const {
  return impl_->tokenizer().RenderChat(messages, add_generation_prompt, held);
}

}  // namespace loopserve
