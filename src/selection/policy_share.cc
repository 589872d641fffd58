// Which policies read a prompt alike: the only place that knows, for sessions that are forked under another policy.
#include "loopserve/policy.h"

namespace loopserve {
namespace {

/// Whether decoding needs no more of a prefill than keys, values and the newest queries (NotedQueries): forks get
/// these.
bool IsForkable(DecodeSettings::Method method) {
  switch (method) {  // without a default: a new method must be thought of here
    case DecodeSettings::Method::kWorkingSets:
    case DecodeSettings::Method::kCodedKeys:
    case DecodeSettings::Method::kPages:
      return true;
  }
  return false;
}

/// The same of what is evicted when a prefill ends: sums over all rows of the prefill are not noted.
bool IsForkable(EvictionSettings::Method method) {
  switch (method) {
    case EvictionSettings::Method::kNone:
    case EvictionSettings::Method::kSnapKv:
    case EvictionSettings::Method::kPyramidKv:
    case EvictionSettings::Method::kAdaKv:
    case EvictionSettings::Method::kStreaming:
      return true;
    case EvictionSettings::Method::kH2O:
      return false;
  }
  return false;
}

bool IsForkable(const Policy& policy) {
  return IsForkable(policy.decode().method) && IsForkable(policy.eviction().method);
}

}  // namespace

bool Policy::SharesPrefill(const Policy& other) const {
  if (!IsForkable(*this) || !IsForkable(other)) return spec_ == other.spec_;
  // Without a choice nothing else that is set has an effect.
  const bool both_dense =
      prefill_.method == PrefillSettings::Method::kDense && other.prefill_.method == PrefillSettings::Method::kDense;
  return both_dense || prefill_ == other.prefill_;
}

Policy Policy::PrefillAlone() const {
  if (prefill_.method == PrefillSettings::Method::kDense) return Policy();
  Policy alone = *this;
  alone.decode_ = DecodeSettings();
  alone.eviction_ = EvictionSettings();
  alone.spec_ += "/prefill";
  return alone;
}

}  // namespace loopserve
