// Task scores, as LongBench's metrics.py computes them, and the public rouge-score package's ROUGE-L beside them. All
// are in [0, 1]; texts are UTF-8 and handled as Python handles them (eval/unicode_text.h). The golden pairs of
// eval/testdata/ hold these functions against the Python originals.
// Thread rule: pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace loopserve::eval {

/// normalize_answer(text).split() of LongBench: lower case, no ASCII punctuation, no articles.
std::vector<std::u32string> NormalizedWords(std::string_view text);

/// LongBench's qa_f1_score: the harmonic mean of precision and recall over words, counted with multiplicity, after
/// lowering and without ASCII punctuation and the articles a, an, the. 0 where either text has no word left.
double TokenF1(std::string_view answer, std::string_view reference);

/// LongBench's rouge_score: "rouge-l" f of the `rouge` package. Sentences end at each period. The words of the longest
/// common subsequences of all pairs of sentences, as a set, over the distinct words of each text; case and punctuation
/// count. 0 where either text has no sentence. The package gives up on sentences of about a thousand words (LongBench
/// then scores 0); this does not.
double RougeL(std::string_view answer, std::string_view reference);

/// rougeL f-measure of the `rouge-score` package, without stemming: the longest common subsequence of the lower-case
/// words of a-z and 0-9.
double RougeLPublic(std::string_view answer, std::string_view reference);

/// LongBench's classification_score: 1 / n if the reference is among the n class names that the answer contains, else
/// 0. A name that is part of the reference, but not the reference, does not count, with one exception that is kept for
/// the sake of equal scores: of two such names in a row the second still counts.
double ClassAccuracy(std::string_view answer, std::string_view reference, std::span<const std::string> classes);

/// The best score of the answer over all references; 0 without any. first_line_only: what follows the first line that
/// is not empty is not looked at, as LongBench does for few-shot sets.
double Score(Metric metric, std::string_view answer, std::span<const std::string> references,
             std::span<const std::string> classes, bool first_line_only);

}  // namespace loopserve::eval
