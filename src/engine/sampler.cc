#include "src/engine/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "src/base/check.h"

namespace loopserve {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kChunk = 256;  // values between two looks at the running result
constexpr size_t kLanes = 32;   // independent partial results, so that the compiler uses vectors

constexpr float kLeastExponent = -88.0f;  // e^x is 0 from here down

// e^x for x in [-88, 0], relative error 2e-7; the last 0.3 above -88 give 0. Plain arithmetic without branches, so that
// loops over it become vectors and a seed means the same with every C library. Cody-Waite reduction; polynomial of
// Cephes' expf.
inline float ExpNonPositive(float x) {
  // Adding 1.5 * 2^23 rounds to an integer, which then is in the low bits.
  const float shifted = x * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;  // 2^n; 0 for n = -127
  return p * std::bit_cast<float>(power);
}

// weights[i] = e^((logits[i] - max_logit) * scale), 0 for NaN. Two loops: the compiler makes no vectors of one with
// both the comparison and the polynomial.
void ExpWeights(std::span<const float> logits, float max_logit, float scale, float* weights) {
  for (size_t i = 0; i < logits.size(); ++i) {
    const float x = (logits[i] - max_logit) * scale;
    weights[i] = x > kLeastExponent ? x : kLeastExponent;
  }
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = ExpNonPositive(weights[i]);
}

float ExpWeight(float logit, float max_logit) {
  float weight = 0;
  ExpWeights({&logit, 1}, max_logit, 1.0f, &weight);
  return weight;
}

// Sum of kChunk values, in a fixed order.
double ChunkSum(const float* values) {
  std::array<float, kLanes> lanes{};
  for (size_t j = 0; j < kChunk; j += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[j + lane];
  }
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// Sum of e^(x - max_logit) over all logits.
double ExpSum(std::span<const float> logits, float max_logit) {
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    std::array<float, kChunk> weights{};
    ExpWeights(logits.subspan(begin, std::min(kChunk, logits.size() - begin)), max_logit, 1.0f, weights.data());
    sum += ChunkSum(weights.data());
  }
  return sum;
}

float ChunkMax(const float* values) {
  std::array<float, kLanes> lanes;
  lanes.fill(-kInfinity);
  for (size_t j = 0; j < kChunk; j += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[j + lane] > lanes[lane] ? values[j + lane] : lanes[lane];  // a NaN is never greater
    }
  }
  return *std::max_element(lanes.begin(), lanes.end());
}

bool MoreLikely(const std::pair<float, Token>& a, const std::pair<float, Token>& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
}

// The smallest float whose difference to max_logit, in exact arithmetic, means at least min_p times its probability.
float LogitThreshold(float max_logit, float min_p) {
  if (min_p <= 0.0f) return -kInfinity;
  const double exact = static_cast<double>(max_logit) + std::log(static_cast<double>(min_p));
  const float rounded = static_cast<float>(exact);
  return rounded < exact ? std::nextafter(rounded, kInfinity) : rounded;
}

}  // namespace

std::pair<float, int64_t> FirstLargest(std::span<const float> values) {
  float best = -kInfinity;
  size_t begin = 0;  // where the best one is, or starts to be looked for
  size_t i = 0;
  for (; i + kChunk <= values.size(); i += kChunk) {
    const float largest = ChunkMax(values.data() + i);
    if (largest > best) {
      best = largest;
      begin = i;
    }
  }
  for (; i < values.size(); ++i) {
    if (values[i] > best) {
      best = values[i];
      begin = i;
    }
  }
  if (best == -kInfinity) return {best, 0};
  while (values[begin] != best) ++begin;
  return {best, static_cast<int64_t>(begin)};
}

Sampler::Sampler(const SamplingParams& params) : params_(params), rng_state_(params.seed) {}

double Sampler::NextUniform() {  // SplitMix64 (Steele, Lea, Flood 2014); 53 bits in [0, 1)
  rng_state_ += 0x9E3779B97F4A7C15u;
  uint64_t z = rng_state_;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

Token Sampler::Sample(std::span<const float> logits, std::span<const Token> recent) {
  LS_CHECK(!logits.empty());
  logits = Penalize(logits, recent);
  const auto [max_logit, best] = FirstLargest(logits);
  if (params_.temperature == 0.0f || !std::isfinite(max_logit)) return static_cast<Token>(best);

  const float at_least = LogitThreshold(max_logit, params_.min_p);
  const bool limits_k = params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size();
  if (!limits_k && params_.top_p >= 1.0f) return DrawFromAll(logits, max_logit, at_least);
  if (limits_k) KeepBest(logits, static_cast<size_t>(params_.top_k), -kInfinity);
  if (params_.top_p < 1.0f) KeepNucleus(logits, max_logit, at_least);
  while (candidates_.back().first < at_least) candidates_.pop_back();
  return DrawFromCandidates(max_logit);
}

std::span<const float> Sampler::Penalize(std::span<const float> logits, std::span<const Token> recent) {
  if (params_.repeat_penalty == 1.0f && params_.presence_penalty == 0.0f && params_.frequency_penalty == 0.0f) {
    return logits;
  }
  recent = recent.last(std::min(recent.size(), static_cast<size_t>(params_.penalty_window)));
  if (recent.empty()) return logits;
  penalized_.assign(logits.begin(), logits.end());
  counts_.resize(std::max(counts_.size(), logits.size()));
  seen_.clear();
  for (const Token token : recent) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    if (counts_[static_cast<size_t>(token)]++ == 0) seen_.push_back(token);
  }
  for (const Token token : seen_) {
    float& logit = penalized_[static_cast<size_t>(token)];
    int32_t& count = counts_[static_cast<size_t>(token)];
    logit = logit > 0 ? logit / params_.repeat_penalty : logit * params_.repeat_penalty;
    logit -= params_.presence_penalty + params_.frequency_penalty * static_cast<float>(count);
    count = 0;
  }
  return penalized_;
}

