// How deep JSON is nested, found without recursion: to be asked before anything that recurses sees it.
// Thread rule: pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace loopserve {

struct JsonShape {
  int depth = 0;           ///< of brackets, outside of texts
  size_t max_members = 0;  ///< of the object that has the most, where it has two or more
};

/// Right for valid JSON, harmless for other bytes.
JsonShape ShapeOfJson(std::string_view json);

}  // namespace loopserve
