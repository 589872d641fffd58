#include "bench/model_cost.h"

#include <gtest/gtest.h>

namespace loopserve::bench {
namespace {

ModelCost TwoLayers(int64_t window_of_first) {
  ModelCost cost;
  cost.params.n_layers = 2;
  cost.params.n_heads = 4;
  cost.params.n_kv_heads = 2;
  cost.params.head_dim = 16;
  cost.params.sliding_window = window_of_first;
  cost.params.is_sliding_layer = {window_of_first > 0, false};
  cost.layer_parameters = 1000;
  cost.output_parameters = 100;
  cost.weight_bytes = 5000;
  return cost;
}

TEST(ModelCostTest, CountsParametersAndPairs) {
  // Three new tokens on ten: 11 + 12 + 13 = 36 pairs in each of two layers, 4 * 64 operations each.
  const double linear = 2.0 * 1000 * 3 + 2.0 * 100;
  EXPECT_EQ(TwoLayers(0).PrefillFlops({10, 3}, 1), linear + 4.0 * 64 * 72);
  EXPECT_EQ(TwoLayers(0).PrefillFlops({10, 3}, 0.5), linear + 4.0 * 64 * 36);
  EXPECT_EQ(TwoLayers(12).PrefillFlops({10, 3}, 1), linear + 4.0 * 64 * (36 + 11 + 12 + 12));
}

TEST(ModelCostTest, CountsWeightsKeysAndValues) {
  EXPECT_EQ(TwoLayers(0).DecodeBytes(100, 2, 1), 5000 + 2.0 * 32 * 200 * 2);
  EXPECT_EQ(TwoLayers(0).DecodeBytes(100, 2, 0.25), 5000 + 2.0 * 32 * 50 * 2);
  EXPECT_EQ(TwoLayers(30).DecodeBytes(100, 1, 1), 5000 + 2.0 * 32 * 130);
}

}  // namespace
}  // namespace loopserve::bench
