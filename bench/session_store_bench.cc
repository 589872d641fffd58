// What it costs to store a dialogue and to go on with it: milliseconds and megabytes of a first save, of saves after
// turns of 200 tokens, and of restoring it to its first token, beside reading it from nothing.
// usage: session_store_bench MODEL.gguf FOLDER [TOKENS [POLICY]]; FOLDER must be empty and is left so.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "loopserve/session_store.h"

namespace loopserve {
namespace {

constexpr int kRounds = 5;
constexpr int kTurns = 4;
constexpr int kTurnTokens = 100;  // of its input, and of its answer

double NowMs() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Computes new tokens and the first of an answer; the time at which that is known.
Result<double> FirstToken(Session& session, const std::vector<Token>& tokens, int answer_tokens) {
  LS_RETURN_IF_ERROR(session.Sync(tokens).status());
  SamplingParams params;
  params.max_tokens = answer_tokens;
  params.ignore_end_of_text = true;
  const double before_ms = NowMs();
  LS_ASSIGN_OR_RETURN(const GenerationStats stats, session.Generate(params));
  return before_ms + stats.first_token_ms;
}

std::vector<Token> Longer(const Session& session, int n) {
  std::vector<Token> tokens(session.tokens().begin(), session.tokens().end());
  for (int i = 0; i < n; ++i) tokens.push_back(tokens[static_cast<size_t>(i) * 7 % tokens.size()]);
  return tokens;
}

void PrintSave(const char* what, const SaveStats& stats) {
  std::printf("%s: %.1f ms, %.1f MB written, %.1f MB kept\n", what, stats.elapsed_ms,
              static_cast<double>(stats.written_bytes) / 1e6, static_cast<double>(stats.kept_bytes) / 1e6);
}

/// Takes the files out of the page cache, where the system agrees.
void ForgetPages(const std::string& folder) {
  sync();
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

Status Measure(const Engine& engine, const std::string& folder, size_t n_tokens, const Policy& policy) {
  LS_ASSIGN_OR_RETURN(const auto store, SessionStore::Open({folder, 0}));
  std::vector<Token> tokens(n_tokens);
  uint32_t random = 1;
  for (Token& token : tokens) {
    random = random * 1664525u + 1013904223u;
    token = static_cast<Token>((random >> 8) % static_cast<uint32_t>(engine.model().n_vocab));
  }
  Session session = engine.NewSession(policy);
  const double start_ms = NowMs();
  LS_ASSIGN_OR_RETURN(const double first_ms, FirstToken(session, tokens, 1));
  std::printf("%zu tokens, %s: first token after %.0f ms\n", n_tokens, policy.ToString().c_str(), first_ms - start_ms);
  for (int round = 0; round < kRounds; ++round) {
    LS_ASSIGN_OR_RETURN(const SaveStats saved, store->Save(session, "bench"));
    PrintSave("first save", saved);
    if (round + 1 < kRounds) LS_RETURN_IF_ERROR(store->Delete("bench"));
  }
  for (const bool cold : {false, true}) {
    for (int round = 0; round < kRounds; ++round) {
      if (cold) ForgetPages(folder);
      const double before_ms = NowMs();
      LS_ASSIGN_OR_RETURN(RestoredSession restored, store->Restore(engine, "bench"));
      const double restored_ms = NowMs();
      LS_ASSIGN_OR_RETURN(const double token_ms, FirstToken(restored.session, Longer(restored.session, 1), 1));
      std::printf("restore%s: %.1f ms; one more token read and the first one answered: %.1f ms\n",
                  cold ? " from disk" : "", restored_ms - before_ms, token_ms - before_ms);
    }
  }
  for (int turn = 0; turn < kTurns; ++turn) {
    LS_RETURN_IF_ERROR(FirstToken(session, Longer(session, kTurnTokens), kTurnTokens + 1).status());
    LS_ASSIGN_OR_RETURN(const SaveStats saved, store->Save(session, "bench"));
    PrintSave("save after a turn of 200 tokens", saved);
  }
  LS_ASSIGN_OR_RETURN(const SaveStats whole, store->Save(session, "whole"));
  PrintSave("the same as a whole file", whole);
  LS_RETURN_IF_ERROR(store->Delete("whole"));
  return store->Delete("bench");
}

Status Main(int argc, char** argv) {
  if (argc < 3)
    return Status(StatusCode::kInvalidArgument, "usage: session_store_bench MODEL FOLDER [TOKENS [POLICY]]");
  LS_ASSIGN_OR_RETURN(const Policy policy, Policy::Parse(argc > 4 ? argv[4] : "loopserve"));
  EngineOptions options;
  options.model_path = argv[1];
  LS_ASSIGN_OR_RETURN(const auto engine, Engine::Open(options));
  const size_t n_tokens = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 7000;
  return Measure(*engine, argv[2], n_tokens, policy);
}

}  // namespace
}  // namespace loopserve

int main(int argc, char** argv) {
  const loopserve::Status status = loopserve::Main(argc, argv);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
