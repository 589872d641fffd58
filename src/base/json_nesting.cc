#include "src/base/json_nesting.h"

#include <algorithm>
#include <vector>

namespace loopserve {
namespace {

/// Deeper levels are counted, their members are not: nobody takes JSON that deep.
constexpr size_t kCountedLevels = 1000;

}  // namespace

JsonShape ShapeOfJson(std::string_view json) {
  JsonShape shape;
  std::vector<size_t> members;  // of the objects that are open; 0 for lists
  int depth = 0;
  bool in_text = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_text) {
      if (c == '\\') ++i;
      in_text = c != '"';
    } else if (c == '"') {
      in_text = true;
    } else if (c == '{' || c == '[') {
      shape.depth = std::max(shape.depth, ++depth);
      if (members.size() < kCountedLevels) members.push_back(c == '{' ? 1 : 0);
    } else if (c == '}' || c == ']') {
      if (depth > 0 && static_cast<size_t>(depth) == members.size()) members.pop_back();
      if (depth > 0) --depth;
    } else if (c == ',' && !members.empty() && static_cast<size_t>(depth) == members.size() && members.back() > 0) {
      shape.max_members = std::max(shape.max_members, ++members.back());
    }
  }
  return shape;
}

}  // namespace loopserve
