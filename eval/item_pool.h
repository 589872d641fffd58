// The items that dialogues of a dataset are made of, and the order in which they are taken. Thread rule: pure
// functions.
#pragma once

#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "eval/context_cut.h"
#include "eval/longbench.h"

namespace loopserve::eval {

struct PooledItem {
  Item item;
  int64_t context_tokens = 0;
};

/// Counts tokens, and makes one item of those of a kDocument set that have the same context: LongBench gives a document
/// once for each of its questions. A question that comes twice is kept once.
std::vector<PooledItem> MakePool(const DatasetSpec& dataset, std::vector<Item> items, const CountTokens& count);

/// The distinct words of a text, as NormalizedWords has them.
std::set<std::u32string> WordSet(std::string_view text);

/// Share of an answer's telling words (with four letters or a digit) that are among a text's, for the reference that
/// fares best; 0.5 where no reference has such words, as in "yes".
double AnswerSupport(const Question& question, const std::set<std::u32string>& text_words);

/// What an item must offer for a use.
struct ItemNeed {
  int64_t share_tokens = 0;  ///< room for its context
  int min_questions = 1;
  bool splits = false;  ///< its text is to be spread over two turns
};

/// The items in the order in which dialogues take them: as the generator shuffles them, but first those that lose
/// little. The classes, best first, count how often the text must be halved (or doubled) to fit its room, where this
/// loses anything, and two more if the answers of a question cannot be seen in what is left. Examples and passages with
/// known support can be left out without loss. `splits` puts items with known support first in kPassages sets. Of items
/// with the same id the first is taken.
std::vector<const PooledItem*> OrderItems(const DatasetSpec& dataset, const std::vector<PooledItem>& pool,
                                          const ItemNeed& need, const CountTokens& count, std::mt19937_64* random);

/// Fisher and Yates, the same on every standard library.
template <typename T>
void Shuffle(std::vector<T>* values, std::mt19937_64* random) {
  for (size_t i = values->size(); i > 1; --i) std::swap((*values)[i - 1], (*values)[(*random)() % i]);
}

}  // namespace loopserve::eval
