#include "src/model/model.h"

#include <set>

#include "ggml-cpu.h"
#include "ggml.h"
#include "src/model/family.h"

namespace loopserve {
namespace {

std::string ShapeText(const ggml_tensor* t) {
  std::string text = "[";
  for (int i = 0; i < ggml_n_dims(t); ++i) text += (i ? ", " : "") + std::to_string(t->ne[i]);
  return text + "]";
}

bool IsMatrixType(ggml_type type) {
  if (type == GGML_TYPE_F32) return true;
  // Integer tensors and the intermediate formats of ggml's own products have no conversion or no dot product.
  return ggml_get_type_traits(type)->to_float != nullptr && ggml_get_type_traits_cpu(type)->vec_dot != nullptr &&
         type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K;
}

}  // namespace

/// Takes tensors out of the file one by one, checks each, and remembers which were used.
class ModelLoader {
 public:
  explicit ModelLoader(Model* model) : model_(model), params_(model->params_), file_(*model->file_) {}

  Status Load() {
    LS_RETURN_IF_ERROR(LoadGlobals());
    model_->layers_.resize(params_.n_layers);
    for (int i = 0; i < params_.n_layers; ++i) LS_RETURN_IF_ERROR(LoadLayer(i, &model_->layers_[i]));
    return CheckAllUsed();
  }

 private:
  enum class Need { kRequired, kOptional };

  Status Take(const std::string& name, int64_t ne0, int64_t ne1, Need need, ggml_tensor** out) {
    ggml_tensor* t = file_.FindTensor(name);
    if (t == nullptr) {
      if (need == Need::kOptional) return Status::Ok();
      return Status(StatusCode::kCorruptData, "the tensor '" + name + "' is missing");
    }
    if (t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != 1 || t->ne[3] != 1) {
      return Status(StatusCode::kCorruptData, "the tensor '" + name + "' has the shape " + ShapeText(t) + ", not [" +
                                                  std::to_string(ne0) + (ne1 > 1 ? ", " + std::to_string(ne1) : "") +
                                                  "]");
    }
    used_.insert(t);
    *out = t;
    return Status::Ok();
  }

  Status Vector(const std::string& name, int64_t n, Need need, ggml_tensor** out) {
    LS_RETURN_IF_ERROR(Take(name, n, 1, need, out));
    if (*out != nullptr && (*out)->type != GGML_TYPE_F32) {
      return Status(StatusCode::kUnsupported,
                    "the tensor '" + name + "' is stored as " + ggml_type_name((*out)->type) + "; vectors must be f32");
    }
    return Status::Ok();
  }

  Status Matrix(const std::string& name, int64_t in, int64_t out_width, ggml_tensor** out,
                Need need = Need::kRequired) {
    LS_RETURN_IF_ERROR(Take(name, in, out_width, need, out));
    if (*out != nullptr && !IsMatrixType((*out)->type)) {
      return Status(StatusCode::kUnsupported, "the tensor '" + name + "' is stored as " + ggml_type_name((*out)->type) +
                                                  ", which cannot be multiplied with");
    }
    return Status::Ok();
  }

  Status LoadGlobals() {
    ggml_tensor* embedding = file_.FindTensor("token_embd.weight");
    if (embedding == nullptr) return Status(StatusCode::kCorruptData, "the tensor 'token_embd.weight' is missing");
    if (embedding->ne[1] < 1 || embedding->ne[1] > (1 << 24)) {
      return Status(StatusCode::kCorruptData, "the vocabulary size " + std::to_string(embedding->ne[1]) + " is absurd");
    }
    params_.n_vocab = static_cast<int>(embedding->ne[1]);
    LS_RETURN_IF_ERROR(Matrix("token_embd.weight", params_.n_embd, params_.n_vocab, &model_->token_embedding_));
    LS_RETURN_IF_ERROR(Vector("output_norm.weight", params_.n_embd, Need::kRequired, &model_->output_norm_));
    LS_RETURN_IF_ERROR(Matrix("output.weight", params_.n_embd, params_.n_vocab, &model_->output_, Need::kOptional));
    if (model_->output_ == nullptr) model_->output_ = model_->token_embedding_;
    return Vector("rope_freqs.weight", params_.rope.n_dims / 2, Need::kOptional, &model_->rope_factors_);
  }

