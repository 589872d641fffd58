#include "eval/played_dialogue.h"

namespace loopserve::eval {

std::span<const TurnField> TurnFields() {
  static const TurnField kFields[] = {
      {"turn", &PlayedTurn::turn},
      {"dataset", &PlayedTurn::dataset},
      {"position", &PlayedTurn::position},
      {"dependency", &PlayedTurn::dependency},
      {"metric", &PlayedTurn::metric},
      {"sources", &PlayedTurn::sources, false, 3},
      {"answer", &PlayedTurn::answer},
      {"reference", &PlayedTurn::references},
      {"score", &PlayedTurn::score},
      {"cut_tokens", &PlayedTurn::cut_tokens, false, 3},
      {"prompt_tokens", &PlayedTurn::prompt_tokens},
      {"cached_tokens", &PlayedTurn::cached_tokens},
      {"new_tokens", &PlayedTurn::new_tokens},
      {"output_tokens", &PlayedTurn::output_tokens},
      {"stop_reason", &PlayedTurn::stop_reason},
      {"ttft_ms", &PlayedTurn::ttft_ms, true},
      {"tpot_ms", &PlayedTurn::tpot_ms, true},
      {"prefill_linear_ms", &PlayedTurn::prefill_linear_ms, true},
      {"prefill_attention_ms", &PlayedTurn::prefill_attention_ms, true},
      {"prefill_selection_ms", &PlayedTurn::prefill_selection_ms, true},
      {"decode_linear_ms", &PlayedTurn::decode_linear_ms, true},
      {"decode_attention_ms", &PlayedTurn::decode_attention_ms, true},
      {"decode_selection_ms", &PlayedTurn::decode_selection_ms, true},
      {"prefill_shared", &PlayedTurn::prefill_shared, true},
      {"prefill_density", &PlayedTurn::prefill_density},
      {"decode_kv_fraction", &PlayedTurn::decode_kv_fraction},
      {"kv_bytes", &PlayedTurn::kv_bytes},
      {"peak_rss_bytes", &PlayedTurn::peak_rss_bytes, true},
      {"kl", &PlayedTurn::kl},
      {"top1_agreement", &PlayedTurn::top1_agreement},
      {"answer_nll", &PlayedTurn::answer_nll, false, 3},
      {"reference_kl", &PlayedTurn::reference_kl, false, 3},
      {"reference_top1_agreement", &PlayedTurn::reference_top1_agreement, false, 3},
      {"reference_nll", &PlayedTurn::reference_nll},
  };
  return kFields;
}

}  // namespace loopserve::eval
