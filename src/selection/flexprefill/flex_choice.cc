#include "src/selection/flexprefill/flex_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "src/selection/lines/line_sums.h"

namespace loopserve {
namespace {

using Weights = std::vector<double>;

int64_t BlocksOf(int64_t n_keys) { return (n_keys + kFlexBlock - 1) / kFlexBlock; }

/// Indices of the heaviest weights, heaviest first, the lower one among equals.
class HeaviestFirst {
 public:
  explicit HeaviestFirst(const Weights& weights) : weights_(weights), heap_(weights.size()) {
    std::iota(heap_.begin(), heap_.end(), 0);
    std::make_heap(heap_.begin(), heap_.end(), lighter_);
  }
  bool empty() const { return heap_.empty(); }
  int64_t Next() {
    std::pop_heap(heap_.begin(), heap_.end(), lighter_);
    const int64_t index = heap_.back();
    heap_.pop_back();
    return index;
  }

 private:
  struct Lighter {
    const Weights& weights;
    bool operator()(int64_t a, int64_t b) const {
      const double x = weights[static_cast<size_t>(a)];
      const double y = weights[static_cast<size_t>(b)];
      return x != y ? x < y : a > b;
    }
  };
  const Weights& weights_;
  std::vector<int64_t> heap_;
  Lighter lighter_{weights_};
};

/// The heaviest indices while their sum is at most `share`.
std::vector<int64_t> HeaviestWithin(const Weights& weights, double share) {
  std::vector<int64_t> taken;
  HeaviestFirst heaviest(weights);
  for (double sum = 0; !heaviest.empty();) {
    const int64_t index = heaviest.Next();
    sum += weights[static_cast<size_t>(index)];
    if (sum > share) break;
    taken.push_back(index);
  }
  return taken;
}

/// The mean weight of the rows on every column, and on every slash, the farthest first as in the published code.
void MeanLines(const FlexProblem& problem, Weights* columns, Weights* slashes) {
  SumLines(problem.rows, problem.n_keys, columns, slashes);
  std::ranges::reverse(*slashes);
  for (Weights* lines : {columns, slashes}) {
    for (double& weight : *lines) weight /= static_cast<double>(problem.rows.positions.size());
  }
}

Weights Pool(const Weights& lines) {
  Weights blocks(static_cast<size_t>(BlocksOf(static_cast<int64_t>(lines.size()))));
  for (size_t i = 0; i < lines.size(); ++i) blocks[i / kFlexBlock] += lines[i];
  return blocks;
}

/// softmax over key blocks [0, n) of a mean query's scores against the mean keys.
Weights MeanSoftmax(const FlexProblem& problem, const float* query, int64_t n) {
  Weights weights(static_cast<size_t>(n));
  const auto dim = static_cast<size_t>(problem.head_dim);
  for (size_t b = 0; b < weights.size(); ++b) {
    weights[b] = std::inner_product(query, query + dim, problem.mean_keys.data() + b * dim, 0.0) * problem.scale;
  }
  const double max = *std::ranges::max_element(weights);
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// The square root of the Jensen-Shannon divergence, in nats.
double Distance(const Weights& p, const Weights& q) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double mean = (p[i] + q[i]) / 2;
    if (p[i] > 0) sum += p[i] * std::log(p[i] / mean) / 2;
    if (q[i] > 0) sum += q[i] * std::log(q[i] / mean) / 2;
  }
  return std::sqrt(std::max(0.0, sum));
}

/// How many blocks' worth of lines hold gamma.
int64_t BlocksWanted(const Weights& lines, const FlexSettings& settings) {
  const auto n_blocks = BlocksOf(static_cast<int64_t>(lines.size()));
  const auto n_lines = static_cast<int64_t>(HeaviestWithin(lines, settings.gamma).size()) + 1;
  return std::clamp(n_lines / kFlexBlock + 1, std::min(BlocksOf(settings.min_budget), n_blocks), n_blocks);
}

/// The `count` heaviest blocks, with `forced` before all others.
std::vector<int64_t> HeaviestBlocks(Weights pooled, int64_t forced, int64_t count) {
  pooled[static_cast<size_t>(forced)] = std::numeric_limits<double>::infinity();
  std::vector<int64_t> blocks;
  HeaviestFirst heaviest(pooled);
  while (static_cast<int64_t>(blocks.size()) < std::max<int64_t>(count, 1)) blocks.push_back(heaviest.Next());
  return blocks;
}

/// Adds the pairs of blocks that the means' attention is heaviest on.
void AddMeanBlocks(const FlexProblem& problem, double gamma, FlexChoice* choice) {
  const int64_t n_blocks = BlocksOf(problem.n_keys);
  const int64_t first_block = problem.first_position / kFlexBlock;
  const auto n_rows = static_cast<int64_t>(choice->blocks.size());
  Weights pairs(static_cast<size_t>(n_rows * n_blocks));
  for (int64_t row = 0; row < n_rows; ++row) {
    const Weights weights =
        MeanSoftmax(problem, problem.mean_queries.data() + row * problem.head_dim, first_block + row + 1);
    std::ranges::copy(weights, pairs.begin() + row * n_blocks);
  }
  for (const int64_t pair : HeaviestWithin(pairs, gamma * static_cast<double>(n_rows))) {
    // Blocks after the row's own come in only when all others are in: their weight is 0.
    if (pair % n_blocks <= first_block + pair / n_blocks) {
      choice->blocks[static_cast<size_t>(pair / n_blocks)].push_back(static_cast<int32_t>(pair % n_blocks));
    }
  }
}

}  // namespace

