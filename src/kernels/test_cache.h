// A KV cache and queries with contents of one's choosing, for the tests and the benchmark of the kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "src/kernels/attention.h"

namespace loopserve::testing {

struct Shape {
  int n_heads = 1;
  int n_kv_heads = 1;
  int head_dim = 64;
  int64_t n_rows = 1;
  int64_t first_position = 0;
  int64_t window = 0;
  KvType type = KvType::kF16;
  int block_tokens = 24;   // no multiple of any tile
  int64_t extra_keys = 0;  // in the cache beyond the last row's position
};

/// Owns what an AttentionProblem points to. Blocks hold, for each KV head, its keys and then its values.
class TestCache {
 public:
  /// value(kind, head, token, lane), kind 'q', 'k' or 'v'.
  using Fill = std::function<float(char, int, int64_t, int)>;

  TestCache(const Shape& shape, float scale, const Fill& fill)
      : shape_(shape), n_keys_(shape.first_position + shape.n_rows + shape.extra_keys) {
    const size_t row_bytes = KvRowBytes(shape.type, shape.head_dim);
    const size_t run_bytes = row_bytes * static_cast<size_t>(shape.block_tokens);
    const int64_t n_blocks = (n_keys_ + shape.block_tokens - 1) / shape.block_tokens;
    for (int64_t b = 0; b < n_blocks; ++b) {
      blocks_.emplace_back(run_bytes * 2 * static_cast<size_t>(shape.n_kv_heads));
      pointers_.push_back(blocks_.back().data());
    }
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      KvHeadView view;
      view.type = shape.type;
      view.head_dim = shape.head_dim;
      view.block_tokens = shape.block_tokens;
      view.n_keys = n_keys_;
      view.row_bytes = row_bytes;
      view.blocks = pointers_.data();
      view.key_offset_bytes = run_bytes * 2 * static_cast<size_t>(head);
      view.value_offset_bytes = view.key_offset_bytes + run_bytes;
      views_.push_back(view);
      std::vector<float> row(static_cast<size_t>(shape.head_dim));
      for (int64_t t = 0; t < n_keys_; ++t) {
        for (int i = 0; i < shape.head_dim; ++i) row[static_cast<size_t>(i)] = fill('k', head, t, i);
        StoreKvRow(shape.type, row.data(), shape.head_dim, const_cast<std::byte*>(view.Key(t)));
        for (int i = 0; i < shape.head_dim; ++i) row[static_cast<size_t>(i)] = fill('v', head, t, i);
        StoreKvRow(shape.type, row.data(), shape.head_dim, const_cast<std::byte*>(view.Value(t)));
      }
    }
    q_.resize(static_cast<size_t>(shape.n_rows * QStride()));
    for (int64_t r = 0; r < shape.n_rows; ++r) {
      for (int h = 0; h < shape.n_heads; ++h) {
        for (int i = 0; i < shape.head_dim; ++i) {
          q_[static_cast<size_t>(r * QStride() + int64_t{h} * shape.head_dim + i)] = fill('q', h, r, i);
        }
      }
    }
    problem_.q = q_.data();
    problem_.q_row_stride = QStride();
    problem_.out_row_stride = OutStride();
    problem_.n_rows = shape.n_rows;
    problem_.first_position = shape.first_position;
    problem_.n_heads = shape.n_heads;
    problem_.n_kv_heads = shape.n_kv_heads;
    problem_.head_dim = shape.head_dim;
    problem_.scale = scale;
    problem_.window = shape.window;
    problem_.kv = views_.data();
  }
  TestCache(const TestCache&) = delete;
  TestCache& operator=(const TestCache&) = delete;

  /// The problem with `out`, [n_rows, OutStride()], as its result.
  AttentionProblem Problem(std::vector<float>& out) const {
    out.assign(static_cast<size_t>(shape_.n_rows * OutStride()), kUntouched);
    AttentionProblem problem = problem_;
    problem.out = out.data();
    return problem;
  }

  int64_t n_keys() const { return n_keys_; }
  const std::vector<float>& q() const { return q_; }
  const std::vector<KvHeadView>& views() const { return views_; }
  int64_t QStride() const { return int64_t{shape_.n_heads} * shape_.head_dim + 3; }
  int64_t OutStride() const { return int64_t{shape_.n_heads} * shape_.head_dim + 5; }
  /// What `out` holds between rows before and must hold after.
  static constexpr float kUntouched = 12345.0f;

 private:
  Shape shape_;
  int64_t n_keys_;
  std::vector<std::vector<std::byte>> blocks_;
  std::vector<const std::byte*> pointers_;
  std::vector<KvHeadView> views_;
  std::vector<float> q_;
  AttentionProblem problem_;
};

/// 64-byte aligned bytes.
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t size) : storage_(size + 64) {}
  std::byte* data() {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    return storage_.data() + (64 - address % 64) % 64;
  }

 private:
  std::vector<std::byte> storage_;
};

}  // namespace loopserve::testing
