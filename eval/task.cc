#include "eval/task.h"

#include <utility>

#include "src/base/check.h"

namespace loopserve::eval {
namespace {

template <typename T>
struct Named {
  T value;
  std::string_view name;
};

constexpr Named<Metric> kMetrics[] = {
    {Metric::kTokenF1, "f1"}, {Metric::kRougeL, "rouge_l"}, {Metric::kClassAccuracy, "accuracy"}};
constexpr Named<Position> kPositions[] = {
    {Position::kBegin, "begin"}, {Position::kMiddle, "middle"}, {Position::kEnd, "end"}};
constexpr Named<Dependency> kDependencies[] = {
    {Dependency::kSame, "same"}, {Dependency::kEarlier, "earlier"}, {Dependency::kCross, "cross"}};

constexpr const auto& TableOf(Metric) { return kMetrics; }
constexpr const auto& TableOf(Position) { return kPositions; }
constexpr const auto& TableOf(Dependency) { return kDependencies; }

template <typename T>
std::string_view FindName(T value) {
  for (const auto& row : TableOf(value)) {
    if (row.value == value) return row.name;
  }
  LS_CHECK(false);
  return "";
}

}  // namespace

std::string_view NameOf(Metric metric) { return FindName(metric); }
std::string_view NameOf(Position position) { return FindName(position); }
std::string_view NameOf(Dependency dependency) { return FindName(dependency); }

template <typename T>
std::optional<T> FromName(std::string_view name) {
  for (const auto& row : TableOf(T{})) {
    if (row.name == name) return row.value;
  }
  return std::nullopt;
}

template <typename T>
std::vector<T> AllOf() {
  std::vector<T> values;
  for (const auto& row : TableOf(T{})) values.push_back(row.value);
  return values;
}

template std::optional<Metric> FromName(std::string_view);
template std::optional<Position> FromName(std::string_view);
template std::optional<Dependency> FromName(std::string_view);
template std::vector<Metric> AllOf();
template std::vector<Position> AllOf();
template std::vector<Dependency> AllOf();

}  // namespace loopserve::eval
