// Runs of coded keys as bytes of a snapshot, and back. What a file says is checked before it is used: elements, nibbles
// and bits become indices and shifts.
#include <algorithm>
#include <cmath>
#include <utility>

#include "src/base/byte_reader.h"
#include "src/base/check.h"
#include "src/model/coded_keys.h"

namespace loopserve {
namespace {

/// A KeyCodebook::Place in a file.
struct StoredPlace {
  uint16_t element;
  uint8_t nibble;
  uint8_t shift;
  uint8_t bits;
  uint8_t zero;
};
static_assert(sizeof(StoredPlace) == 6);

void EncodeHead(const CodedKeys::Run& run, int n_groups, std::vector<std::byte>* bytes) {
  const auto n = static_cast<size_t>(n_groups);
  AppendBytes(std::span(run.book.mean), bytes);
  AppendBytes(std::span(run.book.deviation), bytes);
  AppendValue(static_cast<uint32_t>(run.book.places.size()), bytes);
  for (const KeyCodebook::Place& place : run.book.places) {
    AppendValue(StoredPlace{place.element, place.nibble, place.shift, place.bits, 0}, bytes);
  }
  AppendBytes(std::span(run.codes).first(n * CodeGroupBytes(run.book.head_dim)), bytes);
  AppendBytes(std::span(run.value_means).first(n * static_cast<size_t>(run.book.head_dim)), bytes);
}

bool AreFinite(const std::vector<float>& numbers) {
  return std::ranges::all_of(numbers, [](float x) { return std::isfinite(x); });
}

/// Places as PlaceBits makes them: by nibble, none beside its nibble, no bit and no element twice.
bool DecodePlaces(ByteReader& reader, KeyCodebook* book) {
  uint32_t n = 0;
  if (!reader.Read(&n) || n > static_cast<uint32_t>(book->head_dim)) return false;
  std::vector<uint8_t> used_bits(static_cast<size_t>(book->n_nibbles()), 0);
  std::vector<bool> used_elements(static_cast<size_t>(book->head_dim), false);
  int last_nibble = 0;
  for (uint32_t i = 0; i < n; ++i) {
    StoredPlace place;
    if (!reader.Read(&place)) return false;
    const bool fits = place.element < book->head_dim && place.nibble < book->n_nibbles() && place.bits >= 1 &&
                      place.shift + place.bits <= kMaxCodeBits && place.nibble >= last_nibble;
    if (!fits) return false;
    const auto bits = static_cast<uint8_t>(((1 << place.bits) - 1) << place.shift);
    if ((used_bits[place.nibble] & bits) != 0 || used_elements[place.element]) return false;
    used_bits[place.nibble] |= bits;
    used_elements[place.element] = true;
    last_nibble = place.nibble;
    book->places.push_back({place.element, place.nibble, place.shift, place.bits});
  }
  return true;
}

bool DecodeHead(ByteReader& reader, int n_groups, int head_dim, CodedKeys::Run* run) {
  const auto dim = static_cast<size_t>(head_dim);
  run->n_groups = n_groups;
  run->book.head_dim = head_dim;
  run->book.mean.resize(dim);
  run->book.deviation.resize(dim);
  if (!reader.ReadArray(run->book.mean.data(), dim) || !reader.ReadArray(run->book.deviation.data(), dim)) return false;
  if (!AreFinite(run->book.mean) || !AreFinite(run->book.deviation)) return false;
  if (!std::ranges::all_of(run->book.deviation, [](float x) { return x > 0; })) return false;
  if (!DecodePlaces(reader, &run->book)) return false;
  run->codes.resize(static_cast<size_t>(n_groups) * CodeGroupBytes(head_dim));
  run->value_means.resize(static_cast<size_t>(n_groups) * dim);
  return reader.ReadArray(run->codes.data(), run->codes.size()) &&
         reader.ReadArray(run->value_means.data(), run->value_means.size()) && AreFinite(run->value_means);
}

}  // namespace

int CodedKeys::n_groups(int r) const {
  return static_cast<int>(std::min<int64_t>(kRunGroups, n_keys_ / kCodeGroupKeys - int64_t{r} * kRunGroups));
}

std::vector<std::byte> CodedKeys::EncodeRun(int r, const HyperParams& params) const {
  std::vector<std::byte> bytes;
  for (int layer = 0; layer < params.n_layers; ++layer) {
    if (params.window(layer) > 0) continue;
    for (int kv_head = 0; kv_head < params.n_kv_heads; ++kv_head) {
      LS_CHECK(run(layer, kv_head, r).n_groups >= n_groups(r));
      EncodeHead(run(layer, kv_head, r), n_groups(r), &bytes);
    }
  }
  return bytes;
}

Status CodedKeys::AppendRun(std::span<const std::byte> bytes, int n_groups, const HyperParams& params,
                            const std::shared_ptr<KvBudget>& budget) {
  const Status corrupt(StatusCode::kCorruptData, "the coded keys are not those of such a model");
  if (n_groups < 1 || n_groups > kRunGroups || n_keys_ % kRunKeys != 0 || params.head_dim % 8 != 0) return corrupt;
  LS_ASSIGN_OR_RETURN(std::shared_ptr<SharedRun> run, NewRun(params, budget));
  ByteReader reader(bytes);
  for (int layer = 0; layer < params.n_layers; ++layer) {
    if (params.window(layer) > 0) continue;
    for (int kv_head = 0; kv_head < params.n_kv_heads; ++kv_head) {
      Run& head = run->heads[static_cast<size_t>(int64_t{layer} * params.n_kv_heads + kv_head)];
      if (!DecodeHead(reader, n_groups, params.head_dim, &head)) return corrupt;
    }
  }
  if (reader.left() != 0) return corrupt;
  n_kv_heads_ = params.n_kv_heads;
  runs_.push_back(std::move(run));
  n_keys_ += int64_t{n_groups} * kCodeGroupKeys;
  return Status::Ok();
}

}  // namespace loopserve
