#include <omp.h>

#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <shared_mutex>
#include <tuple>
#include <vector>

#include "src/base/check.h"
#include "src/kernels/elementwise.h"
#include "src/model/gemm_library.h"

namespace loopserve {
namespace {

using dnnl::memory;

/// Row counts that get a primitive of their own are multiples of this; what is left over is padded.
constexpr int64_t kRowStep = 32;
/// More than any primitive used here wants.
constexpr size_t kScratchpadBytes = size_t{1} << 16;

memory::data_type ElementType(GemmMath math) {
  return math == GemmMath::kBf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

/// oneDNN parallelises with OpenMP inside a call; here the caller's threads each make their own call.
class OneOpenMpThread {
 public:
  OneOpenMpThread() : saved_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneOpenMpThread() { omp_set_num_threads(saved_); }

 private:
  int saved_;
};

int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

class OneDnnGemm : public Gemm {
 public:
  explicit OneDnnGemm(GemmMath math) : Gemm(math) { ChooseWeightLayout(); }

  size_t PackedBytes(int64_t k, int64_t n) const override;
  size_t PreparedRowBytes(int64_t k) const override { return static_cast<size_t>(k) * element_bytes(); }
  void PrepareRow(const float* row, int64_t k, std::byte* prepared) const override { Round(row, k, prepared); }
  size_t ProductScratchBytes(int64_t k, int64_t n) const override;

 private:
  struct Product {
    dnnl::matmul primitive;
    memory::desc source, weights, target, scratchpad;
  };
  using Key = std::tuple<int64_t, int64_t, int64_t>;  // rows, k, n

  // 64 columns are contiguous in every layout used, so each group is packed as a matrix of its own.
  void PackGroup(const float* rows, int64_t k, int64_t n_columns, std::byte* target) const override;
  void MultiplyRows(const std::byte* packed, int64_t k, int64_t n, const std::byte* x, int64_t n_rows, float* y,
                    std::byte* scratch) const override;
  size_t element_bytes() const { return math() == GemmMath::kBf16 ? 2 : 4; }
  void Round(const float* source, int64_t n, std::byte* target) const;
  const Product& Find(int64_t rows, int64_t k, int64_t n) const;
  void ChooseWeightLayout();

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  memory::format_tag weight_tag_ = memory::format_tag::ba;
  mutable std::shared_mutex mutex_;
  mutable std::map<Key, std::unique_ptr<Product>> products_;
};

/// Memory that there is not becomes what compute threads know of; anything else is a bug of ours.
[[noreturn]] void Rethrow(const dnnl::error& error) {
  if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
  throw error;
}

const OneDnnGemm::Product& OneDnnGemm::Find(int64_t rows, int64_t k, int64_t n) const {
  const Key key{rows, k, n};
  {
    std::shared_lock lock(mutex_);
    if (auto it = products_.find(key); it != products_.end()) return *it->second;
  }
  std::unique_lock lock(mutex_);
  std::unique_ptr<Product>& slot = products_[key];
  if (slot == nullptr) {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const memory::desc source({rows, k}, ElementType(math()), memory::format_tag::ab);
    const memory::desc weights({k, n}, ElementType(math()), weight_tag_);
    const memory::desc target({rows, n}, memory::data_type::f32, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc desc({source, weights, target}, attributes, engine_);
    slot = std::make_unique<Product>(Product{dnnl::matmul(desc), source, weights, target, desc.scratchpad_desc()});
  }
  return *slot;
}

/// The packed layout that oneDNN's own choice on this CPU agrees with: blocked on AVX-512, plain elsewhere.
void OneDnnGemm::ChooseWeightLayout() {
  const memory::desc source({kMaxRows, 512}, ElementType(math()), memory::format_tag::ab);
  const memory::desc any({512, 1024}, ElementType(math()), memory::format_tag::any);
  const memory::desc target({kMaxRows, 1024}, memory::data_type::f32, memory::format_tag::ab);
  const memory::desc chosen = dnnl::matmul::primitive_desc({source, any, target}, engine_).weights_desc();
  for (const auto tag : {memory::format_tag::BA16a64b2a, memory::format_tag::BA16a64b}) {
    if (chosen == memory::desc({512, 1024}, ElementType(math()), tag)) weight_tag_ = tag;
  }
}

size_t OneDnnGemm::PackedBytes(int64_t k, int64_t n) const {
  return memory::desc({k, RoundUp(n, kPackColumns)}, ElementType(math()), weight_tag_).get_size();
}

void OneDnnGemm::PackGroup(const float* rows, int64_t k, int64_t n_columns, std::byte* target) const try {
  if (weight_tag_ == memory::format_tag::ba) {
    Round(rows, n_columns * k, target);
    return;
  }
  const OneOpenMpThread one_thread;
  const memory::desc source_desc({k, n_columns}, memory::data_type::f32, memory::format_tag::ba);
  const memory::desc target_desc({k, n_columns}, ElementType(math()), weight_tag_);
  memory source(source_desc, engine_, const_cast<float*>(rows));
  memory result(target_desc, engine_, target);
  dnnl::stream stream(engine_);
  dnnl::reorder(source, result).execute(stream, source, result);
  stream.wait();
} catch (const dnnl::error& error) {
  Rethrow(error);
}

size_t OneDnnGemm::ProductScratchBytes(int64_t, int64_t n) const {
  return static_cast<size_t>(RoundUp(kRowStep * n * 4, 64)) + kScratchpadBytes;
}

void OneDnnGemm::Round(const float* source, int64_t n, std::byte* target) const {
  if (math() == GemmMath::kBf16) {
    RoundToBf16(source, n, reinterpret_cast<uint16_t*>(target));
  } else {
    std::memcpy(target, source, static_cast<size_t>(n) * sizeof(float));
  }
}

void OneDnnGemm::MultiplyRows(const std::byte* packed, int64_t k, int64_t n, const std::byte* x, int64_t n_rows,
                              float* y, std::byte* scratch) const try {
  const OneOpenMpThread one_thread;
  const size_t row_bytes = static_cast<size_t>(k) * element_bytes();
  std::byte* const scratchpad = scratch + RoundUp(kRowStep * n * 4, 64);
  const auto run = [&](int64_t rows, const std::byte* source, float* target) {
    const Product& product = Find(rows, k, n);
    LS_CHECK(product.scratchpad.get_size() <= kScratchpadBytes);
    dnnl::stream stream(engine_);
    product.primitive.execute(stream,
                              {{DNNL_ARG_SRC, memory(product.source, engine_, const_cast<std::byte*>(source))},
                               {DNNL_ARG_WEIGHTS, memory(product.weights, engine_, const_cast<std::byte*>(packed))},
                               {DNNL_ARG_DST, memory(product.target, engine_, target)},
                               {DNNL_ARG_SCRATCHPAD, memory(product.scratchpad, engine_, scratchpad)}});
    stream.wait();
  };
  for (int64_t first = 0; first < n_rows;) {
    const int64_t left = std::min(kMaxRows, n_rows - first);
    const int64_t whole = left / kRowStep * kRowStep;
    const std::byte* source = x + static_cast<size_t>(first) * row_bytes;
    if (whole > 0) {
      run(whole, source, y + first * n);
      first += whole;
      continue;
    }
    // The last rows are multiplied as a full step; what lies behind them in the operand is whatever the caller has
    // there, so it is copied to a padded place first.
    std::vector<std::byte> padded(static_cast<size_t>(kRowStep) * row_bytes);
    std::memcpy(padded.data(), source, static_cast<size_t>(left) * row_bytes);
    auto* rows = reinterpret_cast<float*>(scratch);
    run(kRowStep, padded.data(), rows);
    for (int64_t r = 0; r < left; ++r) std::memcpy(y + (first + r) * n, rows + r * n, sizeof(float) * n);
    first += left;
  }
} catch (const dnnl::error& error) {
  Rethrow(error);
}

}  // namespace

bool LibraryGemmIsAvailable(GemmMath math) {
  if (math != GemmMath::kBf16) return math == GemmMath::kF32;
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

Result<std::unique_ptr<Gemm>> CreateLibraryGemm(GemmMath math) {
  try {
    return std::unique_ptr<Gemm>(std::make_unique<OneDnnGemm>(math));
  } catch (const dnnl::error& error) {
    return Status(StatusCode::kInternal, std::string("oneDNN: ") + error.what());
  }
}

}  // namespace loopserve
