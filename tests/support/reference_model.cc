#include "tests/support/reference_model.h"

#include <algorithm>
#include <cmath>

#include "llama.h"

namespace loopserve {
namespace {

double LogSumExp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

}  // namespace

std::unique_ptr<ReferenceModel> ReferenceModel::Load(const std::string& path) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  std::unique_ptr<ReferenceModel> reference(new ReferenceModel);
  reference->model_ = llama_model_load_from_file(path.c_str(), llama_model_default_params());
  return reference->model_ == nullptr ? nullptr : std::move(reference);
}

ReferenceModel::~ReferenceModel() { llama_model_free(model_); }

int ReferenceModel::n_vocab() const { return llama_vocab_n_tokens(llama_model_get_vocab(model_)); }

std::vector<float> ReferenceModel::Logits(std::span<const int32_t> tokens) {
  const auto n = static_cast<int32_t>(tokens.size());
  llama_context_params params = llama_context_default_params();
  params.n_ctx = params.n_batch = params.n_ubatch = static_cast<uint32_t>(n);
  params.n_threads = params.n_threads_batch = 2;
  llama_context* context = llama_init_from_model(model_, params);
  std::vector<float> logits;
  if (context == nullptr) return logits;
  llama_batch batch = llama_batch_init(n, 0, 1);
  batch.n_tokens = n;
  for (int32_t i = 0; i < n; ++i) {
    batch.token[i] = tokens[static_cast<size_t>(i)];
    batch.pos[i] = i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  if (llama_decode(context, batch) == 0) {
    const float* all = llama_get_logits(context);
    logits.assign(all, all + static_cast<size_t>(n) * static_cast<size_t>(n_vocab()));
  }
  llama_batch_free(batch);
  llama_free(context);
  return logits;
}

LogitsDifference CompareLogits(std::span<const float> reference, std::span<const float> other, int n_vocab) {
  LogitsDifference difference;
  const size_t width = static_cast<size_t>(n_vocab);
  const size_t rows = reference.size() / width;
  for (size_t r = 0; r < rows; ++r) {
    const auto p = reference.subspan(r * width, width);
    const auto q = other.subspan(r * width, width);
    const double log_z_p = LogSumExp(p);
    const double log_z_q = LogSumExp(q);
    double kl = 0;
    for (size_t i = 0; i < width; ++i) {
      kl += std::exp(p[i] - log_z_p) * ((p[i] - log_z_p) - (q[i] - log_z_q));
      difference.max_abs = std::max(difference.max_abs, static_cast<double>(std::abs(p[i] - q[i])));
    }
    difference.mean_kl += kl / static_cast<double>(rows);
    difference.max_kl = std::max(difference.max_kl, kl);
    const bool same =
        std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin();
    difference.top1_agreement += (same ? 1.0 : 0.0) / static_cast<double>(rows);
  }
  return difference;
}

}  // namespace loopserve
