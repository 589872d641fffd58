// What a dialogue computes of its attention. A policy is chosen once, when a session opens, and never changes in it.
// Thread rule: values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "loopserve/status.h"

namespace loopserve {

/// How prefill attention is thinned out (LoopServe, arXiv 2507.13681, phase 1). The whole history stays in the cache;
/// what is not computed for one turn may be computed for the next. Sliding-window layers are always dense, and turns of
/// fewer than 48 new rows (kShape: 9).
struct PrefillSettings {
  enum class Method : uint8_t {
    kDense,  ///< every causal pair
    kLines,  ///< the paper's: vertical and slash lines, one choice per query head and turn (Algorithm 1)
    kTiles,  ///< ours: tiles of 16 neighbouring keys, one choice per query head and block of 96 rows
    // Published methods to compare with, each by its own rule in the same engine (docs/algorithm.md).
    kMInference,   ///< fixed numbers of lines by the turn's last 64 rows (arXiv 2407.02490, vertical-slash)
    kFlexPrefill,  ///< blocks of 128 keys by the turn's last 128 rows, or by means (arXiv 2502.20766)
    kXAttention,   ///< blocks of keys by antidiagonals of the scores (arXiv 2503.16428)
    kShape,        ///< the first keys and a local window, whatever the model attends (A-shape, Tri-shape: 2412.10319)
  };
  Method method = Method::kDense;
  /// Share of the sampled rows' attention weight that the choice must hold, in (0, 1]; 1 computes everything. Higher:
  /// nearer to dense and slower. Key `alpha`. Methods without it have 0.955 here, at which only the floor is measured
  /// (SyncStats::floor_density).
  double alpha = 1;
  /// Rows whose attention decides. kLines: rows of a turn, exactly, 1 to 4096; kTiles: rows of a block, against
  /// summaries of the tiles, 1 to 96. More: a better choice that takes longer. Key `rows`.
  int sample_rows = 0;
  /// Turns whose rows see fewer keys than this are dense: choosing would cost more than it saves. Key `min_keys`.
  int64_t min_keys = 0;
  /// kMInference: vertical and slash lines of every query head, at most as many as there are keys. Higher: nearer to
  /// dense and slower; as many slashes as keys are dense. Keys `columns`, from 30, and `slashes`, from 50.
  int64_t columns = 0;
  int64_t slashes = 0;
  /// Share of the estimated weight that the blocks must hold, in (0, 1]; 1 computes everything. kFlexPrefill: columns
  /// and slashes each for themselves, key `gamma`; kXAttention: key `threshold`.
  double cover = 0;
  /// kFlexPrefill: the distance of two estimates, in [0, 1], up to which a head's blocks are chosen by mean queries and
  /// keys; 0: never. Key `tau`.
  double tau = 0;
  /// kFlexPrefill: keys' worth of vertical blocks, and of slash blocks, that are taken at least; turns whose rows see
  /// no more are dense. Key `min_budget`.
  int64_t min_budget = 0;
  /// kXAttention: rows and keys whose scores' antidiagonals are summed: 4, 8 or 16. Lower: a better choice that takes
  /// longer. Key `stride`. And rows and keys of a block: 64 or 128. Key `block`.
  int stride = 0;
  int block = 0;
  /// kShape: the first keys of the context and the newest keys (its own among them, at least 1) that every row attends.
  /// Higher: nearer to dense and slower. Keys `sinks` and `local`.
  int64_t sinks = 0;
  int64_t local = 0;
  /// kShape: the turn's last rows, which attend everything (Tri-shape); 0: none (A-shape). Key `last`.
  int64_t last_rows = 0;
  /// kShape: keys of a context from which on sinks and local are as they stand; in shorter ones both shrink in
  /// proportion, rounded up, so that the density stays what it is at this length. 0: they never shrink, and contexts of
  /// no more than sinks + local keys are dense. Key `reference`.
  int64_t reference_keys = 0;
  /// Which rows are sampled, within their strata. The same seed gives the same answer. Key `seed`.
  uint64_t seed = 0;

