// Speed of the attention kernels at the shapes of real models, beside what this machine can do at best, measured in the
// same run: multiply-adds in f32 and (where the CPU has them) bf16, and reading memory. Every figure is the best of the
// iterations, once by the clock on the wall and once, "_cpu", by the CPU time of the busiest thread: on a machine that
// others use too only the latter says what the kernel does.
//   attention_bench --benchmark_filter='decode.*threads:2' --benchmark_min_time=2
#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "src/kernels/attention.h"
#include "src/kernels/machine_peak.h"
#include "src/kernels/test_cache.h"

namespace loopserve {
namespace {

using loopserve::testing::AlignedBytes;
using loopserve::testing::Shape;
using loopserve::testing::TestCache;

struct Seconds {
  double wall = 0;
  double cpu = 0;  // of the thread that took most

  Seconds& operator+=(const Seconds& other) {
    wall += other.wall;
    cpu += other.cpu;
    return *this;
  }
  void KeepBest(const Seconds& other) {
    wall = std::min(wall, other.wall);
    cpu = std::min(cpu, other.cpu);
  }
};
constexpr Seconds kNever = {HUGE_VAL, HUGE_VAL};

double ThreadSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Runs body(thread) on every thread and returns the time until the last is done. Threads are kept between calls.
class Crew {
 public:
  explicit Crew(int n_threads) : busy_(static_cast<size_t>(n_threads)), start_(n_threads), end_(n_threads) {
    for (int i = 1; i < n_threads; ++i) {
      threads_.emplace_back([this, i] {
        for (;;) {
          start_.arrive_and_wait();
          if (stop_) return;
          RunOn(i);
          end_.arrive_and_wait();
        }
      });
    }
  }
  ~Crew() {
    stop_ = true;
    start_.arrive_and_wait();
    for (std::thread& thread : threads_) thread.join();
  }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  Seconds Run(const std::function<void(int)>& body) {
    body_ = body;
    const auto begin = std::chrono::steady_clock::now();
    start_.arrive_and_wait();
    RunOn(0);
    end_.arrive_and_wait();
    return {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
            *std::max_element(busy_.begin(), busy_.end())};
  }

 private:
  void RunOn(int thread) {
    const double begin = ThreadSeconds();
    body_(thread);
    busy_[static_cast<size_t>(thread)] = ThreadSeconds() - begin;
  }

