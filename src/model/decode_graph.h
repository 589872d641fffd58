// A step of decoding: all layers for a few rows as one ggml graph, attention as nodes of our own in it. The rows are
// the newest of one dialogue, or one of each of several dialogues: the products read the weights once for all of them,
// and attention is each dialogue's own (dialogue_step.h). A graph is built for a number of rows; steps only change what
// its nodes point at. Thread rule: one owner.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "loopserve/engine.h"
#include "src/model/compute_threads.h"
#include "src/model/decode_sparsity.h"
#include "src/model/dialogue_step.h"
#include "src/model/forward.h"
#include "src/model/layer_math.h"

namespace loopserve {

class DecodeGraph {
 public:
  DecodeGraph(const Model& model, ComputeThreads& threads);
  ~DecodeGraph();

  /// A dialogue's share of a step.
  struct Part {
    Dialogue* dialogue = nullptr;
    std::span<const Token> tokens;
    ForwardStats* stats = nullptr;  ///< may be null
    Status status = Status::Ok();  ///< where it could not take part: kResourceExhausted; its dialogue is to be cut back
    std::span<const float> logits;  ///< f32 [n_vocab] of the last token, [tokens, n_vocab] of all; until the next Run
  };
  /// Computes one part of up to Forward::kDecodeRows tokens, or up to Forward::kMaxSteps parts of one token each. The
  /// KV rows are stored but not committed. all_rows: logits of all tokens of one part.
  void Run(std::span<Part> parts, bool all_rows = false);

  DecodeSparsity& sparsity() { return sparsity_; }
  /// See DecodeSparsity::MeasureCoverage; of the last Run, which had one part.
  Result<std::vector<double>> MeasureCoverage(Dialogue& dialogue);

 private:
  struct Step;       // what the nodes of the current step read and write
  struct LayerNode;  // a layer's attention nodes
  struct Graph;
  static void StoreNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void WeighNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void PickNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void PartialNode(ggml_tensor* y, int thread, int n_threads, void* node);
  static void MergeNode(ggml_tensor* y, int thread, int n_threads, void* node);

  Result<Graph*> GraphFor(int64_t rows, bool all_rows);
  Status Build(Graph& graph);
  ggml_tensor* AddAttention(Graph& graph, int layer, const Projections& heads, ggml_tensor* turns);
  Status BeginPart(Part& part, DialogueStep& share);
  Status Compute(bool all_rows, Graph** graph);

  const Model& model_;
  ComputeThreads& threads_;
  DecodeSparsity sparsity_;
  std::unique_ptr<Step> step_;
  std::vector<std::unique_ptr<DialogueStep>> shares_;  ///< of parts
  std::vector<std::unique_ptr<Graph>> graphs_;         ///< the last used first
};

}  // namespace loopserve
