// Results in their two forms for other programs: JSON, and the text that can be read back.
#include "eval/result_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "eval/result_json.h"
#include "eval/test_results.h"
#include "src/base/temp_dir.h"

namespace loopserve::eval {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ResultsToJsonTest, HasEveryField) {
  std::vector<PlayedDialogue> played = {TestPlayed("a", "dense", "end", {0.5})};
  played.push_back({.dialogue = "b", .policy = "dense", .threads = 2, .error = "too long"});
  const Json json = ResultsToJson({{{"model", "tiny"}}, {{"dense", "alpha=1"}}, {}, played});
  EXPECT_EQ(json["schema"], kResultSchema);
  EXPECT_EQ(json["run"]["model"], "tiny");
  EXPECT_EQ(json["policies"]["dense"], "alpha=1");
  const Json& turn = json["dialogues"][0]["turns"][0];
  for (const TurnField& field : TurnFields()) EXPECT_TRUE(turn.contains(field.name)) << field.name;
  EXPECT_EQ(turn["score"], 0.5);
  EXPECT_EQ(turn["reference"], Json::parse(R"(["blue river", "it's blue"])"));
  EXPECT_TRUE(turn["tpot_ms"].is_null());
  EXPECT_FALSE(json["dialogues"][0].contains("error"));
  EXPECT_EQ(json["dialogues"][1]["error"], "too long");
}

StoredResults Results() {
  StoredResults results;
  results.run = {{"model_sha256", "ab"}, {"context", "0"}, {"model", "tiny"}, {"program", "loopserve 1"}};
  results.policies = {{"dense", ""}, {"p:x=1", "alpha=1"}};
  results.dialogues = {{"a", "hash a"}, {"b", "hash b"}};
  results.played = {TestPlayed("a", "dense", "end", {1, 1.0 / 3}), TestPlayed("a", "p:x=1", "end", {0.5}),
                    TestPlayed("b", "dense", "begin", {0})};
  results.played[0].turns[0].ttft_ms = 12.3456789;
  results.played[1].turns[0].peak_rss_bytes = 123456789012.0;
  return results;
}

Result<StoredResults> Parse(const std::string& text) {
  std::istringstream in(text);
  return ParseResultsText(in, "r.jsonl");
}

TEST(ResultsTextTest, ReadsBackAllButAnswersReferencesAndFailures) {
  StoredResults results = Results();
  results.played.push_back({.dialogue = "b", .policy = "p:x=1", .threads = 2, .error = "too long"});
  const std::string text = ResultsToText(results);
  EXPECT_THAT(text, Not(HasSubstr("it's blue"))) << "the datasets' texts stay where they are";
  EXPECT_THAT(text, Not(HasSubstr("river"))) << "answers quote them";
  EXPECT_THAT(text, HasSubstr("12.346,"));
  const auto read = Parse(text);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->run, results.run);
  EXPECT_EQ(read->policies, results.policies);
  EXPECT_EQ(read->dialogues, results.dialogues);
  results.played.pop_back();
  for (PlayedDialogue& one : results.played) {
    for (PlayedTurn& turn : one.turns) {
      turn.answer.clear();
      turn.references.clear();
    }
  }
  results.played[0].turns[0].ttft_ms = 12.346;
  EXPECT_EQ(Dump(read->played, true), Dump(results.played, true));
  EXPECT_EQ(*read->played[0].turns[1].score, 1.0 / 3) << "to the last bit";
  EXPECT_EQ(ResultsToText(*read), text);
}

TEST(ResultsTextTest, HostileLinesAreNamed) {
  const std::string good = ResultsToText(Results());
  std::vector<std::string> lines;
  std::istringstream in(good);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  const auto with = [&](size_t at, const std::string& from, const std::string& to) {
    std::vector<std::string> changed = lines;
    const size_t found = changed[at].find(from);
    EXPECT_NE(found, std::string::npos) << from;
    changed[at].replace(found, from.size(), to);
    std::string text;
    for (const std::string& line : changed) text += line + "\n";
    return text;
  };
  const struct {
    std::string text;
    const char* says;
  } cases[] = {
      {"", "r.jsonl has no results"},
      {"[1]", "line 1: it must be an object"},
      {"{\"kind\":\"x\"}", "line 1: this is no file of results"},
      {with(0, "\"schema\":3", "\"schema\":99"), "it has schema 99; this program knows 2 to 3"},
      {with(0, "\"schema\":3", "\"schema\":1"), "it has schema 1; this program knows 2 to 3"},
      {with(0, "\"turn\",\"dataset\"", "\"turn\",\"date\""), "\"fields\" has \"date\", which is no field"},
      {with(0, "\"turn\",\"dataset\"", "\"turn\",\"reference\""), "\"fields\" has \"reference\", which is no field"},
      {with(0, "\"turn\",\"dataset\"", "\"turn\",\"turn\""), "\"fields\" has \"turn\" twice"},
      {with(0, "\"turn\",\"dataset\"", "\"turn\""), "\"fields\" lacks \"dataset\""},
      {with(0, "\"turn\",\"dataset\"", "\"dataset\",\"turn\""), "line 2: the field \"dataset\" must be a text"},
      {with(0, "\"run\":{", "\"run\":{\"k\":1,"), "\"run\" has a value that is no text"},
      {with(0, "\"a\":\"hash a\",", ""), "line 2: the first line does not name this dialogue"},
      {with(0, ",\"p:x=1\":\"alpha=1\"", ""), "line 3: the first line does not name this policy"},
      {with(2, "\"p:x=1\"", "\"dense\""), "line 3: this dialogue and policy come twice"},
      {with(1, "\"threads\":2", "\"threads\":-1"), "line 2: the field \"threads\" must be a whole number"},
      {with(1, "[[1,", "[[2,"), "line 2: the turns must be numbered from 1 on"},
      {with(1, "[[1,", "[["), "line 2: the values of turn 1 must be a list of"},
      {with(1, "[[1,\"hotpotqa\"", "[[1,7"), "line 2: the field \"dataset\" must be a text"},
      {with(1, "12.346", "\"x\""), "line 2: the field \"ttft_ms\" must be a number or null"},
      {with(1, "12.346", "1e999"), "line 2: "},
      {with(1, "12.346", "-1e300"), "line 2: the field \"ttft_ms\" is no figure that can be"},
      {with(1, "12.346", "{\"a\":" + std::string(200, '[') + std::string(200, ']') + "}"), "line 2: nested deeper"},
      {with(3, "0.0,", "1.5,"), "line 4: the field \"score\" must be from 0 to 1"},
      {good.substr(0, good.size() - 5), "line 4: not valid JSON"},
      {with(3, "\"turns\":[", "\"turns\":[[1e400],"), "line 4: "},
      {with(3, "\"id\"", "\"ID\""), "line 4: unknown field \"ID\""},
  };
  ASSERT_TRUE(Parse(good).ok());
  for (const auto& c : cases) {
    const auto read = Parse(c.text);
    ASSERT_FALSE(read.ok()) << c.says;
    EXPECT_THAT(read.status().message(), HasSubstr(c.says));
  }
}

TEST(ResultsTextTest, AFileOfBeforeLacksLaterFieldsAndMayHaveAnswers) {
  const std::string line =
      R"({"kind":"loopserve eval","schema":2,"run":{},"policies":{"dense":""},"dialogues":{"a":"x"},"fields":["turn",)"
      R"("dataset","position","dependency","metric","answer","score","prompt_tokens","cached_tokens","new_tokens",)"
      R"("output_tokens","stop_reason","ttft_ms","tpot_ms","prefill_linear_ms","prefill_attention_ms",)"
      R"("prefill_selection_ms","decode_linear_ms","decode_attention_ms","decode_selection_ms","prefill_shared",)"
      R"("prefill_density","decode_kv_fraction","kv_bytes","peak_rss_bytes","kl","top1_agreement","reference_nll"]})"
      "\n"
      R"({"id":"a","policy":"dense","threads":1,"turns":[[1,"qasper","end","same","f1","blue",0.5,9,0,9,3,)"
      R"("end_of_text",1,2,null,null,null,null,null,null,0,1,1,5,6,0.25,null,null]]})"
      "\n";
  const auto read = Parse(line);
  ASSERT_TRUE(read.ok()) << read.status().message();
  const PlayedTurn& turn = read->played[0].turns[0];
  EXPECT_EQ(turn.answer, "blue");
  EXPECT_EQ(turn.kl, 0.25);
  EXPECT_EQ(turn.reference_kl, std::nullopt);
  EXPECT_EQ(turn.ttft_ms, 1);
  EXPECT_EQ(turn.sources, "");
  EXPECT_EQ(turn.cut_tokens, std::nullopt);
}

TEST(ResultsTextTest, CutAnywhereItIsAnErrorOrHasWholePlays) {
  const std::string good = ResultsToText(Results());
  for (size_t length = 0; length < good.size(); ++length) {
    const auto read = Parse(good.substr(0, length));
    if (!read.ok()) continue;
    for (const PlayedDialogue& played : read->played) EXPECT_FALSE(played.turns.empty());
  }
}

TEST(MergeTest, JoinsWhatIsMissingAndRefusesAnotherRun) {
  const TempDir temp;
  const StoredResults results = Results();
  auto store = ResultStore::OpenRun(temp.path().string(), {{"model_sha256", "ab"}, {"context", "0"}});
  ASSERT_TRUE(store.ok());
  PlayedDialogue own = TestPlayed("a", "dense", "end", {0.125});
  ASSERT_TRUE(store->Define({{"dense", ""}}, {}).ok());
  ASSERT_TRUE(store->Add(own).ok());
  ASSERT_TRUE(store->Add({.dialogue = "b", .policy = "dense", .threads = 1, .error = "failed"}).ok());
  const auto joined = store->Merge(results);
  ASSERT_TRUE(joined.ok()) << joined.status().message();
  EXPECT_EQ(*joined, 2) << "what is finished here stays, what failed here is replaced";
  const auto all = store->Load();
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->played.size(), 3u);
  EXPECT_EQ(*all->played[0].turns[0].score, 0.125);
  EXPECT_EQ(all->policies, results.policies);
  EXPECT_EQ(*store->Merge(results), 0);

  StoredResults other = results;
  other.dialogues[1].second = "another hash";
  other.dialogues.emplace_back("c", "hash c");
  EXPECT_THAT(store->Merge(other).status().message(), HasSubstr("holds the results of another dialogue b"));
  EXPECT_EQ(store->Load()->dialogues, results.dialogues) << "nothing of it joined";
}

}  // namespace
}  // namespace loopserve::eval
