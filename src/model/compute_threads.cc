#include "src/model/compute_threads.h"

#include <atomic>
#include <new>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "src/base/check.h"

namespace loopserve {

namespace {

struct ParallelWork {
  const std::function<void(int, int)>* body;
  std::atomic<bool> out_of_memory{false};
};

/// ggml's threads know no exceptions: one that left here would end the process.
void CallParallelBody(ggml_tensor*, int thread, int n_threads, void* userdata) {
  auto& work = *static_cast<ParallelWork*>(userdata);
  try {
    (*work.body)(thread, n_threads);
  } catch (const std::bad_alloc&) {
    work.out_of_memory.store(true, std::memory_order_relaxed);
  }
}

}  // namespace

ComputeThreads::ComputeThreads(int n_threads)
    : n_threads_(n_threads), parallel_memory_(std::make_unique<GraphMemory>(/*max_nodes=*/4)) {}

Result<std::unique_ptr<ComputeThreads>> ComputeThreads::Create(int n_threads) {
  std::unique_ptr<ComputeThreads> threads(new ComputeThreads(n_threads));
  ggml_threadpool_params params;
  ggml_threadpool_params_init(&params, n_threads);
  threads->pool_ = ggml_threadpool_new(&params);
  if (threads->pool_ == nullptr) return Status(StatusCode::kResourceExhausted, "cannot start the compute threads");
  return threads;
}

ComputeThreads::~ComputeThreads() {
  if (pool_ != nullptr) ggml_threadpool_free(pool_);
}

Status ComputeThreads::Run(ggml_cgraph* graph) {
  ggml_cplan plan = ggml_graph_plan(graph, n_threads_, pool_);
  if (plan.work_size > work_.size()) {
    try {
      work_.resize(plan.work_size);
    } catch (const std::bad_alloc&) {
      return Status(StatusCode::kResourceExhausted, "not enough memory for the work buffer of a step");
    }
  }
  plan.work_data = work_.data();
  if (ggml_graph_compute(graph, &plan) != GGML_STATUS_SUCCESS) {
    return Status(StatusCode::kInternal, "ggml could not compute a graph");
  }
  return Status::Ok();
}

Status ComputeThreads::Parallel(const std::function<void(int, int)>& body) {
  // A graph of one custom node: the work runs on the same pool as everything else, and idle threads are not woken
  // twice.
  ParallelWork work{&body};
  ggml_cgraph* graph = parallel_memory_->Begin();
  ggml_tensor* node = ggml_custom_4d(parallel_memory_->context(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0,
                                     CallParallelBody, GGML_N_TASKS_MAX, &work);
  ggml_build_forward_expand(graph, node);
  LS_RETURN_IF_ERROR(parallel_memory_->Allocate(graph));
  LS_RETURN_IF_ERROR(Run(graph));
  if (!work.out_of_memory.load(std::memory_order_relaxed)) return Status::Ok();
  return Status(StatusCode::kResourceExhausted, "not enough memory for the workspace of a thread");
}

Status ComputeThreads::ForItems(int64_t n_items, const std::function<void(int64_t item, int thread)>& body) {
  std::atomic<int64_t> next{0};
  return Parallel([&](int thread, int) {
    for (int64_t item; (item = next.fetch_add(1)) < n_items;) body(item, thread);
  });
}

GraphMemory::GraphMemory(size_t max_nodes) : max_nodes_(max_nodes) {
  description_memory_.resize(ggml_tensor_overhead() * max_nodes * 2 + ggml_graph_overhead_custom(max_nodes, false));
  allocator_ = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
}

GraphMemory::~GraphMemory() {
  if (context_ != nullptr) ggml_free(context_);
  if (allocator_ != nullptr) ggml_gallocr_free(allocator_);
}

ggml_cgraph* GraphMemory::Begin() {
  if (context_ != nullptr) ggml_free(context_);
  const ggml_init_params params{description_memory_.size(), description_memory_.data(), /*no_alloc=*/true};
  context_ = ggml_init(params);
  LS_CHECK(context_ != nullptr);
  return ggml_new_graph_custom(context_, max_nodes_, false);
}

Status GraphMemory::Allocate(ggml_cgraph* graph) {
  if (!ggml_gallocr_alloc_graph(allocator_, graph)) {
    return Status(StatusCode::kResourceExhausted, "not enough memory for the intermediate results of a step");
  }
  return Status::Ok();
}

ggml_tensor* GraphMemory::External(float* data, int64_t ne0, int64_t ne1, int64_t row_stride) {
  ggml_tensor* t = ggml_new_tensor_2d(context_, GGML_TYPE_F32, ne0, ne1);
  t->data = data;
  t->nb[1] = static_cast<size_t>(row_stride) * sizeof(float);
  t->nb[2] = t->nb[3] = t->nb[1] * static_cast<size_t>(ne1);
  return t;
}

ggml_tensor* GraphMemory::ExternalInts(int32_t* data, int64_t n) {
  ggml_tensor* t = ggml_new_tensor_1d(context_, GGML_TYPE_I32, n);
  t->data = data;
  return t;
}

size_t GraphMemory::buffer_bytes() const { return ggml_gallocr_get_buffer_size(allocator_, 0); }

}  // namespace loopserve
