#include "src/model/decode_graph.h"

#include <algorithm>
#include <cstring>

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/kernels/attention.h"
#include "src/model/heads.h"
#include "src/model/layer_graph.h"
#include "src/model/prefill_layer.h"
#include "src/model/rope_table.h"

namespace loopserve {
namespace {

using Reads = DecodeSparsity::Reads;

/// Nodes of a layer's graph, with room; the graph's memory is sized by it.
constexpr size_t kNodesPerLayer = 64;

}  // namespace

struct DecodeGraph::Step {
  Dialogue* dialogue = nullptr;
  int64_t first_position = 0;
  int64_t rows = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<float> rope_units;
  std::vector<std::vector<float>> queries;  ///< each thread's own copy: [rows][q_width]
  std::vector<float> keys_and_values;       ///< [rows][2 * kv_width]
  AlignedBuffer partials;
  size_t head_partial_bytes = 0;  ///< of one KV head, when each has its own keys
  Clock::time_point attention_start;
  double attention_ms = 0;
  double selection_ms = 0;
  double keys_read = 0, keys_held = 0;
  double computed_pairs = 0, causal_pairs = 0;
};

struct DecodeGraph::LayerNode {
  const Model* model;
  Step* step;
  int layer;
  int n_threads;
  std::vector<KvHeadView> views;
  AttentionProblem problem;
  Reads reads = Reads::kEverything;
  TokenAttention* by_token = nullptr;  ///< of layers that read kByToken

  /// The rows' queries, of which each thread makes its own: that is quicker than waiting for another's.
  const float* TakeQueries(const ggml_tensor* projected, const float* turns, int thread) {
    const HyperParams& p = model->params();
    float* q = step->queries[static_cast<size_t>(thread)].data();
    for (int64_t r = 0; r < step->rows; ++r) {
      std::memcpy(q + r * p.q_width(), RowOf(projected, r), static_cast<size_t>(p.q_width()) * sizeof(float));
      FinishQueries(*model, layer, turns + r * p.rope.n_dims, q + r * p.q_width());
    }
    return q;
  }

  void StoreRows(const ggml_tensor* keys, const ggml_tensor* values, const float* turns) {
    const HyperParams& p = model->params();
    const auto bytes = static_cast<size_t>(p.kv_width()) * sizeof(float);
    float* rows = step->keys_and_values.data();
    for (int64_t r = 0; r < step->rows; ++r) {
      float* row = rows + r * 2 * p.kv_width();
      std::memcpy(row, RowOf(keys, r), bytes);
      FinishKeys(*model, layer, turns + r * p.rope.n_dims, row);
      std::memcpy(row + p.kv_width(), RowOf(values, r), bytes);
    }
    step->dialogue->cache.StoreRows(layer, step->first_position, step->rows, rows, rows + p.kv_width(),
                                    2 * p.kv_width());
  }

  /// A row's heads side by side; projections of several matrices stand in one row, so rows are strided.
  static const float* RowOf(const ggml_tensor* heads, int64_t row) {
    return reinterpret_cast<const float*>(static_cast<const std::byte*>(heads->data) +
                                          static_cast<size_t>(row) * heads->nb[2]);
  }

  /// The keys of each KV head, and the rows that look for them; the step's rows are stored.
  void FindKeys() {
    const HyperParams& p = model->params();
    const Dialogue& dialogue = *step->dialogue;
    const int64_t n_keys = step->first_position + step->rows;
    const int64_t held = problem.window > 0 ? std::min(n_keys, problem.window) : n_keys;
    for (int head = 0; head < p.n_kv_heads; ++head) {
      KvHeadView& view = views[static_cast<size_t>(head)];
      if (reads == Reads::kWorkingSet) {
        view = WorkingSetKeeper::View(dialogue, layer, head);
      } else if (reads == Reads::kKept) {
        view = dialogue.kept.View(layer, head);
      } else {
        view = dialogue.cache.View(layer, head, n_keys);
      }
      step->keys_held += static_cast<double>(held);
      if (reads != Reads::kByToken) step->keys_read += static_cast<double>(HasOwnKeys() ? view.n_keys : held);
    }
    problem.n_rows = step->rows;
    step->computed_pairs += PairsHeld(problem);
    step->causal_pairs += CausalPairs(step->rows, step->first_position + 1) * p.n_heads;
    problem.first_position = step->first_position;
    problem.q_row_stride = problem.out_row_stride = p.q_width();
  }

