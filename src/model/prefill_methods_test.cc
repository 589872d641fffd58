// The published methods that choose by attention, over a whole layer: every head's output is that of a plain masked
// attention in f64, where the mask is the method's rule applied to that head's own queries and its KV head's keys. The
// rules themselves are held against plain implementations of their formulas in selection/.
#include "src/model/prefill_methods.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <string>

#include "src/kernels/test_attention.h"
#include "src/model/prefill_blocks.h"
#include "src/selection/flexprefill/flex_choice.h"
#include "src/selection/minference/vertical_slash.h"
#include "src/selection/xattention/block_choice.h"

namespace loopserve {
namespace {

using testing::Shape;
using testing::TestCache;

/// mask[head][row]: the keys that the row attends.
using Mask = std::vector<std::vector<std::set<int64_t>>>;

/// Queries that mostly look for one of their KV head's keys at a distance of the head's own, and for the first keys:
/// heads differ, and choices are clear.
TestCache LayerCache(const Shape& shape) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<std::vector<std::vector<float>>> keys(static_cast<size_t>(shape.n_kv_heads));
  const int64_t n_keys = shape.first_position + shape.n_rows;
  for (auto& head : keys) {
    head.resize(static_cast<size_t>(n_keys), std::vector<float>(static_cast<size_t>(shape.head_dim)));
    for (auto& key : head) {
      for (float& x : key) x = normal(random);
    }
  }
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  return TestCache(
      shape, 1.0f / std::sqrt(static_cast<float>(shape.head_dim)), [&](char kind, int head, int64_t t, int lane) {
        if (kind == 'k') return keys[at(head)][at(t)][at(lane)];
        if (kind == 'v') return normal(random);
        const auto& own = keys[at(head / (shape.n_heads / shape.n_kv_heads))];
        const int64_t position = shape.first_position + t;
        const int64_t wanted = std::max<int64_t>(0, position - 37 * (head + 1));
        return 0.7f * own[at(wanted)][at(lane)] + 0.4f * own[at(3 + head)][at(lane)] + 0.5f * normal(random);
      });
}

class PrefillMethodsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    shape_.n_heads = 4;
    shape_.n_kv_heads = 2;
    shape_.head_dim = 64;
    shape_.first_position = GetParam();
    shape_.n_rows = 700 - GetParam() / 2;
    cache_.reset(new TestCache(LayerCache(shape_)));  // which does not move
    problem_ = cache_->Problem(out_);
  }

  int64_t n_keys() const { return problem_.first_position + problem_.n_rows; }
  int64_t position(int64_t row) const { return problem_.first_position + row; }

  /// What the method computes under the policy's settings.
  std::vector<float> Run(const std::string& spec, Status (*method)(const PrefillLayer&)) {
    const Policy policy = *Policy::Parse(spec);
    const std::unique_ptr<ComputeThreads> threads = ComputeThreads::Create(2).value();
    std::vector<PrefillThread> states(2);
    for (PrefillThread& state : states) {
      EXPECT_TRUE(state.scratch.Reserve(SparseScratchBytes(shape_.head_dim, n_keys(), AttentionMath::kF32)));
    }
    AlignedBuffer packed;
    const size_t head_bytes = PackedKvBytes(shape_.head_dim, n_keys(), AttentionMath::kF32);
    EXPECT_TRUE(packed.Reserve(head_bytes * static_cast<size_t>(shape_.n_kv_heads)));
    const RunControl control;
    PrefillLayer layer;
    layer.settings = &policy.prefill();
    layer.threads = threads.get();
    layer.states = states;
    layer.control = &control;
    layer.problem = problem_;
    layer.views = cache_->views();
    for (size_t head = 0; head < layer.views.size(); ++head) {
      layer.packed.push_back(packed.data() + head * head_bytes);
      PackKv(layer.views[head], 0, n_keys(), AttentionMath::kF32, layer.packed.back());
    }
    layer.packed_read.assign(layer.packed.begin(), layer.packed.end());
    std::fill(out_.begin(), out_.end(), 0.0f);
    EXPECT_TRUE(method(layer).ok());
    computed_pairs_ = states[0].computed_pairs + states[1].computed_pairs;
    return out_;
  }

  std::vector<float> Masked(const Mask& mask) {
    std::fill(out_.begin(), out_.end(), 0.0f);
    MaskedAttentionReference(problem_, [&](int head, int64_t row, int64_t key) {
      return mask[static_cast<size_t>(head)][static_cast<size_t>(row)].contains(key);
    });
    return out_;
  }

  /// The output is the mask's, and the mask is this method's alone: it leaves keys out, and another head's is another.
  void ExpectIs(const std::string& spec, Status (*method)(const PrefillLayer&), const Mask& mask) {
    SCOPED_TRACE(spec);
    const double tolerance = testing::F32Tolerance(*cache_, shape_.head_dim);
    const std::vector<float> computed = Run(spec, method);
    testing::ExpectNear(computed, Masked(mask), tolerance);
    double pairs = 0;
    for (const auto& rows : mask) {
      for (const auto& keys : rows) pairs += static_cast<double>(keys.size());
    }
    EXPECT_EQ(computed_pairs_, pairs);
    Mask others = mask;
    std::rotate(others.begin(), others.begin() + 1, others.end());
    const std::vector<float> of_others = Masked(others);
    double distance = 0;
    for (size_t i = 0; i < computed.size(); ++i)
      distance = std::max(distance, double{std::abs(computed[i] - of_others[i])});
    EXPECT_GT(distance, 100 * tolerance) << "whose head a choice is matters";
  }

  Mask EmptyMask() const {
    return Mask(static_cast<size_t>(problem_.n_heads),
                std::vector<std::set<int64_t>>(static_cast<size_t>(problem_.n_rows)));
  }
  /// Keys [first, first + n) as far as the row may see them.
  void Allow(Mask& mask, int head, int64_t row, int64_t first, int64_t n) const {
    for (int64_t key = std::max<int64_t>(0, first); key < std::min(first + n, position(row) + 1); ++key) {
      mask[static_cast<size_t>(head)][static_cast<size_t>(row)].insert(key);
    }
  }

  /// Softmax weights of the turn's last n rows of a head, in f64, as the choices take them.
  struct LastRows {
    std::vector<int64_t> positions;
    std::vector<float> weights;
    int64_t stride = 0;
    SampledRows sampled() const { return {positions, weights.data(), stride}; }
  };
  LastRows WeightsOfLast(int head, int64_t n) const {
    LastRows rows;
    rows.stride = n_keys();
    n = std::min(n, problem_.n_rows);
    rows.weights.resize(static_cast<size_t>(n * rows.stride));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = problem_.n_rows - n + i;
      rows.positions.push_back(position(row));
      const std::vector<double> weights = testing::SoftmaxReference(problem_, head, row);
      std::ranges::copy(weights, rows.weights.begin() + i * rows.stride);
    }
    return rows;
  }

  std::vector<float> KeyOf(int head, int64_t key) const {
    const KvHeadView& kv = problem_.kv[head / (problem_.n_heads / problem_.n_kv_heads)];
    std::vector<float> values(static_cast<size_t>(problem_.head_dim));
    LoadKvRow(kv.type, kv.Key(key), kv.head_dim, values.data());
    return values;
  }
  std::vector<float> QueryOf(int head, int64_t row) const {
    const float* q = problem_.q + row * problem_.q_row_stride + int64_t{head} * problem_.head_dim;
    return {q, q + problem_.head_dim};
  }
  template <typename At>
  std::vector<float> MeanOf(int64_t first, int64_t last, const At& at) const {
    std::vector<float> mean(static_cast<size_t>(problem_.head_dim));
    for (int64_t i = first; i < last; ++i) {
      const std::vector<float> one = at(i);
      for (size_t d = 0; d < mean.size(); ++d) mean[d] += one[d] / static_cast<float>(last - first);
    }
    return mean;
  }

  Shape shape_;
  std::unique_ptr<TestCache> cache_;
  std::vector<float> out_;
  AttentionProblem problem_;
  double computed_pairs_ = 0;
};