// candidates_ = the k most likely tokens (fewer where fewer are above -inf and not below at_least), sorted.
// One pass that compares with the least of the best so far; a buffer larger than k keeps the pruning rare.
void Sampler::KeepBest(std::span<const float> logits, size_t k, float at_least) {
  const size_t capacity = k + std::max<size_t>(k, 256);
  candidates_.clear();
  // Tokens come in the order of their ids, so one that only equals the k-th best is less likely than all of them.
  float above = at_least == -kInfinity ? -kInfinity : std::nextafter(at_least, -kInfinity);
  const auto prune = [&] {
    if (candidates_.size() <= k) return;
    const auto kth = candidates_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(candidates_.begin(), kth, candidates_.end(), MoreLikely);
    above = kth->first;
    candidates_.resize(k);
  };
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const size_t end = std::min(begin + kChunk, logits.size());
    if (end - begin == kChunk && !(ChunkMax(logits.data() + begin) > above)) continue;  // most chunks, soon
    for (size_t i = begin; i < end; ++i) {
      if (!(logits[i] > above)) continue;
      candidates_.emplace_back(logits[i], static_cast<Token>(i));
      if (candidates_.size() == capacity) prune();
    }
  }
  prune();
  std::sort(candidates_.begin(), candidates_.end(), MoreLikely);
}

// Cuts the sorted candidates_ (top_k), or all logits, to the shortest prefix with probability top_p. What is below
// at_least will be dropped anyway and need not be found.
void Sampler::KeepNucleus(std::span<const float> logits, float max_logit, float at_least) {
  const auto weight = [&](const Candidate& c) { return static_cast<double>(ExpWeight(c.first, max_logit)); };
  const auto cut = [&](double needed) {
    double sum = 0;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      sum += weight(candidates_[i]);
      if (sum < needed) continue;
      candidates_.resize(i + 1);
      return true;
    }
    return false;
  };
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size()) {
    double sum = 0;
    for (const Candidate& c : candidates_) sum += weight(c);
    cut(params_.top_p * sum);
    return;
  }
  // Most often a few tokens suffice: look at ever more of them.
  const double needed = params_.top_p * ExpSum(logits, max_logit);
  for (size_t k = 128;; k *= 16) {
    KeepBest(logits, std::min(k, logits.size()), at_least);
    if (cut(needed) || candidates_.size() < k) return;
  }
}

Token Sampler::DrawFromCandidates(float max_logit) {
  const auto weight = [&](const Candidate& c) {
    return std::exp((static_cast<double>(c.first) - max_logit) / params_.temperature);
  };
  double sum = 0;
  for (const Candidate& c : candidates_) sum += weight(c);
  double left = NextUniform() * sum;
  for (const Candidate& c : candidates_) {
    left -= weight(c);
    if (left < 0) return c.second;
  }
  return candidates_.front().second;  // rounding, once in 2^50 draws
}

// The whole vocabulary, unsorted: weights, their sums by chunks, then a walk to the chunk and to the token.
Token Sampler::DrawFromAll(std::span<const float> logits, float max_logit, float at_least) {
  const float scale = 1.0f / std::max(params_.temperature, 1e-30f);
  const size_t n_chunks = (logits.size() + kChunk - 1) / kChunk;
  weights_.resize(n_chunks * kChunk);
  std::fill(weights_.end() - kChunk, weights_.end(), 0.0f);
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kChunk) {
    const std::span<const float> chunk = logits.subspan(begin, std::min(kChunk, logits.size() - begin));
    float* weights = weights_.data() + begin;
    ExpWeights(chunk, max_logit, scale, weights);
    for (size_t i = 0; i < chunk.size(); ++i) weights[i] = chunk[i] >= at_least ? weights[i] : 0.0f;
    total += ChunkSum(weights);
  }
  double left = NextUniform() * total;
  for (size_t chunk = 0; chunk < n_chunks; ++chunk) {
    const double sum = ChunkSum(weights_.data() + chunk * kChunk);
    if (sum == 0) continue;
    if (left >= sum) {
      left -= sum;
      continue;
    }
    for (size_t i = chunk * kChunk; i < (chunk + 1) * kChunk; ++i) {
      if (weights_[i] == 0) continue;
      left -= weights_[i];
      if (left < 0) return static_cast<Token>(i);
    }
  }
  size_t last = weights_.size() - 1;  // rounding left a little behind the last one that can be drawn
  while (weights_[last] == 0) --last;
  return static_cast<Token>(last);
}

}  // namespace loopserve