  /// Whether each KV head has keys of its own, side by side, of which the rows attend all.
  bool HasOwnKeys() const { return reads == Reads::kWorkingSet || reads == Reads::kKept; }
  std::byte* HeadPartials(int kv_head) const {
    return step->partials.data() + step->head_partial_bytes * static_cast<size_t>(kv_head);
  }
};

DecodeGraph::DecodeGraph(const Model& model, ComputeThreads& threads)
    : model_(model),
      threads_(threads),
      math_(model, threads.n_threads()),
      sparsity_(model, threads),
      memory_(kNodesPerLayer * static_cast<size_t>(model.params().n_layers + 1)),
      step_(std::make_unique<Step>()) {
  // The graph points into these: they must never move.
  step_->tokens.resize(Forward::kDecodeRows);
  step_->positions.resize(Forward::kDecodeRows);
  const HyperParams& p = model.params();
  step_->rope_units = RopeUnits(model, Forward::kDecodeRows);
  step_->keys_and_values.resize(static_cast<size_t>(Forward::kDecodeRows * 2 * p.kv_width()));
  step_->queries.assign(static_cast<size_t>(threads.n_threads()),
                        std::vector<float>(static_cast<size_t>(Forward::kDecodeRows * p.q_width())));
}

DecodeGraph::~DecodeGraph() = default;

/// Appends the new rows to the cache and prepares the problem that the next nodes solve; where tokens find their keys,
/// the other threads look through them meanwhile.
void DecodeGraph::StoreNode(ggml_tensor* y, int thread, int, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  Step& step = *node.step;
  if (thread == 0) step.attention_start = Clock::now();
  const auto* turns = static_cast<const float*>(y->src[3]->data);
  const float* q = node.TakeQueries(y->src[2], turns, thread);
  if (thread == 0) {
    Dialogue& dialogue = *step.dialogue;
    node.StoreRows(y->src[0], y->src[1], turns);
    dialogue.queries.Store(node.layer, step.first_position, step.rows, q);
    if (node.reads == Reads::kWorkingSet) WorkingSetKeeper::Append(dialogue, node.layer, step.first_position);
    for (int head = 0; node.reads == Reads::kKept && head < node.problem.n_kv_heads; ++head) {
      dialogue.kept.Extend(dialogue.cache, node.layer, head, step.first_position + step.rows);
    }
    node.FindKeys();
  }
  if (node.reads != Reads::kByToken) return;
  const auto start = Clock::now();
  node.by_token->Scan(node.layer, q, thread);
  if (thread == 0) step.selection_ms += MillisecondsSince(start);
  node.by_token->AttendAlways(thread);
}

void DecodeGraph::WeighNode(ggml_tensor*, int thread, int, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  if (node.reads != Reads::kByToken) return;
  const auto start = Clock::now();
  node.by_token->Weigh(thread);
  // What follows counts as attention, for all that Pick is both.
  if (thread == 0) node.step->selection_ms += MillisecondsSince(start);
}

void DecodeGraph::PickNode(ggml_tensor*, int thread, int, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  if (node.reads == Reads::kByToken) node.by_token->Pick(node.views.data(), thread);
}

void DecodeGraph::PartialNode(ggml_tensor*, int thread, int n_threads, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  LS_CHECK(n_threads == node.n_threads);
  if (node.reads == Reads::kByToken) return node.by_token->Attend(node.views.data(), thread);
  AttentionProblem problem = node.problem;
  problem.q = node.step->queries[static_cast<size_t>(thread)].data();
  if (!node.HasOwnKeys()) {
    DecodeAttentionPartial(problem, thread, n_threads, node.step->partials.data());
    return;
  }
  for (int head = 0; head < node.problem.n_kv_heads; ++head) {
    DecodeAttentionPartial(KvHeadProblem(problem, head), thread, n_threads, node.HeadPartials(head));
  }
}

void DecodeGraph::MergeNode(ggml_tensor* y, int thread, int n_threads, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  AttentionProblem problem = node.problem;
  problem.out = static_cast<float*>(y->data);
  if (node.reads == Reads::kByToken) {
    node.by_token->Merge(problem.out, thread);
    if (thread == 0) node.step->keys_read += node.by_token->KeysRead();
  } else if (node.HasOwnKeys()) {
    const int group = problem.n_heads / problem.n_kv_heads;
    for (int head = thread; head < problem.n_kv_heads; head += n_threads) {
      DecodeAttentionMerge(KvHeadProblem(problem, head), n_threads, 0, group, node.HeadPartials(head));
    }
  } else {
    DecodeAttentionMerge(problem, n_threads, problem.n_heads * thread / n_threads,
                         problem.n_heads * (thread + 1) / n_threads, node.step->partials.data());
  }
  if (thread == 0) node.step->attention_ms += MillisecondsSince(node.step->attention_start);
}

ggml_tensor* DecodeGraph::AddAttention(ggml_context* context, int layer, const Projections& heads, ggml_tensor* turns) {
  const HyperParams& p = model_.params();
  nodes_.push_back(std::make_unique<LayerNode>());
  LayerNode& node = *nodes_.back();
  node = {&model_, step_.get(), layer, threads_.n_threads(), std::vector<KvHeadView>(p.n_kv_heads), {}};
  node.problem.n_heads = p.n_heads;
  node.problem.n_kv_heads = p.n_kv_heads;
  node.problem.head_dim = p.head_dim;
  node.problem.scale = p.attention_scale;
  node.problem.window = p.window(layer);
  node.problem.kv = node.views.data();
  const int64_t rows = heads.q->ne[2];
  // Each node takes the one before as a source: that is what orders them.
  ggml_tensor* store_args[] = {heads.k, heads.v, heads.q, turns};
  ggml_tensor* stored =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, store_args, 4, StoreNode, GGML_N_TASKS_MAX, &node);
  ggml_tensor* weighed =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, &stored, 1, WeighNode, GGML_N_TASKS_MAX, &node);
  ggml_tensor* picked =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, &weighed, 1, PickNode, GGML_N_TASKS_MAX, &node);
  ggml_tensor* partial =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, &picked, 1, PartialNode, GGML_N_TASKS_MAX, &node);
  return ggml_custom_4d(context, GGML_TYPE_F32, p.q_width(), rows, 1, 1, &partial, 1, MergeNode, GGML_N_TASKS_MAX,
                        &node);
}

