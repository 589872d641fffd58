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

}  // namespace

int NotedQueries(const Policy& policy) {
  const int of_decoding = policy.decode().budget > 0 ? policy.decode().queries : 0;
  return std::max(of_decoding, QueriesOfEviction(policy.eviction()));
}

}  // namespace loopserve