// From an empty context, and on histories that end within blocks of every size.
INSTANTIATE_TEST_SUITE_P(Histories, PrefillMethodsTest, ::testing::Values(0, 100, 333));

TEST_P(PrefillMethodsTest, MInferenceIsItsColumnsAndWidenedSlashes) {
  Mask mask = EmptyMask();
  for (int head = 0; head < problem_.n_heads; ++head) {
    const LastRows last = WeightsOfLast(head, 64);
    const VerticalSlash choice = ChooseVerticalSlash({problem_.first_position, n_keys(), last.sampled()}, 45, 130);
    ASSERT_EQ(choice.columns.size(), 45u);
    // 64 rows at a time: a slash takes all keys that it meets in any of them, in whole tiles of 16.
    for (int64_t first = 0; first < problem_.n_rows; first += 64) {
      const int64_t end = std::min(first + 64, problem_.n_rows);
      std::set<int64_t> tiles;
      for (const int32_t slash : choice.slashes) {
        for (int64_t key = std::max<int64_t>(0, position(first) - slash); key < position(end) - slash; ++key) {
          tiles.insert(key / 16);
        }
      }
      for (int64_t row = first; row < end; ++row) {
        for (const int32_t column : choice.columns) Allow(mask, head, row, column, 1);
        for (const int64_t tile : tiles) Allow(mask, head, row, 16 * tile, 16);
      }
    }
  }
  ExpectIs("minference:columns=45,slashes=130", PrefillMInference, mask);
}

