#include "src/model/decode_graph.h"

#include <algorithm>
#include <cstring>

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/model/heads.h"
#include "src/model/layer_graph.h"
#include "src/model/rope_table.h"
#include "src/model/stored_math.h"

namespace loopserve {
namespace {

/// Nodes of a layer's graph, with room; the graph's memory is sized by it.
constexpr size_t kNodesPerLayer = 64;
/// Graphs that are kept: of one row, and of the numbers of dialogues that come and go. Building one takes a small part
/// of a step.
constexpr size_t kKeptGraphs = 4;
constexpr int64_t kMaxRows = std::max(Forward::kDecodeRows, int64_t{Forward::kMaxSteps});

/// A row's heads side by side; projections of several matrices stand in one row, so rows are strided.
const float* RowOf(const ggml_tensor* heads, int64_t row) {
  return reinterpret_cast<const float*>(static_cast<const std::byte*>(heads->data) +
                                        static_cast<size_t>(row) * heads->nb[2]);
}

}  // namespace

struct DecodeGraph::Step {
  std::vector<DialogueStep*> parts;
  int64_t rows = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<float> rope_units;
  std::vector<std::vector<float>> queries;  ///< each thread's own copy: [rows][q_width]
  std::vector<float> keys_and_values;       ///< [rows][2 * kv_width]
  Clock::time_point attention_start;
  double attention_ms = 0;
};

struct DecodeGraph::LayerNode {
  const Model* model;
  Step* step;
  int layer;

  /// The rows' queries, of which each thread makes its own: that is quicker than waiting for another's.
  void TakeQueries(const ggml_tensor* projected, const float* turns, int thread) {
    const HyperParams& p = model->params();
    float* q = step->queries[static_cast<size_t>(thread)].data();
    for (int64_t r = 0; r < step->rows; ++r) {
      std::memcpy(q + r * p.q_width(), RowOf(projected, r), static_cast<size_t>(p.q_width()) * sizeof(float));
      FinishQueries(*model, layer, turns + r * p.rope.n_dims, q + r * p.q_width());
    }
  }

  void TakeKeysAndValues(const ggml_tensor* keys, const ggml_tensor* values, const float* turns) {
    const HyperParams& p = model->params();
    const auto bytes = static_cast<size_t>(p.kv_width()) * sizeof(float);
    for (int64_t r = 0; r < step->rows; ++r) {
      float* row = step->keys_and_values.data() + r * 2 * p.kv_width();
      std::memcpy(row, RowOf(keys, r), bytes);
      FinishKeys(*model, layer, turns + r * p.rope.n_dims, row);
      std::memcpy(row + p.kv_width(), RowOf(values, r), bytes);
    }
  }

  const float* QueriesOf(const DialogueStep& part, int thread) const {
    return step->queries[static_cast<size_t>(thread)].data() + part.first_row() * model->params().q_width();
  }
};

struct DecodeGraph::Graph {
  Graph(const Model& model, int n_threads, int64_t rows_in, bool all_rows_in)
      : rows(rows_in),
        all_rows(all_rows_in),
        math(model, n_threads),
        memory(kNodesPerLayer * static_cast<size_t>(model.params().n_layers + 1)) {}

