#include "src/model/prefill.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/model/attention_inspector.h"
#include "src/model/layer_graph.h"

namespace loopserve {

static_assert(Prefill::kPassRows == kMaxInspectedRows && Forward::kDecodeRows < kMinInspectedRows);

namespace {

constexpr size_t kMaxChunkNodes = 128;
/// Rows of a chunk for each thread: enough for the products' full speed, few enough that intermediate results stay in
/// the caches.
constexpr int64_t kChunkRowsPerThread = 256;
/// Buffers above this size are given back after a pass: a long prompt must not hold its workspace for ever.
constexpr size_t kKeptBufferBytes = size_t{64} << 20;

/// Copies the chunk's queries out of the graph and appends its keys and values to the cache, rows shared by threads.
struct StoreChunk {
  KvCache* cache;
  const HyperParams* params;
  int layer;
  int64_t first_position;
  float* q;  ///< [rows, q_width]

  static void Run(ggml_tensor* y, int thread, int n_threads, void* userdata) {
    const auto& chunk = *static_cast<const StoreChunk*>(userdata);
    const int64_t rows = y->src[0]->ne[2];
    const int64_t begin = rows * thread / n_threads;
    const int64_t end = rows * (thread + 1) / n_threads;
    const int64_t q_width = chunk.params->q_width();
    const int64_t kv_width = chunk.params->kv_width();
    std::memcpy(chunk.q + begin * q_width, static_cast<const float*>(y->src[0]->data) + begin * q_width,
                static_cast<size_t>((end - begin) * q_width) * sizeof(float));
    chunk.cache->StoreRows(chunk.layer, chunk.first_position + begin, end - begin,
                           static_cast<const float*>(y->src[1]->data) + begin * kv_width,
                           static_cast<const float*>(y->src[2]->data) + begin * kv_width, kv_width);
  }
};

AttentionMath AttentionMathFor(const Gemm* gemm) {
  const bool is_bf16 = gemm != nullptr && gemm->math() != GemmMath::kF32 && CpuHasNativeBf16();
  return is_bf16 ? AttentionMath::kBf16 : AttentionMath::kF32;
}

}  // namespace

/// The state of one pass.
struct Prefill::Pass {
  Dialogue& dialogue;
  std::span<const Token> tokens;
  const RunControl& control;
  bool all_logits;
  double done_before;
  double share;
  PrefillFigures figures;
  std::vector<int32_t> positions;
  double attention_wall_ms = 0;
  TurnAttention inspected;
  double inspection_ms = 0;
  int64_t steps_done = 0;
  int64_t steps_total = 0;

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  bool has_packed_rows() const { return rows() >= kMinPackedRows; }