Status DecodeGraph::Build(int64_t rows, bool all_rows) {
  if (rows == built_rows_ && all_rows == built_all_rows_) return Status::Ok();
  built_rows_ = 0;
  nodes_.clear();
  math_.Clear();
  LS_RETURN_IF_ERROR(math_.Reserve(rows));
  graph_ = memory_.Begin();
  ggml_context* context = memory_.context();
  LayerGraph layers(context, model_, math_);
  ggml_tensor* tokens = memory_.ExternalInts(step_->tokens.data(), rows);
  ggml_tensor* positions = memory_.ExternalInts(step_->positions.data(), rows);
  ggml_tensor* x = layers.Embed(tokens);
  const HyperParams& p = model_.params();
  const auto turns_of = [&](bool is_sliding) {
    return RopeTurns(memory_, model_, is_sliding, step_->rope_units.data(), positions);
  };
  ggml_tensor* turns = turns_of(false);
  ggml_tensor* sliding_turns = p.has_sliding_layers() ? turns_of(true) : nullptr;
  for (int layer = 0; layer < p.n_layers; ++layer) {
    const Projections heads = math_.Project(context, layer, x);
    ggml_tensor* attention =
        AddAttention(context, layer, heads, p.is_sliding_layer[static_cast<size_t>(layer)] ? sliding_turns : turns);
    x = layers.AfterAttention(layer, attention, x);
  }
  if (!all_rows && rows > 1) {
    x = ggml_cont(context, ggml_view_2d(context, x, x->ne[0], 1, x->nb[1], static_cast<size_t>(rows - 1) * x->nb[1]));
  }
  logits_ = layers.Logits(x);
  ggml_set_output(logits_);
  ggml_build_forward_expand(graph_, logits_);
  LS_RETURN_IF_ERROR(memory_.Allocate(graph_));
  built_rows_ = rows;
  built_all_rows_ = all_rows;
  return Status::Ok();
}

