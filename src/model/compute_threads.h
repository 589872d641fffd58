// Runs ggml graphs on a fixed pool of threads, and builds them in reused memory.
// Thread rule: one owner; one graph at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "loopserve/status.h"

struct ggml_cgraph;
struct ggml_context;
struct ggml_tensor;
struct ggml_threadpool;
struct ggml_gallocr;

namespace loopserve {

class ComputeThreads {
 public:
  /// n_threads >= 1, the calling thread included.
  static Result<std::unique_ptr<ComputeThreads>> Create(int n_threads);
  ~ComputeThreads();

  int n_threads() const { return n_threads_; }
  /// Computes the graph; the calling thread works too. kInternal if ggml refuses it.
  Status Run(ggml_cgraph* graph);
  /// Calls body(thread, n_threads) once on every thread of the pool and waits for all. kResourceExhausted if one of
  /// them ran out of memory (std::bad_alloc); the others finish.
  Status Parallel(const std::function<void(int thread, int n_threads)>& body);
  /// body(item, thread) for items 0 to n_items - 1, handed out in this order to whichever thread is free. As Parallel.
  Status ForItems(int64_t n_items, const std::function<void(int64_t item, int thread)>& body);

 private:
  explicit ComputeThreads(int n_threads);
  int n_threads_;
  std::unique_ptr<class GraphMemory> parallel_memory_;
  ggml_threadpool* pool_ = nullptr;
  std::vector<uint8_t> work_;
};

/// Memory for one graph at a time: descriptions in a ggml context, data of intermediate tensors in a buffer that ggml's
/// allocator shares between tensors that are not alive together. Begin() forgets the graph before.
class GraphMemory {
 public:
  explicit GraphMemory(size_t max_nodes);
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;

  /// Starts an empty graph.
  ggml_cgraph* Begin();
  ggml_context* context() const { return context_; }
  /// Gives memory to all tensors of the graph that have none. kResourceExhausted when there is none.
  Status Allocate(ggml_cgraph* graph);
  /// A tensor over memory of the caller: f32 [ne1, ne0] (ggml order ne0, ne1), rows row_stride floats apart.
  ggml_tensor* External(float* data, int64_t ne0, int64_t ne1, int64_t row_stride);
  ggml_tensor* ExternalInts(int32_t* data, int64_t n);
  size_t buffer_bytes() const;

 private:
  size_t max_nodes_;
  std::vector<uint8_t> description_memory_;
  ggml_context* context_ = nullptr;
  ggml_gallocr* allocator_ = nullptr;
};

}  // namespace loopserve
