// Decode attention that chooses its keys anew for every token, by the token's own query: what the decode graph calls of
// it, whatever the keys are found by (coded_attention.h, paged_attention.h).
//
// A layer of a step: Scan, AttendAlways -> barrier -> Weigh -> barrier -> Pick -> barrier -> Attend -> barrier ->
// Merge, each called by every thread; up to Weigh it counts as selection, but for AttendAlways. Thread rule: one owner;
// nothing is allocated between BeginStep and the next.
#pragma once

#include <cstdint>

#include "loopserve/status.h"
#include "src/kernels/kv_view.h"
#include "src/model/dialogue.h"

namespace loopserve {

class TokenAttention {
 public:
  virtual ~TokenAttention() = default;

  /// Prepares a step of one row at `position`, which need not be stored yet. mark_seen: remember which keys each layer
  /// reads exactly. kResourceExhausted.
  virtual Status BeginStep(Dialogue& dialogue, int64_t position, bool mark_seen) = 0;
  /// Whether the step chooses keys of this layer (of no sliding window); if not, it is to be read in full.
  virtual bool Chooses(int layer) const = 0;

  /// What needs nothing but the query and keys of earlier steps; q: f32 [n_heads][head_dim]. The first thread calls it
  /// when the step's row is stored, the others need not wait for that.
  virtual void Scan(int layer, const float* q, int thread) = 0;
  /// Keys that are read whatever the query is.
  virtual void AttendAlways(int) {}
  virtual void Weigh(int thread) = 0;
  /// `kv`: [n_kv_heads] views of the layer with the step's row.
  virtual void Pick(const KvHeadView*, int) {}
  virtual void Attend(const KvHeadView* kv, int thread) = 0;
  /// This thread's share of heads, into out: f32 [n_heads][head_dim].
  virtual void Merge(float* out, int thread) = 0;

  /// What the last layer read, in keys of a KV head: exact keys, and what they were found by in its bytes. All KV heads
  /// together.
  virtual double KeysRead() const = 0;
  /// Marks of the keys that `head` of `layer` read exactly in the last step (with mark_seen): [position + 1].
  virtual const uint8_t* Seen(int layer, int head) const = 0;
};

}  // namespace loopserve