Status DecodeGraph::Run(Dialogue& dialogue, std::span<const Token> tokens, bool all_rows,
                        std::span<const float>* logits, ForwardStats* stats) {
  const auto start = Clock::now();
  const auto rows = static_cast<int64_t>(tokens.size());
  LS_CHECK(rows >= 1 && rows <= Forward::kDecodeRows);
  KvCache& cache = dialogue.cache;
  LS_RETURN_IF_ERROR(cache.ReserveTokens(rows));
  LS_RETURN_IF_ERROR(Build(rows, all_rows));
  Step& step = *step_;
  step.dialogue = &dialogue;
  step.first_position = cache.n_tokens();
  step.rows = rows;
  step.attention_ms = step.selection_ms = step.keys_read = step.keys_held = 0;
  step.computed_pairs = step.causal_pairs = 0;
  double selection_ms = 0;
  if (rows > 1) {
    dialogue.EndAnswer();
  } else {
    LS_RETURN_IF_ERROR(sparsity_.BeginStep(dialogue, &selection_ms));
  }
  LS_RETURN_IF_ERROR(dialogue.kept.Prepare(cache, rows));  // the nodes add rows, and cannot fail
  for (const std::unique_ptr<LayerNode>& node : nodes_) {
    node->reads = sparsity_.Of(dialogue, node->layer);
    node->by_token = sparsity_.by_token();
  }
  for (int64_t i = 0; i < rows; ++i) {
    step.tokens[i] = tokens[i];
    step.positions[i] = static_cast<int32_t>(step.first_position + i);
  }
  AttentionProblem shape = nodes_.front()->problem;
  shape.n_rows = rows;
  AttentionProblem head = shape;
  head.n_heads /= head.n_kv_heads;
  head.n_kv_heads = 1;
  step.head_partial_bytes = DecodePartialBytes(head, threads_.n_threads());
  const size_t partial_bytes = std::max(DecodePartialBytes(shape, threads_.n_threads()),
                                        step.head_partial_bytes * static_cast<size_t>(shape.n_kv_heads));
  if (!step.partials.Reserve(partial_bytes)) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  math_.BeginStep();
  LS_RETURN_IF_ERROR(threads_.Run(graph_));
  *logits = {static_cast<const float*>(logits_->data), static_cast<size_t>(ggml_nelements(logits_))};
  if (stats != nullptr) {
    stats->attention.attention_ms += step.attention_ms - step.selection_ms;
    stats->attention.selection_ms += step.selection_ms + selection_ms;
    stats->linear_ms += MillisecondsSince(start) - step.attention_ms - selection_ms;
    stats->decode_keys_read += step.keys_read;
    stats->decode_keys_held += step.keys_held;
    stats->attention.computed_pairs += step.computed_pairs;
    stats->attention.causal_pairs += step.causal_pairs;
  }
  return Status::Ok();
}

}  // namespace loopserve
