// What a model must compute and read at the least, so that the speed table can say how near an engine comes to the
// machine's bound. Thread rule: a value.
#pragma once

#include <cstdint>
#include <string>

#include "bench/text_source.h"
#include "loopserve/status.h"
#include "src/model/hyper_params.h"

namespace loopserve::bench {

struct ModelCost {
  HyperParams params;
  int64_t layer_parameters = 0;   ///< in the matrices that every token passes
  int64_t output_parameters = 0;  ///< in the matrix that makes logits
  int64_t weight_bytes = 0;       ///< of both, as the file stores them: what each generated token reads

  /// kNotFound, kCorruptData, kUnsupported: as Engine::Open.
  static Result<ModelCost> Read(const std::string& model_path);

  /// Floating-point operations of prefilling the case's new tokens: two for each parameter and token, logits of the
  /// last token, and four for each head dimension of each (query, key) pair of which `density` are computed.
  double PrefillFlops(const SpeedCase& speed_case, double density) const;
  /// Bytes read for one token when `keys` are held: weights, and `kv_fraction` of the keys and values.
  double DecodeBytes(int64_t keys, double kv_bytes_per_value, double kv_fraction) const;
};

}  // namespace loopserve::bench
