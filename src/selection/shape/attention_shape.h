// Which keys a row attends where the shape of attention is fixed, whatever the model attends: A-shape, the context's
// first keys and a local window (Xiao et al., arXiv 2309.17453, in prefill), and Tri-shape, where the turn's last rows
// attend everything besides (Li et al., arXiv 2412.10319). Pure functions.
#pragma once

#include <cstdint>

#include "loopserve/policy.h"

namespace loopserve {

/// The shape of one turn, whose rows end at n_keys - 1.
struct AttentionShape {
  int64_t first_position = 0;  ///< of the turn's rows
  int64_t sinks = 0;
  int64_t local = 1;
  int64_t first_dense = 0;  ///< rows at this position and behind attend everything

  /// The row at `position` attends keys [0, SinkEnd) and [LocalBegin, position], which never overlap.
  int64_t LocalBegin(int64_t position) const;
  int64_t SinkEnd(int64_t position) const;
  int64_t Pairs(int64_t position) const { return SinkEnd(position) + position + 1 - LocalBegin(position); }
  /// Whether any row attends less than everything.
  bool LeavesSomethingOut() const;
};

/// settings: of Method::kShape, its sizes scaled to a context of n_keys, of which the last n_rows are the turn's rows.
AttentionShape MakeAttentionShape(const PrefillSettings& settings, int64_t n_rows, int64_t n_keys);

}  // namespace loopserve
