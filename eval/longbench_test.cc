#include "eval/longbench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace loopserve::eval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kGood[] = R"({"input":"Who?","context":"Ada came.","answers":["Ada"],"_id":"good"})";

struct Outcome {
  Status status;
  ItemFiles files;
};

Outcome Read(const std::string& text, const char* dataset = "qasper") {
  std::istringstream in(text);
  Outcome outcome;
  outcome.status = ReadItems(in, "dir/f.jsonl", *FindDataset(dataset), &outcome.files);
  return outcome;
}

TEST(LongbenchTest, ReadsBothFormsAndIgnoresTheirExtraFields) {
  const Outcome read = Read(
      R"({"input":"Who?","context":"Ada came.","answers":["Ada","her"],"length":2,"dataset":"qasper","language":"en","all_classes":null,"_id":"x1","source":"made up","supporting_passages":[7,2,7]})"
      "\n\n"
      R"({"context":"Bo went.","questions":["Who went?","Did he?"],"answers":[["Bo"],"yes"],"document_id":"x2","title":5})"
      "\r\n"
      R"({"input":"Q","context":"c","answers":["a"]})");
  ASSERT_TRUE(read.status.ok()) << read.status.message();
  EXPECT_THAT(read.files.messages, IsEmpty());
  ASSERT_EQ(read.files.items.size(), 3u);
  const Item& single = read.files.items[0];
  EXPECT_EQ(single.id, "x1");
  EXPECT_EQ(single.context, "Ada came.");
  ASSERT_EQ(single.questions.size(), 1u);
  EXPECT_EQ(single.questions[0].id, "x1");
  EXPECT_THAT(single.questions[0].answers, ElementsAre("Ada", "her"));
  EXPECT_THAT(single.supporting_passages, ElementsAre(2, 7));
  const Item& several = read.files.items[1];
  ASSERT_EQ(several.questions.size(), 2u);
  EXPECT_EQ(several.questions[1].id, "x2#2");
  EXPECT_EQ(several.questions[1].text, "Did he?");
  EXPECT_THAT(several.questions[1].answers, ElementsAre("yes"));
  EXPECT_EQ(read.files.items[2].id, "f.jsonl:4");
}

TEST(LongbenchTest, BadLinesAreSkippedCountedAndNamed) {
  const struct {
    std::string line;
    const char* message;
  } cases[] = {
      {"{", "not valid JSON"},
      {"[]", "must be an object"},
      {"null", "must be an object"},
      {"{}", "\"context\" is missing"},
      {R"({"input":"q","answers":["a"]})", "\"context\" is missing"},
      {R"({"input":"q","context":7,"answers":["a"]})", "\"context\" must be a text"},
      {R"({"input":"q","context":" \n","answers":["a"]})", "\"context\" is empty"},
      {R"({"context":"c","answers":["a"]})", "\"input\" is missing"},
      {R"({"input":"","context":"c","answers":["a"]})", "\"input\" is empty"},
      {R"({"input":["q"],"context":"c","answers":["a"]})", "\"input\" must be a text"},
      {R"({"input":"q","context":"c"})", "\"answers\" is missing"},
      {R"({"input":"q","context":"c","answers":{}})", "\"answers\" must be a list of texts"},
      {R"({"input":"q","context":"c","answers":[1]})", "\"answers\" must be a list of texts"},
      {R"({"input":"q","context":"c","answers":[""]})", "\"answers\" has no answer"},
      {R"({"input":"q","context":"c","answers":[]})", "\"answers\" has no answer"},
      {R"({"context":"c","questions":["q"],"answers":[]})", "lists of the same length"},
      {R"({"context":"c","questions":[],"answers":[]})", "lists of the same length"},
      {R"({"context":"c","questions":"q","answers":["a"]})", "\"questions\" must be a list of texts"},
      {R"({"context":"c","questions":["q"," "],"answers":["a","b"]})", "question 2 is empty"},
      {R"({"input":"q","context":"c","answers":["a"],"language":"zh"})", "the language is \"zh\""},
      {R"({"input":"q","context":"c","answers":["a"],"language":1})", "\"language\" must be a text"},
      {R"({"input":"q","context":"c","answers":["a"],"dataset":"trec"})", "of dataset \"trec\""},
      {R"({"input":"q","context":"c","answers":["a"],"_id":3})", "\"_id\" must be a text"},
      {R"({"input":"q","context":"c","answers":["a"],"supporting_passages":[0]})", "list of passage numbers"},
      {R"({"input":"q","context":"c","answers":["a"],"supporting_passages":["1"]})", "list of passage numbers"},
      {R"({"input":"q","context":"c","answers":["a"],"supporting_passages":[18446744073709551615]})",
       "list of passage numbers"},
      {R"({"input":"q","context":"c","answers":["a"],"all_classes":[1]})", "\"all_classes\" must be a list of texts"},
      {"{\"input\":\"caf\xE9\"}", "not valid UTF-8 at byte 14"},
      {std::string("\0\x01", 2), "not valid JSON"},
      {std::string(500000, '['), "nested deeper than 100 levels"},
      {std::string(100000, '{'), "nested deeper than 100 levels"},
  };
  for (const auto& c : cases) {
    const Outcome read = Read(c.line + "\n" + kGood + "\n");
    EXPECT_TRUE(read.status.ok()) << read.status.message();
    EXPECT_EQ(read.files.items.size(), 1u) << c.line.substr(0, 80);
    EXPECT_EQ(read.files.skipped, 1) << c.line.substr(0, 80);
    ASSERT_EQ(read.files.messages.size(), 1u);
    EXPECT_THAT(read.files.messages[0], HasSubstr(c.message));
    EXPECT_THAT(read.files.messages[0], HasSubstr("dir/f.jsonl, line 1: "));
  }
}

