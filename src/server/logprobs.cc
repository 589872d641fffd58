#include "src/server/logprobs.h"

#include <algorithm>
#include <cmath>

namespace loopserve::server {
namespace {

/// What JSON can say of a probability of nothing.
constexpr float kLeastLogprob = -9999.0f;

}  // namespace

void AddLogprobs(std::span<const float> logits, int n_top, AnswerDelta* delta) {
  const float largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  const double log_sum = largest + std::log(sum);
  const auto logprob = [&](Token token) {
    const double value = logits[static_cast<size_t>(token)] - log_sum;
    return std::isfinite(value) ? std::max(static_cast<float>(value), kLeastLogprob) : kLeastLogprob;
  };
  if (static_cast<size_t>(delta->token) < logits.size()) {
    delta->logprob = TokenLogprob{delta->token, logprob(delta->token)};
  }
  std::vector<Token> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Token>(i);
  const auto n = static_cast<ptrdiff_t>(std::min(order.size(), static_cast<size_t>(n_top)));
  std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](Token a, Token b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  });
  for (ptrdiff_t i = 0; i < n; ++i) delta->top.push_back({order[static_cast<size_t>(i)], logprob(order[i])});
}

}  // namespace loopserve::server
