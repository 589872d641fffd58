// What two models say about the same text, compared, and the statistics of repeated measurements.
// Thread rule: pure functions; an accumulator belongs to one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve::bench {

/// log(sum(exp(logits))) in f64. logits: f32 [n_vocab], not empty.
double LogSumExp(std::span<const float> logits);

/// -log p(target), in nats. Precondition: target is within the vocabulary.
double NegativeLogLikelihood(std::span<const float> logits, int32_t target);

/// KL(reference || other) of the two next-token distributions, in nats, summed in f64. Both f32 [n_vocab].
double KlDivergence(std::span<const float> reference, std::span<const float> other);

/// Whether both hold the same token to be the likeliest (the lowest id wins a tie).
bool SameTop1(std::span<const float> a, std::span<const float> b);

/// The middle value; the mean of the two middle ones for an even count. Precondition: not empty.
double Median(std::vector<double> values);
/// The smallest value that at least `fraction` of the values do not exceed. Precondition: not empty, fraction in (0,
/// 1].
double Percentile(std::vector<double> values, double fraction);

}  // namespace loopserve::bench