TEST(LongbenchTest, WhatADatasetNeedsIsAsked) {
  EXPECT_TRUE(Read(R"({"input":"","context":"c","answers":["a"]})", "gov_report").status.ok());
  EXPECT_THAT(Read(R"({"input":"q","context":"c","answers":["a"]})", "trec").status.message(),
              HasSubstr("\"all_classes\" is missing"));
  EXPECT_TRUE(Read(R"({"input":"q","context":"c","answers":["a"],"all_classes":["a","b"]})", "trec").status.ok());
}

TEST(LongbenchTest, AFileWithoutAGoodLineIsAnError) {
  EXPECT_EQ(Read("").status.code(), StatusCode::kCorruptData);
  EXPECT_THAT(Read("\n \n").status.message(), HasSubstr("dir/f.jsonl: no line is an item of qasper"));
  EXPECT_THAT(Read("x\n{}").status.message(), HasSubstr("the first: dir/f.jsonl, line 1: not valid JSON"));
}

TEST(LongbenchTest, MessagesAreBoundedTheCountIsNot) {
  std::string text = std::string(kGood) + "\n";
  for (int i = 0; i < 5000; ++i) text += "x\n";
  const Outcome read = Read(text);
  EXPECT_EQ(read.files.skipped, 5000);
  EXPECT_LT(read.files.messages.size(), 100u);
}

class LongbenchFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::path(testing::TempDir()) / ("longbench_files_" + std::to_string(getpid()));
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_ / "data");
    std::filesystem::create_directories(dir_ / "qasper");
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void Write(const std::string& name, const std::string& text) const { std::ofstream(dir_ / name) << text; }

  std::filesystem::path dir_;
};

TEST_F(LongbenchFilesTest, ReadsEveryPlaceInAFixedOrder) {
  Write("qasper/b.jsonl", R"({"input":"q","context":"c","answers":["a"],"_id":"4"})");
  Write("qasper/a.jsonl", R"({"input":"q","context":"c","answers":["a"],"_id":"3"})");
  Write("qasper/notes.txt", "not an item");
  Write("data/qasper.jsonl", R"({"input":"q","context":"c","answers":["a"],"_id":"2"})");
  Write("qasper.jsonl", R"({"input":"q","context":"c","answers":["a"],"_id":"1"})");
  const auto files = ReadItemFiles(dir_.string(), *FindDataset("qasper"));
  ASSERT_TRUE(files.ok()) << files.status().message();
  std::string ids;
  for (const Item& item : files->items) ids += item.id;
  EXPECT_EQ(ids, "1234");
  EXPECT_THAT(files->messages, IsEmpty());
}

TEST_F(LongbenchFilesTest, AMissingDatasetIsNamed) {
  const auto files = ReadItemFiles(dir_.string(), *FindDataset("trec"));
  EXPECT_EQ(files.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(files.status().message(), HasSubstr("trec"));
  EXPECT_THAT(files.status().message(), HasSubstr(dir_.string()));
}

TEST_F(LongbenchFilesTest, ABadFileIsNamedAndTheOthersGoOn) {
  Write("qasper/a.jsonl", "broken");
  EXPECT_EQ(ReadItemFiles(dir_.string(), *FindDataset("qasper")).status().code(), StatusCode::kCorruptData);
  Write("qasper/b.jsonl", kGood);
  std::filesystem::create_directories(dir_ / "qasper" / "c.jsonl");
  const auto files = ReadItemFiles(dir_.string(), *FindDataset("qasper"));
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_EQ(files->items.size(), 1u);
  EXPECT_EQ(files->skipped, 1);
  EXPECT_THAT(files->messages, ElementsAre(HasSubstr("a.jsonl, line 1"), HasSubstr("a.jsonl: no line is an item"),
                                           HasSubstr("c.jsonl is a folder")));
}

}  // namespace
}  // namespace loopserve::eval
