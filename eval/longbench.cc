#include "eval/longbench.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "eval/json_fields.h"

namespace loopserve::eval {
namespace {

constexpr size_t kMaxMessages = 20;  // for each dataset; the count goes on

/// One answer, or the list of those that count as right.
Result<std::vector<std::string>> TakeAnswers(const Json& value) {
  std::vector<std::string> answers;
  if (value.is_string()) {
    answers.push_back(value.get<std::string>());
  } else {
    LS_ASSIGN_OR_RETURN(answers, TextsOf(value, "answers"));
  }
  std::erase_if(answers, IsBlank);
  if (answers.empty()) return Bad("the field \"answers\" has no answer");
  return answers;
}

Result<std::vector<Question>> TakeQuestions(const Json& line, const DatasetSpec& dataset) {
  const auto answers = line.find("answers");
  if (answers == line.end()) return Bad("the field \"answers\" is missing");
  const bool asks = dataset.ask.find("{input}") != std::string_view::npos;
  std::vector<Question> questions;
  if (!line.contains("questions")) {
    Question question;
    LS_ASSIGN_OR_RETURN(question.text, TakeText(line, "input"));
    if (asks && IsBlank(question.text)) return Bad("the field \"input\" is empty");
    LS_ASSIGN_OR_RETURN(question.answers, TakeAnswers(*answers));
    questions.push_back(std::move(question));
    return questions;
  }
  LS_ASSIGN_OR_RETURN(const std::vector<std::string> texts, TextsOf(line["questions"], "questions"));
  if (!answers->is_array() || answers->size() != texts.size() || texts.empty()) {
    return Bad("\"questions\" and \"answers\" must be lists of the same length");
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    if (asks && IsBlank(texts[i])) return Bad("question " + std::to_string(i + 1) + " is empty");
    Question question;
    question.text = texts[i];
    LS_ASSIGN_OR_RETURN(question.answers, TakeAnswers((*answers)[i]));
    questions.push_back(std::move(question));
  }
  return questions;
}

Result<std::vector<int>> TakeSupportingPassages(const Json& line) {
  const auto found = line.find("supporting_passages");
  std::set<int> numbers;
  if (found == line.end() || found->is_null()) return std::vector<int>();
  const Status wrong = Bad("the field \"supporting_passages\" must be a list of passage numbers");
  if (!found->is_array()) return wrong;
  for (const Json& number : *found) {
    if (!number.is_number_integer()) return wrong;
    const auto value = number.get<int64_t>();
    if (value < 1 || value > 1'000'000) return wrong;
    numbers.insert(static_cast<int>(value));
  }
  return std::vector<int>(numbers.begin(), numbers.end());
}

/// A text field that may be missing or null: then empty.
Result<std::string> TakeOptionalText(const Json& line, const std::string& key) {
  const auto found = line.find(key);
  if (found == line.end() || found->is_null()) return std::string();
  return TakeText(line, key);
}

Status CheckOrigin(const Json& line, const DatasetSpec& dataset) {
  LS_ASSIGN_OR_RETURN(const std::string language, TakeOptionalText(line, "language"));
  if (!language.empty() && language != "en") return Bad("the language is \"" + language + "\", not \"en\"");
  LS_ASSIGN_OR_RETURN(const std::string name, TakeOptionalText(line, "dataset"));
  if (!name.empty() && name != dataset.name) {
    return Bad("the item is of dataset \"" + name + "\", not \"" + std::string(dataset.name) + "\"");
  }
  return Status::Ok();
}

Result<Item> ParseItem(const std::string& text, const DatasetSpec& dataset, const std::string& default_id) {
  LS_ASSIGN_OR_RETURN(const Json line, ParseObject(text));
  LS_RETURN_IF_ERROR(CheckOrigin(line, dataset));
  Item item;
  LS_ASSIGN_OR_RETURN(item.context, TakeText(line, "context"));
  if (IsBlank(item.context)) return Bad("the field \"context\" is empty");
  LS_ASSIGN_OR_RETURN(item.questions, TakeQuestions(line, dataset));
  if (const auto classes = line.find("all_classes"); classes != line.end() && !classes->is_null()) {
    LS_ASSIGN_OR_RETURN(item.all_classes, TextsOf(*classes, "all_classes"));
  }
  if (dataset.metric == Metric::kClassAccuracy && item.all_classes.empty()) {
    return Bad("the field \"all_classes\" is missing");
  }
  LS_ASSIGN_OR_RETURN(item.supporting_passages, TakeSupportingPassages(line));
  LS_ASSIGN_OR_RETURN(item.id, TakeOptionalText(line, line.contains("_id") ? "_id" : "document_id"));
  if (item.id.empty()) item.id = default_id;
  for (size_t i = 0; i < item.questions.size(); ++i) {
    item.questions[i].id = item.id + (item.questions.size() > 1 ? "#" + std::to_string(i + 1) : "");
  }
  return item;
}

/// The files that may hold a dataset, those that exist.
std::vector<std::filesystem::path> FindFiles(const std::filesystem::path& dir, const std::string& name) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& file : {dir / (name + ".jsonl"), dir / "data" / (name + ".jsonl")}) {
    if (std::filesystem::exists(file, error)) files.push_back(file);
  }
  const size_t sorted_from = files.size();
  for (std::filesystem::directory_iterator entry(dir / name, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".jsonl") files.push_back(entry->path());
  }
  std::sort(files.begin() + static_cast<ptrdiff_t>(sorted_from), files.end());
  return files;
}

Status ReadItemFile(const std::filesystem::path& path, const DatasetSpec& dataset, ItemFiles* result) {
  LS_ASSIGN_OR_RETURN(std::ifstream in, OpenTextFile(path.string()));
  return ReadItems(in, path.string(), dataset, result);
}

}  // namespace

Status ReadItems(std::istream& in, const std::string& name, const DatasetSpec& dataset, ItemFiles* result) {
  const size_t items_before = result->items.size();
  // NAME.jsonl and data/NAME.jsonl may both be there.
  const std::filesystem::path path = name;
  const bool in_data = path.parent_path().filename() == "data";
  const std::string file_name = (in_data ? "data/" : "") + path.filename().string();
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (IsBlank(line)) continue;
    Result<Item> item = ParseItem(line, dataset, file_name + ":" + std::to_string(number));
    if (item.ok()) {
      result->items.push_back(std::move(*item));
      continue;
    }
    ++result->skipped;
    if (result->messages.size() < kMaxMessages) {
      result->messages.push_back(name + ", line " + std::to_string(number) + ": " + item.status().message());
    }
  }
  if (in.bad()) return Status(StatusCode::kIoError, "cannot read " + name);
  if (result->items.size() == items_before) {
    const std::string why = result->messages.empty() ? "" : "; the first: " + result->messages.front();
    return Bad(name + ": no line is an item of " + std::string(dataset.name) + why);
  }
  return Status::Ok();
}

Result<ItemFiles> ReadItemFiles(const std::string& dir, const DatasetSpec& dataset) {
  const std::string name(dataset.name);
  const auto files = FindFiles(dir, name);
  if (files.empty()) {
    return Status(StatusCode::kNotFound,
                  name + ": neither " + name + ".jsonl, data/" + name + ".jsonl nor " + name + "/*.jsonl is in " + dir);
  }
  ItemFiles result;
  Status first_error;
  for (const auto& file : files) {
    const Status status = ReadItemFile(file, dataset, &result);
    if (status.ok()) continue;
    if (first_error.ok()) first_error = status;
    result.messages.push_back(status.message());
  }
  if (result.items.empty()) return first_error;
  return result;
}

}  // namespace loopserve::eval
