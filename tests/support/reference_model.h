// libllama as the reference of the model tests: the logits of every row of a token sequence.
// Thread rule: one owner.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

struct llama_model;
struct llama_context;

namespace loopserve {

class ReferenceModel {
 public:
  /// Null if libllama refuses the file.
  static std::unique_ptr<ReferenceModel> Load(const std::string& path);
  ~ReferenceModel();

  int n_vocab() const;
  /// f32 [tokens, n_vocab], computed from an empty context; empty if libllama fails.
  std::vector<float> Logits(std::span<const int32_t> tokens);

 private:
  ReferenceModel() = default;
  llama_model* model_ = nullptr;
};

/// How two sets of logits over the same rows differ: KL(reference || other) in nats and the largest logit's identity.
struct LogitsDifference {
  double mean_kl = 0;
  double max_kl = 0;
  double top1_agreement = 0;
  double max_abs = 0;  ///< of the logits themselves
};
LogitsDifference CompareLogits(std::span<const float> reference, std::span<const float> other, int n_vocab);

}  // namespace loopserve