  Status LoadLayer(int i, LayerWeights* w) {
    const HyperParams& p = params_;
    const std::string blk = "blk." + std::to_string(i) + ".";
    const Need qk = p.qk_norm ? Need::kRequired : Need::kOptional;
    LS_RETURN_IF_ERROR(Vector(blk + "attn_norm.weight", p.n_embd, Need::kRequired, &w->attn_norm));
    LS_RETURN_IF_ERROR(Matrix(blk + "attn_q.weight", p.n_embd, p.q_width(), &w->wq));
    LS_RETURN_IF_ERROR(Matrix(blk + "attn_k.weight", p.n_embd, p.kv_width(), &w->wk));
    LS_RETURN_IF_ERROR(Matrix(blk + "attn_v.weight", p.n_embd, p.kv_width(), &w->wv));
    LS_RETURN_IF_ERROR(Matrix(blk + "attn_output.weight", p.q_width(), p.n_embd, &w->wo));
    LS_RETURN_IF_ERROR(Vector(blk + "attn_q.bias", p.q_width(), Need::kOptional, &w->bq));
    LS_RETURN_IF_ERROR(Vector(blk + "attn_k.bias", p.kv_width(), Need::kOptional, &w->bk));
    LS_RETURN_IF_ERROR(Vector(blk + "attn_v.bias", p.kv_width(), Need::kOptional, &w->bv));
    LS_RETURN_IF_ERROR(Vector(blk + "attn_output.bias", p.n_embd, Need::kOptional, &w->bo));
    if (p.qk_norm) {
      LS_RETURN_IF_ERROR(Vector(blk + "attn_q_norm.weight", p.head_dim, qk, &w->q_norm));
      LS_RETURN_IF_ERROR(Vector(blk + "attn_k_norm.weight", p.head_dim, qk, &w->k_norm));
    }
    if (p.post_norms) {
      LS_RETURN_IF_ERROR(Vector(blk + "post_attention_norm.weight", p.n_embd, Need::kRequired, &w->attn_post_norm));
      LS_RETURN_IF_ERROR(Vector(blk + "post_ffw_norm.weight", p.n_embd, Need::kRequired, &w->ffn_post_norm));
    }
    return LoadFeedForward(blk, w);
  }

  Status LoadFeedForward(const std::string& blk, LayerWeights* w) {
    const HyperParams& p = params_;
    LS_RETURN_IF_ERROR(Vector(blk + "ffn_norm.weight", p.n_embd, Need::kRequired, &w->ffn_norm));
    LS_RETURN_IF_ERROR(Matrix(blk + "ffn_gate.weight", p.n_embd, p.n_ff, &w->w_gate));
    LS_RETURN_IF_ERROR(Matrix(blk + "ffn_up.weight", p.n_embd, p.n_ff, &w->w_up));
    LS_RETURN_IF_ERROR(Matrix(blk + "ffn_down.weight", p.n_ff, p.n_embd, &w->w_down));
    LS_RETURN_IF_ERROR(Vector(blk + "ffn_gate.bias", p.n_ff, Need::kOptional, &w->b_gate));
    LS_RETURN_IF_ERROR(Vector(blk + "ffn_up.bias", p.n_ff, Need::kOptional, &w->b_up));
    LS_RETURN_IF_ERROR(Vector(blk + "ffn_down.bias", p.n_embd, Need::kOptional, &w->b_down));
    for (const ggml_tensor* t : {w->wq, w->wk, w->wv, w->wo, w->w_gate, w->w_up, w->w_down}) {
      model_->n_layer_parameters_ += ggml_nelements(t);
    }
    return Status::Ok();
  }

  /// A tensor that nothing reads means a variant of the family that this code does not know: its answers would be
  /// wrong.
  Status CheckAllUsed() {
    for (ggml_tensor* t : file_.tensors()) {
      model_->n_parameters_ += ggml_nelements(t);
      const std::string name = ggml_get_name(t);
      const bool is_unused_by_design = name.ends_with("rope_freqs.weight") || name.ends_with("attn.rot_embd");
      if (!used_.contains(t) && !is_unused_by_design) {
        return Status(StatusCode::kUnsupported, "the tensor '" + name + "' is not part of the '" + params_.family +
                                                    "' models that are supported");
      }
    }
    return Status::Ok();
  }

  Model* model_;
  HyperParams& params_;
  const GgufFile& file_;
  std::set<const ggml_tensor*> used_;
};

Result<std::unique_ptr<Model>> Model::Load(std::unique_ptr<GgufFile> file) {
  std::unique_ptr<Model> model(new Model);
  LS_ASSIGN_OR_RETURN(model->params_, ReadHyperParams(*file));
  model->file_ = std::move(file);
  LS_RETURN_IF_ERROR(ModelLoader(model.get()).Load());
  return model;
}

}  // namespace loopserve
