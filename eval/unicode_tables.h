// Tables behind eval/unicode_text.h, made by tools/unicode_tables. Constant data.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loopserve::eval {

// A class of code points as sorted boundaries: those at even indices begin a run of members, those at odd ones end it.
extern const char32_t kWordBoundaries[];  // letters, digits and the underscore: \w of Python's re
extern const size_t kWordBoundariesCount;
extern const char32_t kCasedBoundaries[];  // Unicode's Cased, without what is ignorable too
extern const size_t kCasedBoundariesCount;
extern const char32_t kIgnorableBoundaries[];  // Unicode's Case_Ignorable
extern const size_t kIgnorableBoundariesCount;

/// Letters first, first + step, ..., last have their lower-case form `delta` code points on.
struct LowerRow {
  char32_t first;
  char32_t last;
  int32_t step;
  int32_t delta;
};
extern const LowerRow kLowerRows[];  // sorted; U+0130 and the capital sigma are not in it: unicode_text.cc has them
extern const size_t kLowerRowCount;

}  // namespace loopserve::eval