  const int64_t rows;
  const bool all_rows;
  StoredMath math;
  GraphMemory memory;
  std::vector<std::unique_ptr<LayerNode>> nodes;
  ggml_cgraph* graph = nullptr;
  ggml_tensor* logits = nullptr;
};

DecodeGraph::DecodeGraph(const Model& model, ComputeThreads& threads)
    : model_(model), threads_(threads), sparsity_(model, threads), step_(std::make_unique<Step>()) {
  // Graphs point into these: they must never move.
  step_->tokens.resize(kMaxRows);
  step_->positions.resize(kMaxRows);
  const HyperParams& p = model.params();
  step_->rope_units = RopeUnits(model, kMaxRows);
  step_->keys_and_values.resize(static_cast<size_t>(kMaxRows * 2 * p.kv_width()));
  step_->queries.assign(static_cast<size_t>(threads.n_threads()),
                        std::vector<float>(static_cast<size_t>(kMaxRows * p.q_width())));
}

DecodeGraph::~DecodeGraph() = default;

void DecodeGraph::StoreNode(ggml_tensor* y, int thread, int, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  Step& step = *node.step;
  if (thread == 0) step.attention_start = Clock::now();
  const auto* turns = static_cast<const float*>(y->src[3]->data);
  node.TakeQueries(y->src[2], turns, thread);
  if (thread == 0) node.TakeKeysAndValues(y->src[0], y->src[1], turns);
  const int64_t row_floats = 2 * node.model->params().kv_width();
  for (DialogueStep* part : step.parts) {
    part->Store(node.layer, node.QueriesOf(*part, thread), step.keys_and_values.data() + part->first_row() * row_floats,
                thread);
  }
}

void DecodeGraph::WeighNode(ggml_tensor*, int thread, int, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  for (DialogueStep* part : node.step->parts) part->Weigh(node.layer, thread);
}

void DecodeGraph::PickNode(ggml_tensor*, int thread, int, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  for (DialogueStep* part : node.step->parts) part->Pick(node.layer, thread);
}

void DecodeGraph::PartialNode(ggml_tensor*, int thread, int n_threads, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  LS_CHECK(n_threads == static_cast<int>(node.step->queries.size()));
  for (DialogueStep* part : node.step->parts) part->Attend(node.layer, node.QueriesOf(*part, thread), thread);
}

void DecodeGraph::MergeNode(ggml_tensor* y, int thread, int, void* userdata) {
  auto& node = *static_cast<LayerNode*>(userdata);
  for (DialogueStep* part : node.step->parts) {
    part->Merge(node.layer, static_cast<float*>(y->data) + part->first_row() * node.model->params().q_width(), thread);
  }
  if (thread == 0) node.step->attention_ms += MillisecondsSince(node.step->attention_start);
}

ggml_tensor* DecodeGraph::AddAttention(Graph& graph, int layer, const Projections& heads, ggml_tensor* turns) {
  graph.nodes.push_back(std::make_unique<LayerNode>(LayerNode{&model_, step_.get(), layer}));
  LayerNode* node = graph.nodes.back().get();
  ggml_context* context = graph.memory.context();
  // Each node takes the one before as a source: that is what orders them.
  ggml_tensor* store_args[] = {heads.k, heads.v, heads.q, turns};
  ggml_tensor* stored =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, store_args, 4, StoreNode, GGML_N_TASKS_MAX, node);
  ggml_tensor* weighed =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, &stored, 1, WeighNode, GGML_N_TASKS_MAX, node);
  ggml_tensor* picked =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, &weighed, 1, PickNode, GGML_N_TASKS_MAX, node);
  ggml_tensor* partial =
      ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, &picked, 1, PartialNode, GGML_N_TASKS_MAX, node);
  return ggml_custom_4d(context, GGML_TYPE_F32, model_.params().q_width(), graph.rows, 1, 1, &partial, 1, MergeNode,
                        GGML_N_TASKS_MAX, node);
}

Status DecodeGraph::Build(Graph& graph) {
  const int64_t rows = graph.rows;
  LS_RETURN_IF_ERROR(graph.math.Reserve(rows));
  graph.graph = graph.memory.Begin();
  ggml_context* context = graph.memory.context();
  LayerGraph layers(context, model_, graph.math);
  ggml_tensor* tokens = graph.memory.ExternalInts(step_->tokens.data(), rows);
  ggml_tensor* positions = graph.memory.ExternalInts(step_->positions.data(), rows);
  ggml_tensor* x = layers.Embed(tokens);
  const HyperParams& p = model_.params();
  const auto turns_of = [&](bool is_sliding) {
    return RopeTurns(graph.memory, model_, is_sliding, step_->rope_units.data(), positions);
  };
  ggml_tensor* turns = turns_of(false);
  ggml_tensor* sliding_turns = p.has_sliding_layers() ? turns_of(true) : nullptr;
  for (int layer = 0; layer < p.n_layers; ++layer) {
    const Projections heads = graph.math.Project(context, layer, x);
    ggml_tensor* attention =
        AddAttention(graph, layer, heads, p.is_sliding_layer[static_cast<size_t>(layer)] ? sliding_turns : turns);
    x = layers.AfterAttention(layer, attention, x);
  }
  if (!graph.all_rows) {
    x = ggml_cont(context, ggml_view_2d(context, x, x->ne[0], 1, x->nb[1], static_cast<size_t>(rows - 1) * x->nb[1]));
  }
  graph.logits = layers.Logits(x);
  ggml_set_output(graph.logits);
  ggml_build_forward_expand(graph.graph, graph.logits);
  return graph.memory.Allocate(graph.graph);
}

