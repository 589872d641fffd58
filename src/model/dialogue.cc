#include "src/model/dialogue.h"

#include <algorithm>

#include "src/model/forward.h"
#include "src/selection/eviction/eviction_choice.h"

namespace loopserve {
namespace {

int QueriesOfEviction(const EvictionSettings& settings) {
  if (settings.method == EvictionSettings::Method::kNone) return 0;
  if (ObservesWindow(settings)) return settings.window;
  // Rows of short prompts are added up after they were computed; measuring coverage needs the newest.
  return SumsColumns(settings) ? static_cast<int>(Forward::kDecodeRows) : 1;
}

/// Rows of copies have room for a part more than they hold (kept_keys.cc).
constexpr int64_t kSparePart = 8, kSpareRows = 256;

size_t BytesOfDecoding(const DecodeSettings& settings, const HyperParams& params, const KvLayout& layout,
                       int64_t n_tokens) {
  if (settings.budget == 0 || n_tokens < settings.min_keys) return 0;
  switch (settings.method) {
    case DecodeSettings::Method::kCodedKeys:
      return static_cast<size_t>((n_tokens + CodedKeys::kRunKeys - 1) / CodedKeys::kRunKeys) *
             CodedKeys::RunBytes(params);
    case DecodeSettings::Method::kPages:
      return KeyPages::BytesFor(params, settings.dense_layers, n_tokens);
    case DecodeSettings::Method::kWorkingSets:
      if (n_tokens <= settings.budget) return 0;
      return static_cast<size_t>(settings.budget + settings.interval + 1) * layout.token_bytes();
  }
  return 0;
}

}  // namespace

size_t BytesBeside(const Policy& policy, const HyperParams& params, const KvLayout& layout, int64_t n_tokens) {
  const EvictionSettings& eviction = policy.eviction();
  size_t bytes = BytesOfDecoding(policy.decode(), params, layout, n_tokens);
  if (eviction.method != EvictionSettings::Method::kNone && n_tokens > eviction.budget) {
    const int64_t rows = eviction.budget + std::max(kSpareRows, eviction.budget / kSparePart);
    bytes += static_cast<size_t>(rows) * layout.token_bytes();
  }
  return bytes;
}

int NotedQueries(const Policy& policy) {
  const int of_decoding = policy.decode().budget > 0 ? policy.decode().queries : 0;
  return std::max(of_decoding, QueriesOfEviction(policy.eviction()));
}

}  // namespace loopserve
