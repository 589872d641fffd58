// Made-up items for the tests of this folder, and words as their tokens. Every text says which item and which place in
// it a word comes from, so that a test can see what a dialogue did with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "eval/datasets.h"
#include "eval/longbench.h"

namespace loopserve::eval {

inline int64_t CountWords(std::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool is_space = c == ' ' || c == '\n' || c == '\t';
    if (!is_space && !inside) ++words;
    inside = !is_space;
  }
  return words;
}

struct TestItemOptions {
  int words = 300;        ///< of the context, about
  int n_questions = 1;    ///< kDocument only
  bool support = true;    ///< kPassages: the second and the last but one passage answer the question
  const char* name = "";  ///< put into every word
};

/// "fact<name>N" is the N-th word; question N (from 1 on) asks for "fact<name>N" and is answered by it.
inline std::string TestDocument(const TestItemOptions& options) {
  std::string text;
  for (int i = 0; i < options.words; ++i) {
    if (i > 0) text += i % 10 == 0 ? ".\n" : " ";
    text += std::string("fact") + options.name + std::to_string(i);
  }
  return text + ".";
}

inline std::string TestPassages(const TestItemOptions& options) {
  constexpr int kWords = 30;
  const int n = std::max(4, options.words / kWords);
  std::string text;
  for (int i = 1; i <= n; ++i) {
    text += "Passage " + std::to_string(i) + ":\ntitle" + options.name + std::to_string(i) + "\n";
    if (i == 2) text += std::string("goldfirst") + options.name + " ";
    if (i == n - 1) text += std::string("goldsecond") + options.name + " ";
    for (int w = 0; w < kWords - 4; ++w) text += "w ";
    text += i < n ? "end.\n" : "end.";
  }
  return text;
}

inline std::string TestExamples(std::string_view part, const TestItemOptions& options) {
  std::string text;
  for (int i = 0; CountWords(text) < options.words; ++i) {
    text += std::string(part) + "example" + options.name + std::to_string(i) + " one two ?\n";
    text += part == "Question: " ? "Type: Date\n" : "Summary: they met.\n";
  }
  return text;
}

inline Item TestItem(const DatasetSpec& dataset, TestItemOptions options) {
  Item item;
  item.id = std::string("id-") + options.name;
  const std::string name = options.name;
  if (dataset.kind == ContextKind::kPassages) {
    item.context = TestPassages(options);
    const int n = std::max(4, options.words / 30);
    if (options.support) item.supporting_passages = {2, n - 1};
  } else if (dataset.kind == ContextKind::kExamples) {
    item.context = TestExamples(dataset.part, options);
    if (dataset.metric == Metric::kClassAccuracy) item.all_classes = {"Date", "Food"};
  } else {
    item.context = TestDocument(options);
  }
  for (int i = 1; i <= options.n_questions; ++i) {
    Question question;
    question.id = item.id + (options.n_questions > 1 ? "#" + std::to_string(i) : "");
    question.text = "What is fact" + name + std::to_string(i) + "?";
    if (dataset.name == "trec") question.text = "Question: " + question.text + "\nType:";
    if (dataset.name == "samsum") question.text = "Dialogue: " + question.text + "\nSummary: ";
    const bool asks = dataset.ask.find("{input}") != std::string_view::npos;
    if (!asks) question.text.clear();
    question.answers = {"fact" + name + std::to_string(i)};
    item.questions.push_back(std::move(question));
  }
  return item;
}

/// Items called A, B, C, ...
inline std::vector<Item> TestItems(const DatasetSpec& dataset, int n, TestItemOptions options = {}) {
  static const char* const kNames[] = {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J"};
  std::vector<Item> items;
  for (int i = 0; i < n; ++i) {
    options.name = kNames[i];
    items.push_back(TestItem(dataset, options));
  }
  return items;
}

}  // namespace loopserve::eval
