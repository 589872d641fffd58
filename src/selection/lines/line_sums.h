// The weight of a few rows on every vertical and slash line: what MInference and FlexPrefill choose by. Pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "src/selection/lines/line_choice.h"

namespace loopserve {

/// columns[j], slashes[s]: the rows' weight on column j and slash s of line_choice.h, [n_keys] each, overwritten. A row
/// whose weights do not add up to a finite number counts as nothing.
void SumLines(const SampledRows& rows, int64_t n_keys, std::vector<double>* columns, std::vector<double>* slashes);

}  // namespace loopserve