int64_t FlexDenseKeys(int64_t min_budget) { return std::max(2 * kFlexBlock, BlocksOf(min_budget) * kFlexBlock); }

FlexChoice ChooseFlexBlocks(const FlexProblem& problem, const FlexSettings& settings) {
  const int64_t n_blocks = BlocksOf(problem.n_keys);
  const int64_t first_block = problem.first_position / kFlexBlock;
  Weights columns, slashes;
  MeanLines(problem, &columns, &slashes);
  const Weights pooled_columns = Pool(columns);
  FlexChoice choice;
  choice.is_query_aware =
      Distance(MeanSoftmax(problem, problem.mean_last_query.data(), n_blocks), pooled_columns) < settings.tau;
  const int64_t least = std::min(BlocksOf(settings.min_budget), n_blocks);
  const int64_t n_vertical = choice.is_query_aware ? least : BlocksWanted(columns, settings);
  const int64_t n_slash = choice.is_query_aware ? least : BlocksWanted(slashes, settings);
  const std::vector<int64_t> vertical = HeaviestBlocks(pooled_columns, 0, n_vertical);
  Weights nearest_first = Pool(slashes);  // pooled from the farthest on, as published: then the other way round
  std::ranges::reverse(nearest_first);
  const std::vector<int64_t> slash = HeaviestBlocks(nearest_first, 0, n_slash);

  choice.blocks.resize(static_cast<size_t>(n_blocks - first_block));
  for (int64_t row = first_block; row < n_blocks; ++row) {
    std::vector<int32_t>& blocks = choice.blocks[static_cast<size_t>(row - first_block)];
    for (const int64_t key : vertical) {
      if (key <= row) blocks.push_back(static_cast<int32_t>(key));
    }
    for (const int64_t offset : slash) {
      if (offset <= row) blocks.push_back(static_cast<int32_t>(row - offset));
    }
  }
  if (choice.is_query_aware) AddMeanBlocks(problem, settings.gamma, &choice);
  for (std::vector<int32_t>& blocks : choice.blocks) {
    std::ranges::sort(blocks);
    blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
  }
  return choice;
}

}  // namespace loopserve
