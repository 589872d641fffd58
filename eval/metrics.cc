#include "eval/metrics.h"

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "eval/unicode_text.h"

namespace loopserve::eval {
namespace {

using Words = std::vector<std::u32string>;

bool IsAsciiPunctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

bool IsArticle(std::u32string_view word) { return word == U"a" || word == U"an" || word == U"the"; }

/// re.sub(r"\b(a|an|the)\b", " ", text): an article is a whole run of word characters, so that the one in "the\u2019"
/// counts and the one in "th\u00E9" does not.
std::u32string WithoutArticles(std::u32string_view text) {
  std::u32string kept;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && IsWordCharacter(text[end])) ++end;
    const std::u32string_view run = text.substr(i, end - i);
    kept += IsArticle(run) ? std::u32string_view(U" ") : run;
    if (end < text.size()) kept.push_back(text[end]);
    i = end + 1;
  }
  return kept;
}

/// Cell [i][j] of a table of (n + 1) x (m + 1): the length of the longest common subsequence of a[:i] and b[:j].
std::vector<std::vector<int>> LcsTable(const Words& a, const Words& b) {
  std::vector<std::vector<int>> table(a.size() + 1, std::vector<int>(b.size() + 1, 0));
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      table[i][j] = a[i - 1] == b[j - 1] ? table[i - 1][j - 1] + 1 : std::max(table[i - 1][j], table[i][j - 1]);
    }
  }
  return table;
}

/// The words of one longest common subsequence; of several the one that the rouge package walks back to.
void CollectLcsWords(const Words& a, const Words& b, std::set<std::u32string>* words) {
  const auto table = LcsTable(a, b);
  for (size_t i = a.size(), j = b.size(); i > 0 && j > 0;) {
    if (a[i - 1] == b[j - 1]) {
      words->insert(a[i - 1]);
      --i;
      --j;
    } else if (table[i - 1][j] > table[i][j - 1]) {
      --i;
    } else {
      --j;
    }
  }
}

/// The words of each sentence: what stands between periods, white space made single. A sentence of white space alone
/// has one word, the empty one, as " ".join([]).split(" ") has in Python.
std::vector<Words> Sentences(std::string_view text) {
  const std::u32string points = ToCodePoints(text);
  std::vector<Words> sentences;
  for (size_t begin = 0; begin <= points.size();) {
    const size_t end = std::min(points.find(U'.', begin), points.size());
    if (end > begin) {
      Words words = SplitAtSpaces(std::u32string_view(points).substr(begin, end - begin));
      if (words.empty()) words.emplace_back();
      sentences.push_back(std::move(words));
    }
    begin = end + 1;
  }
  return sentences;
}

size_t DistinctWords(const std::vector<Words>& sentences) {
  std::set<std::u32string> distinct;
  for (const Words& words : sentences) distinct.insert(words.begin(), words.end());
  return distinct.size();
}

Words AlphanumericWords(std::string_view text) {
  std::u32string lower = Lower(ToCodePoints(text));
  for (char32_t& c : lower) {
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))) c = ' ';
  }
  return SplitAtSpaces(lower);
}

double HarmonicMean(double precision, double recall) { return 2 * precision * recall / (precision + recall); }

}  // namespace

Words NormalizedWords(std::string_view text) {
  std::u32string lower = Lower(ToCodePoints(text));
  std::erase_if(lower, IsAsciiPunctuation);
  return SplitAtSpaces(WithoutArticles(lower));
}

double TokenF1(std::string_view answer, std::string_view reference) {
  const Words answer_words = NormalizedWords(answer);
  const Words reference_words = NormalizedWords(reference);
  std::map<std::u32string, int> left;
  for (const std::u32string& word : reference_words) ++left[word];
  int64_t common = 0;
  for (const std::u32string& word : answer_words) {
    const auto found = left.find(word);
    if (found == left.end() || found->second == 0) continue;
    --found->second;
    ++common;
  }
  if (common == 0) return 0;
  const auto same = static_cast<double>(common);
  return HarmonicMean(same / static_cast<double>(answer_words.size()),
                      same / static_cast<double>(reference_words.size()));
}

double RougeL(std::string_view answer, std::string_view reference) {
  constexpr double kNoDivisionByZero = 1e-8;  // the package's own; part of its scores
  const std::vector<Words> answer_sentences = Sentences(answer);
  const std::vector<Words> reference_sentences = Sentences(reference);
  if (answer_sentences.empty() || reference_sentences.empty()) return 0;
  std::set<std::u32string> common;
  for (const Words& from_reference : reference_sentences) {
    for (const Words& from_answer : answer_sentences) CollectLcsWords(from_reference, from_answer, &common);
  }
  const auto same = static_cast<double>(common.size());
  const double precision = same / static_cast<double>(DistinctWords(answer_sentences));
  const double recall = same / static_cast<double>(DistinctWords(reference_sentences));
  return 2 * (precision * recall / (precision + recall + kNoDivisionByZero));
}

double RougeLPublic(std::string_view answer, std::string_view reference) {
  const Words answer_words = AlphanumericWords(answer);
  const Words reference_words = AlphanumericWords(reference);
  const int common = LcsTable(reference_words, answer_words).back().back();
  if (common == 0) return 0;
  return HarmonicMean(common / static_cast<double>(answer_words.size()),
                      common / static_cast<double>(reference_words.size()));
}

double ClassAccuracy(std::string_view answer, std::string_view reference, std::span<const std::string> classes) {
  std::vector<std::string_view> matches;
  for (const std::string& name : classes) {
    if (answer.find(name) != std::string_view::npos) matches.push_back(name);
  }
  // metrics.py removes from the list that it walks over: the entry behind a removed one is passed by, and what is
  // removed is the first entry of that name.
  for (size_t i = 0; i < matches.size(); ++i) {
    const std::string_view name = matches[i];
    if (reference.find(name) == std::string_view::npos || name == reference) continue;
    matches.erase(std::find(matches.begin(), matches.end(), name));
  }
  if (std::find(matches.begin(), matches.end(), reference) == matches.end()) return 0;
  return 1.0 / static_cast<double>(matches.size());
}

double Score(Metric metric, std::string_view answer, std::span<const std::string> references,
             std::span<const std::string> classes, bool first_line_only) {
  if (first_line_only) {
    answer.remove_prefix(std::min(answer.find_first_not_of('\n'), answer.size()));
    answer = answer.substr(0, answer.find('\n'));
  }
  double best = 0;
  for (const std::string& reference : references) {
    switch (metric) {
      case Metric::kTokenF1:
        best = std::max(best, TokenF1(answer, reference));
        break;
      case Metric::kRougeL:
        best = std::max(best, RougeL(answer, reference));
        break;
      case Metric::kClassAccuracy:
        best = std::max(best, ClassAccuracy(answer, reference, classes));
        break;
    }
  }
  return best;
}

}  // namespace loopserve::eval