  bool operator==(const PrefillSettings&) const = default;
};

/// How many keys a decode step reads exactly (phase 2). All keys and values stay in the cache, whatever is read.
struct DecodeSettings {
  enum class Method : uint8_t {
    /// The paper's (Algorithm 2): a working set per layer and KV head, chosen every `interval` tokens by the attention
    /// of the newest queries; tokens written since are always in it.
    kWorkingSets,
    /// Ours: for every token each layer looks through all keys in one bit per element, reads the `budget` that its own
    /// query gives most weight, and counts the others by estimate.
    kCodedKeys,
    /// Quest's (arXiv 2406.10774), to compare with: for every token each layer looks through the bounds of pages of 16
    /// keys and reads those whose keys could score highest, as many as the budget holds, the newest page among them.
    kPages,
  };
  Method method = Method::kWorkingSets;
  /// Keys that a token reads of each KV head, sinks and the newest included (kWorkingSets: tokens written since the
  /// last choice not counted; kPages: in whole pages, at least three); 0 reads everything. Contexts that are not longer
  /// than a quarter more than this (kPages: than this) are read in full. Higher: nearer to dense and slower. Key
  /// `budget`.
  int64_t budget = 0;
  /// Answers to contexts of fewer tokens read everything: little would be saved. Key `decode_min_keys`.
  int64_t min_keys = 0;
  /// kWorkingSets: tokens from one choice of a layer to its next; the layers take turns, so that no token waits for
  /// all. Key `interval`, 1 to 4096.
  int interval = 16;
  /// Newest queries, at most 64; before as many tokens were written, the last rows of the prompt stand in.
  /// kWorkingSets: whose attention is added up for a choice; kCodedKeys: by which the bits of new keys are shared out.
  /// Key `queries`.
  int queries = 16;
  /// kCodedKeys: newest keys that are always read exactly, at least 1. Key `recent`.
  int64_t recent = 0;
  /// kPages: the first layers, which read everything. Key `dense_layers`, 0 to 1024.
  int dense_layers = 0;
  /// kCodedKeys, kPages: each query head chooses `budget` keys for itself, not all heads of a KV head together: nearer
  /// to dense, and up to as many times the keys are read as there are query heads to a KV head. Key `per_query_head`, 0
  /// or 1.
  bool per_query_head = false;
};

/// Which keys and values are kept at all (published methods to compare with, each by its own rule in the same engine:
/// docs/algorithm.md). A prefill attends everything that is kept; when it ends, each KV head of each layer keeps some
/// positions, at their places in the context, and all that come after; the others are not attended again in this
/// dialogue. Sliding-window layers stay as they are. The KV cache still holds all (forks and rewinds need them); what
/// is kept is copied side by side.
struct EvictionSettings {
  enum class Method : uint8_t {
    kNone,       ///< nothing is evicted
    kSnapKv,     ///< the keys that the newest `window` rows attend (arXiv 2404.14469)
    kPyramidKv,  ///< the same, fewer from layer to layer (arXiv 2406.02069)
    kAdaKv,      ///< the same, a layer's budget shared out over its KV heads (arXiv 2407.11550)
    kH2O,        ///< the keys that all rows attend, and the newest, half and half (arXiv 2306.14048)
    kStreaming,  ///< the first and the newest (arXiv 2309.17453)
  };
  Method method = Method::kNone;
  /// Positions that a KV head keeps, mean over heads (kAdaKv) and layers (kPyramidKv), the window included; contexts
  /// that are not longer are dense. Above `window` and `sinks`. Higher: nearer to dense, slower and larger. Key
  /// `budget`.
  int64_t budget = 0;
  /// Newest rows by whose attention kSnapKv, kPyramidKv and kAdaKv choose, 1 to 1024; they are kept. Key `window`.
  int window = 0;
  /// Neighbouring keys whose largest weight counts for each of them, an odd number from 1 to 63; 1: its own. Key
  /// `pool`.
  int pool = 0;
  /// kPyramidKv: the last layer keeps 1/beta of the mean budget (without the window), the first the more; 1: all layers
  /// the same. Key `beta`, 1 to 1000.
  int beta = 0;
  /// kAdaKv: share of the budget that every KV head has for sure, in [0, 1]; 1: all heads the same. Key `alpha`.
  double alpha = 0;
  /// kStreaming: first keys that are kept, 0 or more. Key `sinks`.
  int64_t sinks = 0;
  /// Compresses after each turn's prefill, among what is still kept and what is new; else only after the first, as
  /// published: later turns and all answers are kept whole. Key `when`: `once` or `every_turn`.
  bool every_turn = false;
  /// kSnapKv, kAdaKv: waits until the answer has `window` tokens (or ends) and chooses by their attention, not by that
  /// of the prompt's last rows. Key `observe`: `prompt` or `output`.
  bool observes_output = false;
};

/// A validated policy. Written as NAME[:key=value,...], for example "dense" or "loopserve:alpha=0.9,budget=2048".
class Policy {
 public:
  /// Dense attention over the whole history: exact, the reference of every other policy.
  Policy() = default;

  /// Parses and validates a policy specification. kInvalidArgument names the unknown policy, key or value and lists
  /// what there is. "full" is another name of "dense"; dense takes no keys.
  static Result<Policy> Parse(std::string_view spec);

  /// A preset of "loopserve": "fast", "balanced" (its defaults) or "faithful" (near to dense, and slower).
  /// kInvalidArgument for another name.
  static Result<Policy> OfQuality(std::string_view name);

  /// The canonical specification: Parse(ToString()) gives the same policy.
  const std::string& ToString() const { return spec_; }
  bool is_dense() const { return prefill_.method == PrefillSettings::Method::kDense && reads_everything(); }
  /// Whether answers are computed with all keys and values, whatever the prefill leaves out.
  bool reads_everything() const { return decode_.budget == 0 && eviction_.method == EvictionSettings::Method::kNone; }
  const PrefillSettings& prefill() const { return prefill_; }
  const DecodeSettings& decode() const { return decode_; }
  const EvictionSettings& eviction() const { return eviction_; }

  /// Whether both compute the same keys, values and logits of a prompt that an empty dialogue reads: both prefills are
  /// dense, or all their settings are equal. Such policies may fork one session (Session::Fork).
  bool SharesPrefill(const Policy& other) const;
  /// The same prefill, and decoding that reads everything. Its ToString ends in "/prefill", which Parse does not take.
  Policy PrefillAlone() const;

 private:
  std::string spec_ = "dense";
  PrefillSettings prefill_;
  DecodeSettings decode_;
  EvictionSettings eviction_;
};

}  // namespace loopserve
