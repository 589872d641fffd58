// Text in HTML and SVG. Thread rule: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace loopserve::eval {

/// On one line, with nothing left that is markup, within elements and quoted attributes.
std::string EscapeHtml(std::string_view text);

}  // namespace loopserve::eval
