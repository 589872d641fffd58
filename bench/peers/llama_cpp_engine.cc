#include "bench/peers/llama_cpp_engine.h"

#include <chrono>
#include <filesystem>
#include <optional>
#include <utility>

#include "bench/peers/llama_cpp_peer.h"
#include "bench/process_memory.h"
#include "src/base/temp_dir.h"

namespace loopserve::bench {
namespace {

constexpr int kWarmUpTokens = 64;

class LlamaCppEngine : public MeasuredEngine {
 public:
  explicit LlamaCppEngine(std::unique_ptr<LlamaCppPeer> peer) : peer_(std::move(peer)) {}

  Status WarmUp() {
    const std::vector<Token> prompt(kWarmUpTokens, 1);
    LS_RETURN_IF_ERROR(peer_->Sync(prompt));
    return peer_->Generate(2).status();
  }

  Status Prepare(std::span<const Token> context) override {
    ResetPeakRss();
    context_.assign(context.begin(), context.end());
    if (context.empty()) return Status::Ok();
    LS_RETURN_IF_ERROR(peer_->Sync(context));
    if (peer_->can_rewind()) return Status::Ok();
    // Sliding-window layers overwrite what a later run would start from, so the state goes to a file and comes back.
    std::error_code error;
    if (!folder_) {
      LS_ASSIGN_OR_RETURN(TempDir folder, TempDir::In(std::filesystem::temp_directory_path(error)));
      folder_.emplace(std::move(folder));
    }
    return peer_->SaveState(folder_->path() / "context");
  }

  Result<RunFigures> Run(std::span<const Token> prompt, int gen_tokens) override {
    LS_RETURN_IF_ERROR(BackToContext());
    RunFigures figures;
    const auto start = std::chrono::steady_clock::now();
    LS_RETURN_IF_ERROR(peer_->Sync(prompt));
    const std::chrono::duration<double, std::milli> prefill = std::chrono::steady_clock::now() - start;
    LS_ASSIGN_OR_RETURN(LlamaCppGeneration generation, peer_->Generate(gen_tokens));
    figures.ttft_ms = prefill.count() + generation.first_token_ms;
    if (gen_tokens > 1) figures.tpot_ms = generation.tpot_ms;
    figures.output = std::move(generation.tokens);
    figures.peak_rss_bytes = PeakRssBytes();
    return figures;
  }

 private:
  Status BackToContext() {
    if (context_.empty()) {
      peer_->Clear();
      return Status::Ok();
    }
    return peer_->can_rewind() ? Status::Ok() : peer_->LoadState(folder_->path() / "context");
  }

  std::unique_ptr<LlamaCppPeer> peer_;
  std::vector<Token> context_;
  std::optional<TempDir> folder_;
};

}  // namespace

Result<std::unique_ptr<MeasuredEngine>> MakeLlamaCppEngine(const EngineSpec& spec) {
  if (spec.policy != "flash_attention" && spec.policy != "no_flash_attention") {
    return Status(StatusCode::kInvalidArgument,
                  "llama.cpp: unknown policy '" + spec.policy + "': use flash_attention or no_flash_attention");
  }
  if (!spec.kv.empty() && spec.kv != "f16") {
    return Status(StatusCode::kInvalidArgument, "llama.cpp is measured with its default KV precision, f16");
  }
  LlamaCppOptions options;
  options.model_path = spec.model_path;
  options.threads = spec.threads;
  options.context_tokens = spec.max_tokens;
  options.flash_attention = spec.policy == "flash_attention";
  LS_ASSIGN_OR_RETURN(auto peer, LlamaCppPeer::Open(options));
  auto engine = std::make_unique<LlamaCppEngine>(std::move(peer));
  LS_RETURN_IF_ERROR(engine->WarmUp());
  return std::unique_ptr<MeasuredEngine>(std::move(engine));
}

}  // namespace loopserve::bench