  Status Step() {
    if (control.cancel != nullptr && control.cancel->load(std::memory_order_relaxed)) {
      return Status(StatusCode::kCancelled, "cancelled while the prompt was read");
    }
    ++steps_done;
    if (control.on_progress) {
      control.on_progress(done_before + share * static_cast<double>(steps_done) / static_cast<double>(steps_total));
    }
    if (control.yield) control.yield();
    return Status::Ok();
  }
};

Prefill::Prefill(const Model& model, const Gemm* gemm, PrefillWeights* weights, const Gemm* logits_gemm,
                 ComputeThreads& threads)
    : model_(model),
      gemm_(gemm),
      threads_(threads),
      quantized_math_(model),
      weights_(weights),
      rope_(model),
      head_(model, logits_gemm, threads),
      memory_(kMaxChunkNodes),
      attention_(model, AttentionMathFor(gemm), threads) {
  LS_CHECK((gemm != nullptr) == (weights != nullptr));
  if (gemm != nullptr) packed_math_ = std::make_unique<PackedMath>(model, *gemm, threads);
}

Prefill::~Prefill() = default;

Status Prefill::Run(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                    const LogitsCallback& on_logits, double done_before, double share, std::vector<float>* last_logits,
                    ForwardStats* stats) {
  LS_CHECK(!tokens.empty() && static_cast<int64_t>(tokens.size()) <= kPassRows);
  const auto start = Clock::now();
  KvCache& cache = dialogue.cache;
  Pass pass{dialogue, tokens, control, static_cast<bool>(on_logits), done_before, share, {}, {}};
  LS_RETURN_IF_ERROR(cache.ReserveTokens(pass.rows()));
  LS_RETURN_IF_ERROR(PrepareBuffers(pass));
  pass.positions.resize(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    pass.positions[i] = static_cast<int32_t>(cache.n_tokens() + static_cast<int64_t>(i));
  }
  if (control.inspector != nullptr) LS_RETURN_IF_ERROR(BeginInspection(pass));
  LS_RETURN_IF_ERROR(RunLayers(pass));
  LS_RETURN_IF_ERROR(Logits(pass, on_logits, last_logits));
  for (AlignedBuffer* buffer : {&x_, &q_}) {
    if (buffer->bytes() > kKeptBufferBytes) buffer->Free();
  }
  attention_.FreeAbove(kKeptBufferBytes);
  if (!pass.inspected.layers.empty()) control.inspector->turns.push_back(std::move(pass.inspected));
  if (stats != nullptr) {
    stats->linear_ms += MillisecondsSince(start) - pass.attention_wall_ms - pass.inspection_ms;
    stats->attention.Add(pass.figures);
  }
  return Status::Ok();
}

Status Prefill::PrepareBuffers(const Pass& pass) {
  const HyperParams& p = model_.params();
  const auto rows = static_cast<size_t>(pass.rows());
  const int64_t n_keys = pass.dialogue.cache.n_tokens() + pass.rows();
  const bool ok = x_.Reserve(rows * static_cast<size_t>(p.n_embd) * sizeof(float)) &&
                  q_.Reserve(rows * static_cast<size_t>(p.q_width()) * sizeof(float));
  if (!ok) {
    return Status(StatusCode::kResourceExhausted,
                  "not enough memory for the workspace of " + std::to_string(rows) + " new tokens");
  }
  return attention_.Reserve(pass.rows(), n_keys, pass.dialogue.policy);
}

Status Prefill::ForChunks(Pass& pass, int64_t first_row, const std::function<Status(int64_t, int64_t)>& body) {
  const int64_t chunk = kChunkRowsPerThread * threads_.n_threads();
  for (int64_t first = first_row; first < pass.rows(); first += chunk) {
    LS_RETURN_IF_ERROR(body(first, std::min(chunk, pass.rows() - first)));
    LS_RETURN_IF_ERROR(pass.Step());
  }
  return Status::Ok();
}

Status Prefill::RunLayers(Pass& pass) {
  Dialogue& dialogue = pass.dialogue;
  const int n_layers = model_.params().n_layers;
  const int64_t chunk = kChunkRowsPerThread * threads_.n_threads();
  const int64_t n_chunks = (pass.rows() + chunk - 1) / chunk;
  pass.steps_total = n_chunks + n_layers * (2 * n_chunks + 1) - (pass.all_logits ? 0 : n_chunks - 1);
  LS_RETURN_IF_ERROR(ForChunks(pass, 0, [&](int64_t first, int64_t rows) { return EmbedChunk(pass, first, rows); }));
  const bool packed = weights_ != nullptr && pass.has_packed_rows();
  if (packed) LS_RETURN_IF_ERROR(rope_.Fill(pass.positions, threads_));
  for (int layer = 0; layer < n_layers; ++layer) {
    // Of the last layer only its keys and values are needed, and one row's output: nothing reads the other rows.
    const bool is_last = layer == n_layers - 1;
    const int64_t first_needed = is_last && !pass.all_logits ? pass.rows() - 1 : 0;
    LS_RETURN_IF_ERROR(ForChunks(
        pass, 0, [&](int64_t first, int64_t rows) { return BeforeAttention(pass, layer, packed, first, rows); }));
    if (pass.control.inspector != nullptr) LS_RETURN_IF_ERROR(Inspect(pass, layer));
    const auto attention_start = Clock::now();
    dialogue.queries.Store(layer, dialogue.cache.n_tokens(), pass.rows(), q_.floats());
    LS_RETURN_IF_ERROR(attention_.Run(dialogue, layer, pass.rows(), first_needed, pass.control, &q_, &pass.figures));
    pass.attention_wall_ms += MillisecondsSince(attention_start);
    LS_RETURN_IF_ERROR(pass.Step());
    LS_RETURN_IF_ERROR(ForChunks(pass, first_needed, [&](int64_t first, int64_t rows) {
      return AfterAttention(layer, packed && first_needed == 0, first, rows);
    }));
  }
  return Status::Ok();
}

Status Prefill::BeginInspection(Pass& pass) {
  const HyperParams& p = model_.params();
  std::vector<int64_t> windows;
  for (int layer = 0; layer < p.n_layers; ++layer) windows.push_back(p.window(layer));
  LS_RETURN_IF_ERROR(pass.control.inspector->options.Validate(windows, p.n_heads));
  pass.inspected.first_position = pass.dialogue.cache.n_tokens();
  pass.inspected.n_rows = pass.rows();
  return Status::Ok();
}

Status Prefill::Inspect(Pass& pass, int layer) {
  const HyperParams& p = model_.params();
  const AttentionInspector& inspector = *pass.control.inspector;
  const bool wanted = !inspector.options.layer || *inspector.options.layer == layer;
  if (!wanted || p.window(layer) > 0 || pass.rows() < kMinInspectedRows) return Status::Ok();
  const auto start = Clock::now();
  std::vector<KvHeadView> views;
  for (int head = 0; head < p.n_kv_heads; ++head) {
    views.push_back(pass.dialogue.cache.View(layer, head, pass.inspected.n_keys()));
  }
  AttentionProblem problem;
  problem.q = q_.floats();
  problem.q_row_stride = p.q_width();
  problem.n_rows = pass.rows();
  problem.first_position = pass.inspected.first_position;
  problem.n_heads = p.n_heads;
  problem.n_kv_heads = p.n_kv_heads;
  problem.head_dim = p.head_dim;
  problem.scale = p.attention_scale;
  problem.kv = views.data();
  LS_RETURN_IF_ERROR(InspectLayer(problem, layer, inspector.options,
                                  inspector.turns.empty() ? nullptr : &inspector.turns.back(), pass.control.cancel,
                                  threads_, &pass.inspected));
  pass.inspection_ms += MillisecondsSince(start);
  return Status::Ok();
}

Status Prefill::EmbedChunk(Pass& pass, int64_t first, int64_t rows) {
  const int64_t width = model_.params().n_embd;
  ggml_cgraph* graph = memory_.Begin();
  ggml_context* context = memory_.context();
  LayerGraph layers(context, model_, quantized_math_);
  ggml_tensor* tokens = memory_.ExternalInts(const_cast<Token*>(pass.tokens.data()) + first, rows);
  ggml_tensor* target = memory_.External(x_.floats() + first * width, width, rows, width);
  ggml_build_forward_expand(graph, ggml_cpy(context, layers.Embed(tokens), target));
  LS_RETURN_IF_ERROR(memory_.Allocate(graph));
  return threads_.Run(graph);
}

/// For each chunk: where the one before yielded, another prompt may have taken the place of the layer's weights.
Status Prefill::PrepareLayer(int layer) {
  LS_ASSIGN_OR_RETURN(const PackedLayer* weights, weights_->Prepare(layer));
  return packed_math_->SetLayer(layer, weights);
}

Status Prefill::BeforeAttention(Pass& pass, int layer, bool packed, int64_t first, int64_t rows) {
  if (!packed) return BeforeAttentionGraph(pass, layer, first, rows);
  LS_RETURN_IF_ERROR(PrepareLayer(layer));
  const HyperParams& p = model_.params();
  return packed_math_->BeforeAttention(x_.floats() + first * p.n_embd, rows, pass.dialogue.cache.n_tokens() + first,
                                       rope_, first, &pass.dialogue.cache, q_.floats() + first * p.q_width());
}

Status Prefill::AfterAttention(int layer, bool packed, int64_t first, int64_t rows) {
  if (!packed) return AfterAttentionGraph(layer, first, rows);
  LS_RETURN_IF_ERROR(PrepareLayer(layer));
  const HyperParams& p = model_.params();
  return packed_math_->AfterAttention(q_.floats() + first * p.q_width(), rows, x_.floats() + first * p.n_embd);
}

Status Prefill::BeforeAttentionGraph(Pass& pass, int layer, int64_t first, int64_t rows) {
  const HyperParams& p = model_.params();
  ggml_cgraph* graph = memory_.Begin();
  ggml_context* context = memory_.context();
  LayerGraph layers(context, model_, quantized_math_);
  ggml_tensor* x = memory_.External(x_.floats() + first * p.n_embd, p.n_embd, rows, p.n_embd);
  const Projections heads = layers.BeforeAttention(layer, x, memory_.ExternalInts(pass.positions.data() + first, rows));
  StoreChunk store{&pass.dialogue.cache, &p, layer, pass.dialogue.cache.n_tokens() + first,
                   q_.floats() + first * p.q_width()};
  ggml_tensor* args[] = {heads.q, heads.k, heads.v};
  ggml_build_forward_expand(
      graph, ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, args, 3, StoreChunk::Run, GGML_N_TASKS_MAX, &store));
  LS_RETURN_IF_ERROR(memory_.Allocate(graph));
  return threads_.Run(graph);
}

