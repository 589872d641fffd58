#include "src/selection/eviction/eviction_choice.h"

#include "src/base/check.h"
#include "src/selection/eviction/adakv.h"
#include "src/selection/eviction/h2o.h"
#include "src/selection/eviction/pyramidkv.h"
#include "src/selection/eviction/snapkv.h"
#include "src/selection/eviction/streaming.h"

namespace loopserve {
namespace {

using Method = EvictionSettings::Method;

std::vector<int32_t> ChooseOfHead(const EvictionSettings& settings, const EvictionLayer& layer,
                                  const std::vector<float>& weight) {
  switch (settings.method) {
    case Method::kSnapKv:
      return ChooseSnapKv(weight, settings.budget, layer.window, settings.pool);
    case Method::kPyramidKv: {
      const PyramidShape shape = {settings.budget, layer.window, settings.beta, layer.n_layers};
      return ChooseSnapKv(weight, PyramidBudget(shape, layer.index, layer.n_tokens), layer.window, settings.pool);
    }
    case Method::kH2O:
      return ChooseH2O(weight, settings.budget);
    case Method::kStreaming:
      return ChooseStreaming(static_cast<int64_t>(weight.size()), settings.budget, settings.sinks);
    case Method::kNone:
    case Method::kAdaKv:
      break;
  }
  LS_CHECK(false);
  return {};
}

}  // namespace

bool ObservesWindow(const EvictionSettings& settings) {
  return settings.method == Method::kSnapKv || settings.method == Method::kPyramidKv ||
         settings.method == Method::kAdaKv;
}

bool SumsColumns(const EvictionSettings& settings) { return settings.method == Method::kH2O; }

std::vector<std::vector<int32_t>> ChooseKept(const EvictionSettings& settings, const EvictionLayer& layer) {
  if (settings.method == Method::kAdaKv) {
    return ChooseAdaKv(layer.weights, {settings.budget, layer.window, settings.pool, settings.alpha});
  }
  std::vector<std::vector<int32_t>> kept;
  for (const std::vector<float>& weight : layer.weights) kept.push_back(ChooseOfHead(settings, layer, weight));
  return kept;
}

}  // namespace loopserve
