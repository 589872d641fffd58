// Items of datasets for tests, made up.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace loopserve {

/// Three items as DIR/data/DATASET.jsonl; first_lines: before them, may be broken.
inline void WriteTestItems(const std::filesystem::path& dir, const std::string& dataset,
                           const std::string& first_lines = "") {
  std::filesystem::create_directories(dir / "data");
  std::ofstream file(dir / "data" / (dataset + ".jsonl"));
  if (!first_lines.empty()) file << first_lines << "\n";
  for (int i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i);
    std::string context;
    for (int p = 1; p <= 6; ++p) {
      context += "Passage " + std::to_string(p) + ":\\nItem " + n + "\\nThe river of place " + n + std::to_string(p) +
                 " is long, and so is the road along it.\\n";
    }
    file << R"({"input":"Which river is )" << n << R"(?","context":")" << context << R"(","answers":["river )" << n
         << R"("],"_id":"item)" << n << R"(","supporting_passages":[2,5]})"
         << "\n";
  }
}

}  // namespace loopserve
