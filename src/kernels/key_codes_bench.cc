// Speed of what decoding does to every key of a context, step by step, in nanoseconds of CPU time for a thousand keys
// and queries ("ns_per_k"): sums of codes, weights of these, the heavy among them. Codes are read from memory that no
// cache holds ("cold", as decoding meets them, a layer after the other) or from the same run again and again ("hot").
//   key_codes_bench --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
#include <random>
#include <vector>

#include "benchmark/benchmark.h"
#include "src/kernels/key_codes.h"
#include "src/kernels/key_weights.h"

namespace loopserve {
namespace {

constexpr int kHeadDim = 64;
constexpr int kGroups = 32;
constexpr int64_t kKeys = int64_t{kGroups} * kCodeGroupKeys;

/// Runs of codes, and the tables of some queries.
struct Scene {
  Scene(int n_queries, int n_runs) : codes(static_cast<size_t>(n_runs)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    book.head_dim = kHeadDim;
    book.mean.assign(kHeadDim, 0.0f);
    book.deviation.assign(kHeadDim, 1.0f);
    for (int i = 0; i < kHeadDim / 4; ++i) {
      for (int j = 0; j < 2; ++j) {
        book.places.push_back(
            {static_cast<uint16_t>(2 * i + j), static_cast<uint8_t>(i), static_cast<uint8_t>(2 * j), 2});
      }
    }
    for (auto& run : codes) {
      run.resize(kGroups * CodeGroupBytes(kHeadDim));
      for (uint8_t& code : run) code = static_cast<uint8_t>(random());
    }
    rows.resize(static_cast<size_t>(n_queries) * CodeTableBytes(kHeadDim));
    std::vector<float> q(kHeadDim);
    for (int i = 0; i < n_queries; ++i) {
      for (float& x : q) x = normal(random);
      tables.push_back(
          MakeCodeTables(book, q.data(), 0.5f, rows.data() + static_cast<size_t>(i) * CodeTableBytes(kHeadDim)));
    }
    sums.resize(static_cast<size_t>(n_queries) * kKeys);
    weights.resize(sums.size());
    group_sums.resize(static_cast<size_t>(n_queries) * kGroups);
  }
  int n_queries() const { return static_cast<int>(tables.size()); }
  void Sum(size_t run) {
    SumCodes(codes[run % codes.size()].data(), kGroups, kHeadDim, tables.data(), n_queries(), sums.data(), kKeys);
  }
  void Weigh() {
    for (int i = 0; i < n_queries(); ++i) {
      WeighSums(sums.data() + i * kKeys, kGroups, tables[static_cast<size_t>(i)].base,
                tables[static_cast<size_t>(i)].step, weights.data() + i * kKeys,
                group_sums.data() + static_cast<ptrdiff_t>(i) * kGroups);
    }
  }

  KeyCodebook book;
  std::vector<std::vector<uint8_t>> codes;
  std::vector<uint8_t> rows;
  std::vector<CodeTables> tables;
  std::vector<uint16_t> sums, weights;
  std::vector<float> group_sums;
};

void Report(benchmark::State& state, const Scene& scene) {
  state.counters["ns_per_k"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * scene.n_queries() * kKeys * 1e-12,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void Sums(benchmark::State& state) {
  Scene scene(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  size_t run = 0;
  for (auto _ : state) {
    scene.Sum(run++);
    benchmark::DoNotOptimize(scene.sums.data());
  }
  Report(state, scene);
}
BENCHMARK(Sums)->ArgNames({"queries", "runs"})->ArgsProduct({{1, 3, 4, 7}, {1, 8192}});

void Weights(benchmark::State& state) {
  Scene scene(static_cast<int>(state.range(0)), 1);
  scene.Sum(0);
  for (auto _ : state) {
    scene.Weigh();
    benchmark::DoNotOptimize(scene.weights.data());
  }
  Report(state, scene);
}
BENCHMARK(Weights)->ArgName("queries")->Arg(3)->Arg(7);

void Heavy(benchmark::State& state) {
  Scene scene(static_cast<int>(state.range(0)), 1);
  scene.Sum(0);
  scene.Weigh();
  const std::vector<float> factors(static_cast<size_t>(scene.n_queries()), 1e-3f);
  std::vector<int32_t> numbers(kKeys + 16);
  std::vector<float> totals(kKeys + 16);
  for (auto _ : state) {
    benchmark::DoNotOptimize(FindHeavy(scene.weights.data(), kKeys, factors.data(), scene.n_queries(), kKeys, 5e-4f,
                                       numbers.data(), totals.data()));
  }
  Report(state, scene);
}
BENCHMARK(Heavy)->ArgName("queries")->Arg(3)->Arg(7);

void Tables(benchmark::State& state) {
  Scene scene(1, 1);
  std::vector<float> q(kHeadDim, 0.5f);
  for (auto _ : state) {
    benchmark::DoNotOptimize(MakeCodeTables(scene.book, q.data(), 0.5f, scene.rows.data()));
  }
}
BENCHMARK(Tables);

}  // namespace
}  // namespace loopserve

BENCHMARK_MAIN();