Result<DecodeGraph::Graph*> DecodeGraph::GraphFor(int64_t rows, bool all_rows) {
  all_rows = all_rows || rows == 1;
  const auto found = std::ranges::find_if(
      graphs_, [&](const auto& graph) { return graph->rows == rows && graph->all_rows == all_rows; });
  if (found != graphs_.end()) {
    std::rotate(graphs_.begin(), found, found + 1);
    return graphs_.front().get();
  }
  if (graphs_.size() == kKeptGraphs) graphs_.pop_back();
  auto graph = std::make_unique<Graph>(model_, threads_.n_threads(), rows, all_rows);
  LS_RETURN_IF_ERROR(Build(*graph));
  graphs_.insert(graphs_.begin(), std::move(graph));
  return graphs_.front().get();
}

Status DecodeGraph::BeginPart(Part& part, DialogueStep& share) {
  Step& step = *step_;
  const auto n_rows = static_cast<int64_t>(part.tokens.size());
  LS_CHECK(n_rows >= 1 && step.rows + n_rows <= kMaxRows);
  LS_RETURN_IF_ERROR(share.Begin(*part.dialogue, n_rows, step.rows, sparsity_));
  for (int64_t i = 0; i < n_rows; ++i) {
    step.tokens[static_cast<size_t>(step.rows + i)] = part.tokens[static_cast<size_t>(i)];
    step.positions[static_cast<size_t>(step.rows + i)] = static_cast<int32_t>(share.first_position() + i);
  }
  step.parts.push_back(&share);
  step.rows += n_rows;
  return Status::Ok();
}

Status DecodeGraph::Compute(bool all_rows, Graph** graph) {
  LS_ASSIGN_OR_RETURN(*graph, GraphFor(step_->rows, all_rows));
  (*graph)->math.BeginStep();
  return threads_.Run((*graph)->graph);
}

void DecodeGraph::Run(std::span<Part> parts, bool all_rows) {
  const auto start = Clock::now();
  Step& step = *step_;
  step.parts.clear();
  step.rows = 0;
  step.attention_ms = 0;
  while (shares_.size() < parts.size()) {
    shares_.push_back(std::make_unique<DialogueStep>(model_, threads_.n_threads()));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    LS_CHECK(parts.size() == 1 || parts[i].tokens.size() == 1);
    parts[i].status = BeginPart(parts[i], *shares_[i]);
  }
  if (step.parts.empty()) return;
  Graph* graph = nullptr;
  const Status status = Compute(all_rows || parts.size() > 1, &graph);
  const double elapsed_ms = MillisecondsSince(start);
  double preparing_ms = 0, selection_ms = 0;
  for (const DialogueStep* share : step.parts) {
    preparing_ms += share->preparing_ms();
    selection_ms += share->selection_ms();
  }
  const int64_t n_vocab = model_.params().n_vocab;
  for (size_t i = 0; i < parts.size(); ++i) {
    Part& part = parts[i];
    if (!part.status.ok()) continue;
    part.status = status;
    if (!status.ok()) continue;
    const int64_t first_row = parts.size() > 1 ? shares_[i]->first_row() : 0;
    const int64_t n_rows = parts.size() > 1 ? 1 : graph->logits->ne[1];
    part.logits = {static_cast<const float*>(graph->logits->data) + first_row * n_vocab,
                   static_cast<size_t>(n_rows * n_vocab)};
    if (part.stats == nullptr) continue;
    shares_[i]->AddFigures(part.stats);
    part.stats->attention.attention_ms += step.attention_ms - selection_ms;
    part.stats->attention.selection_ms += selection_ms + preparing_ms;
    part.stats->linear_ms += elapsed_ms - step.attention_ms - preparing_ms;
  }
}

Result<std::vector<double>> DecodeGraph::MeasureCoverage(Dialogue& dialogue) {
  return sparsity_.MeasureCoverage(dialogue, shares_.front()->by_token());
}

}  // namespace loopserve
