// libllama splits text into words by regular expressions. Where it has no hand-written splitter for a model's
// expression it uses std::regex, which recurses for every character of a match: 30,000 letters without a space end the
// process. Cutting such runs first keeps matches short. Texts that people write are not affected. Thread rule: pure
// function.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace loopserve {

/// Whether libllama splits words by std::regex for this value of tokenizer.ggml.pre.
bool SplitsByStdRegex(const std::string& pre);

/// Cuts valid UTF-8 so that no piece has more than 2048 characters in a row that are all white space or all not;
/// before a punctuation mark if there is one near. Pieces are views of `text`, which they make up.
std::vector<std::string_view> CutLongRuns(std::string_view text);

}  // namespace loopserve
