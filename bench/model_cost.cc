#include "bench/model_cost.h"

#include <algorithm>
#include <string_view>

#include "ggml.h"
#include "src/gguf/gguf_file.h"
#include "src/model/family.h"

namespace loopserve::bench {

Result<ModelCost> ModelCost::Read(const std::string& model_path) {
  LS_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(model_path));
  ModelCost cost;
  LS_ASSIGN_OR_RETURN(cost.params, ReadHyperParams(*file));
  const bool own_output = file->FindTensor("output.weight") != nullptr;
  for (const ggml_tensor* tensor : file->tensors()) {
    const std::string_view name = ggml_get_name(tensor);
    const bool is_output = name == (own_output ? "output.weight" : "token_embd.weight");
    const bool is_layer = name.starts_with("blk.") && tensor->ne[1] > 1;
    if (is_output) cost.output_parameters += ggml_nelements(tensor);
    if (is_layer) cost.layer_parameters += ggml_nelements(tensor);
    if (is_output || is_layer) cost.weight_bytes += static_cast<int64_t>(ggml_nbytes(tensor));
  }
  return cost;
}

double ModelCost::PrefillFlops(const SpeedCase& speed_case, double density) const {
  double pairs = 0;
  for (int layer = 0; layer < params.n_layers; ++layer) {
    const int64_t window = params.window(layer);
    for (int64_t i = 0; i < speed_case.new_tokens; ++i) {
      const int64_t keys = speed_case.context_tokens + i + 1;
      pairs += static_cast<double>(window > 0 ? std::min(window, keys) : keys);
    }
  }
  return 2.0 * static_cast<double>(layer_parameters) * static_cast<double>(speed_case.new_tokens) +
         2.0 * static_cast<double>(output_parameters) + 4.0 * params.q_width() * pairs * density;
}

double ModelCost::DecodeBytes(int64_t keys, double kv_bytes_per_value, double kv_fraction) const {
  double rows = 0;
  for (int layer = 0; layer < params.n_layers; ++layer) {
    const int64_t window = params.window(layer);
    rows += static_cast<double>(window > 0 ? std::min(window, keys) : keys);
  }
  return static_cast<double>(weight_bytes) + 2.0 * params.kv_width() * rows * kv_bytes_per_value * kv_fraction;
}

}  // namespace loopserve::bench
