#include "src/model/decode_graph.h"

#include <chrono>

#include "src/base/check.h"
#include "src/kernels/attention.h"
#include "src/model/layer_graph.h"

namespace loopserve {
namespace {

/// Nodes of a layer's graph, with room; the graph's memory is sized by it.
constexpr size_t kNodesPerLayer = 64;

double MillisecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

struct DecodeGraph::Step {
  KvCache* cache = nullptr;
  int64_t first_position = 0;
  int64_t rows = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  AlignedBuffer partials;
  std::chrono::steady_clock::time_point attention_start;
  double attention_ms = 0;
};

struct DecodeGraph::LayerNode {
  const Model* model;
  Step* step;
  int layer;
  int n_threads;
  std::vector<KvHeadView> views;
  AttentionProblem problem;
};

DecodeGraph::DecodeGraph(const Model& model, ComputeThreads& threads)
    : model_(model),
      threads_(threads),
      math_(model),
      memory_(kNodesPerLayer * static_cast<size_t>(model.params().n_layers + 1)),
      step_(std::make_unique<Step>()) {
  // The graph points into these: they must never move.
  step_->tokens.resize(Forward::kDecodeRows);
  step_->positions.resize(Forward::kDecodeRows);
}

DecodeGraph::~DecodeGraph() = default;

/// Appends the new rows to the cache and prepares the problem that the next nodes solve.
void DecodeGraph::StoreNode(ggml_tensor* y, int thread, int, void* userdata) {
  if (thread != 0) return;
  auto& node = *static_cast<LayerNode*>(userdata);
  Step& step = *node.step;
  const HyperParams& p = node.model->params();
  step.attention_start = std::chrono::steady_clock::now();
  step.cache->StoreRows(node.layer, step.first_position, step.rows, static_cast<const float*>(y->src[0]->data),
                        static_cast<const float*>(y->src[1]->data), p.kv_width());
  for (int head = 0; head < p.n_kv_heads; ++head) {
    node.views[head] = step.cache->View(node.layer, head, step.first_position + step.rows);
  }
  AttentionProblem& problem = node.problem;
  problem.n_rows = step.rows;
  problem.first_position = step.first_position;
  problem.q_row_stride = problem.out_row_stride = p.q_width();
}

void DecodeGraph::PartialNode(ggml_tensor* y, int thread, int n_threads, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  LS_CHECK(n_threads == node.n_threads);
  AttentionProblem problem = node.problem;
  problem.q = static_cast<const float*>(y->src[0]->data);
  DecodeAttentionPartial(problem, thread, n_threads, node.step->partials.data());
}

void DecodeGraph::MergeNode(ggml_tensor* y, int thread, int n_threads, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  AttentionProblem problem = node.problem;
  problem.out = static_cast<float*>(y->data);
  DecodeAttentionMerge(problem, n_threads, problem.n_heads * thread / n_threads,
                       problem.n_heads * (thread + 1) / n_threads, node.step->partials.data());
  if (thread == 0) node.step->attention_ms += MillisecondsSince(node.step->attention_start);
}

ggml_tensor* DecodeGraph::AddAttention(ggml_context* context, int layer, const Projections& heads) {
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
  ggml_tensor* store_args[] = {heads.k, heads.v};
  ggml_tensor* stored =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, store_args, 2, StoreNode, GGML_N_TASKS_MAX, &node);
  ggml_tensor* partial_args[] = {heads.q, stored};
  ggml_tensor* partial =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, partial_args, 2, PartialNode, GGML_N_TASKS_MAX, &node);
  return ggml_custom_4d(context, GGML_TYPE_F32, p.q_width(), rows, 1, 1, &partial, 1, MergeNode, GGML_N_TASKS_MAX,
                        &node);
}

Status DecodeGraph::Build(int64_t rows, bool all_rows) {
  if (rows == built_rows_ && all_rows == built_all_rows_) return Status::Ok();
  built_rows_ = 0;
  nodes_.clear();
  graph_ = memory_.Begin();
  ggml_context* context = memory_.context();
  LayerGraph layers(context, model_, math_);
  ggml_tensor* tokens = memory_.ExternalInts(step_->tokens.data(), rows);
  ggml_tensor* positions = memory_.ExternalInts(step_->positions.data(), rows);
  ggml_tensor* x = layers.Embed(tokens);
  for (int layer = 0; layer < model_.params().n_layers; ++layer) {
    const Projections heads = layers.BeforeAttention(layer, x, positions);
    x = layers.AfterAttention(layer, AddAttention(context, layer, heads), x);
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

Status DecodeGraph::Run(KvCache& cache, std::span<const Token> tokens, bool all_rows, std::span<const float>* logits,
                        ForwardStats* stats) {
  const auto start = std::chrono::steady_clock::now();
  const auto rows = static_cast<int64_t>(tokens.size());
  LS_CHECK(rows >= 1 && rows <= Forward::kDecodeRows);
  LS_RETURN_IF_ERROR(cache.ReserveTokens(rows));
  LS_RETURN_IF_ERROR(Build(rows, all_rows));
  Step& step = *step_;
  step.cache = &cache;
  step.first_position = cache.n_tokens();
  step.rows = rows;
  step.attention_ms = 0;
  for (int64_t i = 0; i < rows; ++i) {
    step.tokens[i] = tokens[i];
    step.positions[i] = static_cast<int32_t>(step.first_position + i);
  }
  AttentionProblem shape = nodes_.front()->problem;
  shape.n_rows = rows;
  if (!step.partials.Reserve(DecodePartialBytes(shape, threads_.n_threads()))) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for a decode step");
  }
  LS_RETURN_IF_ERROR(threads_.Run(graph_));
  *logits = {static_cast<const float*>(logits_->data), static_cast<size_t>(ggml_nelements(logits_))};
  if (stats != nullptr) {
    stats->attention_ms += step.attention_ms;
    stats->linear_ms += MillisecondsSince(start) - step.attention_ms;
  }
  return Status::Ok();
}

}  // namespace loopserve