TEST_P(PrefillMethodsTest, FlexPrefillIsItsBlocks) {
  for (const double tau : {0.0, 1.0}) {  // by the last rows alone; by means
    Mask mask = EmptyMask();
    const int64_t first_block = problem_.first_position / 128, n_blocks = (n_keys() + 127) / 128;
    for (int head = 0; head < problem_.n_heads; ++head) {
      const LastRows last = WeightsOfLast(head, 128);
      const auto query = [&](int64_t row) { return QueryOf(head, row); };
      const std::vector<float> mean_last = MeanOf(problem_.n_rows - std::ssize(last.positions), problem_.n_rows, query);
      std::vector<float> mean_queries, mean_keys;
      for (int64_t block = 0; block < n_blocks; ++block) {
        const auto key = [&](int64_t t) { return KeyOf(head, t); };
        const std::vector<float> of_keys = MeanOf(128 * block, std::min(n_keys(), 128 * (block + 1)), key);
        mean_keys.insert(mean_keys.end(), of_keys.begin(), of_keys.end());
        if (block < first_block) continue;
        const int64_t begin = std::max<int64_t>(0, 128 * block - problem_.first_position);
        const int64_t end = std::min(problem_.n_rows, 128 * (block + 1) - problem_.first_position);
        const std::vector<float> of_rows = MeanOf(begin, end, query);
        mean_queries.insert(mean_queries.end(), of_rows.begin(), of_rows.end());
      }
      FlexProblem problem{problem_.first_position, n_keys(),  last.sampled(), problem_.head_dim,
                          problem_.scale,          mean_last, mean_queries,   mean_keys};
      const FlexChoice choice = ChooseFlexBlocks(problem, {.gamma = 0.6, .tau = tau, .min_budget = 1});
      EXPECT_EQ(choice.is_query_aware, tau == 1.0);
      for (int64_t row = 0; row < problem_.n_rows; ++row) {
        const auto& blocks = choice.blocks[static_cast<size_t>(position(row) / 128 - first_block)];
        for (const int32_t block : blocks) Allow(mask, head, row, 128 * block, 128);
      }
    }
    ExpectIs("flexprefill:gamma=0.6,min_budget=1,tau=" + std::string(tau == 0 ? "0" : "1"), PrefillFlexPrefill, mask);
  }
}

TEST_P(PrefillMethodsTest, XAttentionIsItsBlocks) {
  for (const int64_t stride : {8, 16}) {
    Mask mask = EmptyMask();
    for (int head = 0; head < problem_.n_heads; ++head) {
      const int64_t first_block = problem_.first_position / 64, n_blocks = (n_keys() + 63) / 64;
      for (int64_t block = first_block; block < n_blocks; ++block) {
        // The softmax over key groups of the antidiagonal means, added up over the block's row groups.
        std::vector<float> mass(static_cast<size_t>(block + 1));
        for (int64_t group = block * 64 / stride; group < std::min((block + 1) * 64, n_keys()) / stride + 1; ++group) {
          const int64_t end = std::min({(group + 1) * stride, n_keys(), (block + 1) * 64});
          if (end <= problem_.first_position || group * stride >= end) continue;
          std::vector<double> scores;
          for (int64_t other = 0; other <= group; ++other) {
            double score = 0;
            for (int64_t i = 0; i < stride; ++i) {
              const int64_t row = group * stride + i - problem_.first_position, key = other * stride + stride - 1 - i;
              if (row < 0 || row >= problem_.n_rows || key >= n_keys()) continue;  // count as zero
              const std::vector<float> q = QueryOf(head, row), k = KeyOf(head, key);
              score += std::inner_product(q.begin(), q.end(), k.begin(), 0.0);
            }
            scores.push_back(score * problem_.scale / static_cast<double>(stride));
          }
          const double most = std::ranges::max(scores);
          double sum = 0;
          for (double& score : scores) sum += score = std::exp(score - most);
          for (size_t other = 0; other < scores.size(); ++other) {
            mass[other * static_cast<size_t>(stride) / 64] += static_cast<float>(scores[other] / sum);
          }
        }
        const std::vector<int32_t> blocks = ChooseBlocks(mass, 0.5);
        for (int64_t at = std::max(problem_.first_position, 64 * block); at < std::min(n_keys(), 64 * (block + 1));
             ++at) {
          for (const int32_t keys : blocks) Allow(mask, head, at - problem_.first_position, 64 * keys, 64);
        }
      }
    }
    ExpectIs("xattention:threshold=0.5,block=64,stride=" + std::to_string(stride), PrefillXAttention, mask);
  }
}

}  // namespace
}  // namespace loopserve