Status Prefill::AfterAttentionGraph(int layer, int64_t first, int64_t rows) {
  const HyperParams& p = model_.params();
  ggml_cgraph* graph = memory_.Begin();
  ggml_context* context = memory_.context();
  LayerGraph layers(context, model_, quantized_math_);
  ggml_tensor* x = memory_.External(x_.floats() + first * p.n_embd, p.n_embd, rows, p.n_embd);
  ggml_tensor* attention = memory_.External(q_.floats() + first * p.q_width(), p.q_width(), rows, p.q_width());
  ggml_build_forward_expand(graph, layers.AfterAttention(layer, attention, x));
  LS_RETURN_IF_ERROR(memory_.Allocate(graph));
  return threads_.Run(graph);
}

Status Prefill::Logits(Pass& pass, const LogitsCallback& on_logits, std::vector<float>* last_logits) {
  const HyperParams& p = model_.params();
  if (pass.all_logits) {
    const int64_t first_position = pass.dialogue.cache.n_tokens();
    LS_RETURN_IF_ERROR(head_.AllRows(x_.floats(), pass.rows(), pass.has_packed_rows(),
                                     [&](int64_t row, std::span<const float> logits) {
                                       on_logits(first_position + row, logits);
                                       if (row == pass.rows() - 1) last_logits->assign(logits.begin(), logits.end());
                                     }));
    return Status::Ok();
  }
  return head_.LastRow(x_.floats() + (pass.rows() - 1) * p.n_embd, last_logits);
}

}  // namespace loopserve