  std::vector<double> busy_;
  bool stop_ = false;
  std::function<void(int)> body_;
  std::barrier<> start_;
  std::barrier<> end_;
  std::vector<std::thread> threads_;
};

struct Model {
  const char* name;
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

constexpr Model kModels[] = {
    {"SmolLM2-135M", 9, 3, 64}, {"Qwen2.5-0.5B", 14, 2, 64}, {"Llama-3-8B", 32, 8, 128}, {"Gemma-3-270M", 4, 1, 256}};

Shape ShapeOf(const Model& model, int64_t n_rows, int64_t first_position, KvType type) {
  Shape shape;
  shape.n_heads = model.n_heads;
  shape.n_kv_heads = model.n_kv_heads;
  shape.head_dim = model.head_dim;
  shape.n_rows = n_rows;
  shape.first_position = first_position;
  shape.type = type;
  shape.block_tokens = 256;
  return shape;
}

// Cheap pseudo-random values in [-2, 2).
float Noise(char kind, int head, int64_t t, int lane) {
  auto x = static_cast<uint32_t>((kind * 64 + head) * 1048583 + t * 8191 + lane);
  x = (x ^ (x >> 15)) * 0x2C1B3C6Du;
  x = (x ^ (x >> 12)) * 0x297A2D39u;
  return static_cast<float>(x >> 8) * (4.0f / (1 << 24)) - 2.0f;
}

double CausalPairs(const Shape& shape) {
  const auto rows = static_cast<double>(shape.n_rows);
  return rows * static_cast<double>(shape.first_position) + rows * (rows + 1) / 2;
}

void BenchPrefill(benchmark::State& state, const Model& model, int64_t n_rows, int64_t first_position,
                  AttentionMath math, int n_threads) {
  const Shape shape = ShapeOf(model, n_rows, first_position, KvType::kF16);
  const TestCache cache(shape, 1.0f / std::sqrt(static_cast<float>(model.head_dim)), Noise);
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  std::vector<AlignedBytes> buffers;
  std::vector<const std::byte*> packed;
  for (int head = 0; head < model.n_kv_heads; ++head) {
    buffers.emplace_back(PackedKvBytes(model.head_dim, cache.n_keys(), math));
    packed.push_back(nullptr);
  }
  for (size_t head = 0; head < buffers.size(); ++head) packed[head] = buffers[head].data();
  std::vector<AlignedBytes> scratch;
  for (int i = 0; i < n_threads; ++i) scratch.emplace_back(PrefillScratchBytes(model.head_dim, math));
  Crew crew(n_threads);
  const int64_t n_items = PrefillItemCount(problem);
  const int64_t groups = (cache.n_keys() + kPackGroupKeys - 1) / kPackGroupKeys;
  Seconds pack_best = kNever;
  Seconds best = kNever;
  for (auto _ : state) {
    const Seconds pack_seconds = crew.Run([&](int thread) {
      const int64_t begin = groups * thread / n_threads * kPackGroupKeys;
      const int64_t end = std::min(groups * (thread + 1) / n_threads * kPackGroupKeys, cache.n_keys());
      for (int head = 0; head < model.n_kv_heads; ++head) {
        PackKv(problem.kv[head], begin, end, math, buffers[static_cast<size_t>(head)].data());
      }
    });
    std::atomic<int64_t> next = 0;
    Seconds seconds = pack_seconds;
    seconds += crew.Run([&](int thread) {
      for (int64_t item = next++; item < n_items; item = next++) {
        PrefillAttentionItem(problem, math, packed.data(), item, scratch[static_cast<size_t>(thread)].data());
      }
    });
    state.SetIterationTime(seconds.wall);
    pack_best.KeepBest(pack_seconds);
    best.KeepBest(seconds);
  }
  const double flops = 4.0 * model.n_heads * model.head_dim * CausalPairs(shape);
  state.counters["GFLOP/s"] = flops / best.wall * 1e-9;
  state.counters["GFLOP/s_cpu"] = flops / best.cpu * 1e-9;
  state.counters["pack_ms_cpu"] = pack_best.cpu * 1e3;
}

void BenchDecode(benchmark::State& state, const Model& model, int64_t n_rows, int64_t n_keys, KvType type,
                 int n_threads) {
  const Shape shape = ShapeOf(model, n_rows, n_keys - n_rows, type);
  const size_t layer_bytes =
      static_cast<size_t>(n_keys) * static_cast<size_t>(model.n_kv_heads) * 2 * KvRowBytes(type, model.head_dim);
  // As in a model, one layer after another, so that no cache holds what is read.
  const size_t n_layers = std::max<size_t>(1, (size_t{128} << 20) / layer_bytes);
  std::vector<std::unique_ptr<TestCache>> layers;
  for (size_t i = 0; i < n_layers; ++i) {
    layers.push_back(std::make_unique<TestCache>(shape, 1.0f / std::sqrt(static_cast<float>(model.head_dim)), Noise));
  }
  std::vector<float> out;
  AttentionProblem first = layers[0]->Problem(out);
  AlignedBytes partials(DecodePartialBytes(first, n_threads));
  Crew crew(n_threads);
  Seconds best = kNever;
  for (auto _ : state) {
    Seconds seconds;
    for (const auto& layer : layers) {
      const AttentionProblem problem = layer->Problem(out);
      seconds += crew.Run([&](int thread) { DecodeAttentionPartial(problem, thread, n_threads, partials.data()); });
      seconds += crew.Run([&](int thread) {
        const int begin = model.n_heads * thread / n_threads;
        const int end = model.n_heads * (thread + 1) / n_threads;
        DecodeAttentionMerge(problem, n_threads, begin, end, partials.data());
      });
    }
    seconds.wall /= static_cast<double>(n_layers);
    seconds.cpu /= static_cast<double>(n_layers);
    state.SetIterationTime(seconds.wall);
    best.KeepBest(seconds);
  }
  state.counters["GB/s"] = static_cast<double>(layer_bytes) / best.wall * 1e-9;
  state.counters["GB/s_cpu"] = static_cast<double>(layer_bytes) / best.cpu * 1e-9;
  state.counters["GFLOP/s_cpu"] = 4.0 * model.n_heads * model.head_dim * CausalPairs(shape) / best.cpu * 1e-9;
}

void PrintPeaks(int n_threads) {
  Crew crew(n_threads);
  const auto best_of = [&](const std::function<double(int)>& work) {
    double best = 0;
    std::vector<double> amounts(static_cast<size_t>(n_threads));
    for (int round = 0; round < 8; ++round) {
      const Seconds seconds = crew.Run([&](int thread) { amounts[static_cast<size_t>(thread)] = work(thread); });
      double total = 0;
      for (const double amount : amounts) total += amount;
      best = std::max(best, total / seconds.cpu * 1e-9);
    }
    return best;
  };
  const size_t share = (size_t{256} << 20) / static_cast<size_t>(n_threads);
  AlignedBytes memory(share * static_cast<size_t>(n_threads));
  const double f32 = best_of([](int) { return RunF32MultiplyAdds(); });
  const double bf16 = CpuHasNativeBf16() ? best_of([](int) { return RunBf16MultiplyAdds(); }) : 0;
  const double read =
      best_of([&](int thread) { return ReadMemory(memory.data() + share * static_cast<size_t>(thread), share); });
  std::printf(
      "measured peaks by CPU time, %d thread%s: f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, reading memory %.1f GB/s\n",
      n_threads, n_threads == 1 ? "" : "s", f32, bf16, read);
}

void Register() {
  const auto add = [](const std::string& name, auto body) {
    benchmark::RegisterBenchmark(name.c_str(), body)->UseManualTime()->Unit(benchmark::kMillisecond);
  };
  for (const Model& model : kModels) {
    for (const int threads : {1, 2}) {
      const std::string suffix = "/threads:" + std::to_string(threads);
      for (const AttentionMath math : {AttentionMath::kF32, AttentionMath::kBf16}) {
        if (math == AttentionMath::kBf16 && !CpuHasNativeBf16()) continue;
        for (const auto& [n_rows, first_position] : {std::pair<int64_t, int64_t>{7168, 0}, {2048, 0}, {64, 7104}}) {
          const int64_t rows = n_rows;
          const int64_t first = first_position;
          if (rows == 7168 && model.n_heads * model.head_dim > 1024) continue;
          add("prefill/" + std::string(model.name) + (math == AttentionMath::kF32 ? "/f32" : "/bf16") +
                  "/rows:" + std::to_string(rows) + "/keys:" + std::to_string(first + rows) + suffix,
              [=](benchmark::State& state) { BenchPrefill(state, model, rows, first, math, threads); });
        }
      }
      for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
        for (const int64_t rows : {1, 4}) {
          add("decode/" + std::string(model.name) + (type == KvType::kF16 ? "/f16" : "/q8_0") +
                  "/rows:" + std::to_string(rows) + "/keys:8192" + suffix,
              [=](benchmark::State& state) { BenchDecode(state, model, rows, 8192, type, threads); });
        }
      }
    }
  }
}

}  // namespace
}  // namespace loopserve

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const int threads : {1, 2}) loopserve::PrintPeaks(threads);
  loopserve::Register();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
