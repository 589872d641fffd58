// Items of the benchmark's datasets, read from files with one JSON object a line: LongBench's own form
//   {"input": "...", "context": "...", "answers": ["..."], "all_classes": [...], "language": "en", "_id": "...", ...}
// and a form with several questions on one document
//   {"context": "...", "questions": ["..."], "answers": [["..."] or "...", ...], "document_id": "...", ...}
// In both, "supporting_passages" may number the passages that answer the question; fields not named here are ignored,
// as every source adds its own. Thread rule: pure functions, but for ReadItemFiles, which reads files.
#pragma once

#include <cstdint>
#include <istream>
#include <span>
#include <string>
#include <vector>

#include "eval/datasets.h"
#include "loopserve/status.h"

namespace loopserve::eval {

struct Question {
  std::string id;                    ///< the item's; with "#2" for the second of several
  std::string text;                  ///< empty for summaries
  std::vector<std::string> answers;  ///< not empty; each counts as right
};

struct Item {
  std::string id;  ///< the file's, else "NAME:LINE"
  std::string context;
  std::vector<Question> questions;  ///< not empty
  std::vector<std::string> all_classes;
  std::vector<int> supporting_passages;  ///< numbers as in "Passage N:", ascending; empty: not known
};

/// What became of the lines.
struct ItemFiles {
  std::vector<Item> items;
  int64_t skipped = 0;                ///< lines that are no item of this dataset
  std::vector<std::string> messages;  ///< why, for the first few of them: "FILE, line N: ..."
};

/// Adds the items of a file. name: for messages and ids. Every line that is broken, misses a field or has one of the
/// wrong type, names another dataset or a language other than English, or whose context is empty, is skipped and
/// counted. kIoError if the stream breaks; kCorruptData if the file has no good line.
Status ReadItems(std::istream& in, const std::string& name, const DatasetSpec& dataset, ItemFiles* result);

/// All files of a dataset below `dir`: NAME.jsonl, data/NAME.jsonl (as LongBench's release unpacks) and, in order of
/// their names, NAME/*.jsonl. kNotFound names what was looked for. A file without a good line is an error that ends up
/// in `messages` as long as another file has one.
Result<ItemFiles> ReadItemFiles(const std::string& dir, const DatasetSpec& dataset);

}  // namespace loopserve::eval
