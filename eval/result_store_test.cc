#include "eval/result_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>

#include "eval/test_results.h"
#include "src/base/temp_dir.h"

namespace loopserve::eval {
namespace {

using testing::HasSubstr;

const RunInputs kInputs = {{"model_sha256", "ab12"}, {"dialogues_sha256", "cd34"}};

class ResultStoreTest : public testing::Test {
 protected:
  std::string Dir() const { return (temp_.path() / "results").string(); }
  std::string File() const { return Dir() + "/results.sqlite"; }
  Result<ResultStore> Open(const RunInputs& inputs = kInputs) const { return ResultStore::OpenRun(Dir(), inputs); }

  TempDir temp_;
};

TEST_F(ResultStoreTest, GivesBackWhatWasStored) {
  const std::vector<PlayedDialogue> played = {TestPlayed("a", "dense", "end", {1, 0.5}),
                                              TestPlayed("a", "loopserve:alpha=0.9", "end", {0.25})};
  {
    auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status().message();
    for (const PlayedDialogue& one : played) ASSERT_TRUE(store->Add(one).ok());
  }
  auto store = ResultStore::OpenResults(Dir());
  ASSERT_TRUE(store.ok()) << store.status().message();
  EXPECT_EQ(Dump(*store->All(), true), Dump(played, true));
  EXPECT_EQ(*store->Inputs(), kInputs);
  EXPECT_EQ(store->Finished()->size(), 2u);
  EXPECT_EQ(store->Finished()->count({"a", "loopserve:alpha=0.9"}), 1u);
}

TEST_F(ResultStoreTest, AFailureIsKeptUntilTheDialogueIsPlayed) {
  auto store = Open();
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE(store->Add({.dialogue = "a", .policy = "dense", .threads = 1, .error = "too long"}).ok());
  EXPECT_TRUE(store->Finished()->empty());
  EXPECT_EQ(store->All()->at(0).error, "too long");
  ASSERT_TRUE(store->Add(TestPlayed("a", "dense", "end", {1, 1, 1})).ok());
  ASSERT_EQ(store->All()->size(), 1u);
  EXPECT_EQ(store->All()->at(0).turns.size(), 3u);
}

TEST_F(ResultStoreTest, OtherInputsAreRefusedByName) {
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(Open().ok()) << "the same inputs go on";
  const auto other = Open({{"model_sha256", "ab12"}, {"dialogues_sha256", "ff"}});
  EXPECT_EQ(other.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(other.status().message(), HasSubstr("its dialogues_sha256 was cd34 and is now ff; give another --out"));
  RunInputs more = kInputs;
  more.emplace_back("more", "1");
  EXPECT_THAT(Open(more).status().message(), HasSubstr("its more was not known and is now 1"));
  EXPECT_THAT(Open({kInputs.front()}).status().message(), HasSubstr("is now not known"));
}

TEST_F(ResultStoreTest, OneWriterAtATime) {
  const auto first = Open();
  ASSERT_TRUE(first.ok());
  EXPECT_THAT(Open().status().message(), HasSubstr("in use by another loopserve eval run"));
  EXPECT_TRUE(ResultStore::OpenResults(Dir()).ok());
}

TEST_F(ResultStoreTest, WhatCannotBeWrittenOrReadIsSaid) {
  std::ofstream(temp_.path() / "file") << "text";
  const auto in_file = ResultStore::OpenRun((temp_.path() / "file" / "sub").string(), kInputs);
  EXPECT_EQ(in_file.status().code(), StatusCode::kIoError) << in_file.status().message();
  EXPECT_THAT(in_file.status().message(), HasSubstr("cannot create the folder"));
  EXPECT_EQ(ResultStore::OpenResults((temp_.path() / "none").string()).status().code(), StatusCode::kNotFound);
  std::filesystem::create_directories(File());
  EXPECT_EQ(Open().status().code(), StatusCode::kIoError);
}

TEST_F(ResultStoreTest, OtherAndDamagedFilesAreRefusedAndLeftAlone) {
  std::filesystem::create_directories(Dir());
  const std::string text = std::string(5000, 'x');
  std::ofstream(File()) << text;
  for (const auto& opened : {Open(), ResultStore::OpenResults(Dir())}) {
    EXPECT_EQ(opened.status().code(), StatusCode::kCorruptData);
    EXPECT_THAT(opened.status().message(), HasSubstr("results.sqlite is damaged: file is not a database"));
  }
  EXPECT_EQ(std::filesystem::file_size(File()), text.size());

  std::filesystem::remove(File());
  const auto run_sql = [&](const char* sql) {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(File().c_str(), &database), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(database);
  };
  run_sql("CREATE TABLE t (a)");
  EXPECT_EQ(Open().status().code(), StatusCode::kUnsupported) << "another program's database";

  std::filesystem::remove(File());
  ASSERT_TRUE(Open().ok());
  run_sql("PRAGMA user_version = 99");
  EXPECT_THAT(Open().status().message(), HasSubstr("has schema 99; this program knows 3"));
}

TEST_F(ResultStoreTest, AFileWithOverwrittenPagesIsDamaged) {
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(store->Add(TestPlayed("d" + std::to_string(i), "p", "end", {1})).ok());
  }
  const auto size = static_cast<std::streamoff>(std::filesystem::file_size(File()));
  std::fstream file(File(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096);
  file << std::string(static_cast<size_t>(size - 4096), '\x5a');
  file.close();
  EXPECT_EQ(Open().status().code(), StatusCode::kCorruptData) << Open().status().message();
}

TEST_F(ResultStoreTest, AFullDiskLosesNothingThatWasFinished) {
  signal(SIGXFSZ, SIG_IGN);
  auto store = Open();
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE(store->Add(TestPlayed("a", "dense", "end", {1})).ok());
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = std::filesystem::file_size(File());
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  PlayedDialogue large = TestPlayed("b", "dense", "end", {1});
  large.turns[0].answer = std::string(1 << 20, 'x');
  const Status full = store->Add(large);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  EXPECT_EQ(full.code(), StatusCode::kIoError);
  EXPECT_THAT(full.message(), HasSubstr("results.sqlite: disk I/O error"));
  ASSERT_EQ(store->All()->size(), 1u);
  EXPECT_TRUE(store->Add(large).ok()) << "it goes on once there is room";
  EXPECT_EQ(store->Finished()->size(), 2u);
}

TEST_F(ResultStoreTest, NamesKeepWhatTheyStandFor) {
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(store->Define({{"dense", "x=1"}, {"p", "y=2"}}, {{"p", "12"}}).ok())
        << "names of another kind are others";
  }
  auto store = Open();
  ASSERT_TRUE(store.ok());
  const Status changed = store->Define({{"new", "z=3"}, {"p", "y=3"}}, {});
  EXPECT_EQ(changed.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(changed.message(), HasSubstr("the results of another policy p: it was y=2 and is now y=3"));
  EXPECT_EQ(*store->Definitions("policy"), (RunInputs{{"dense", "x=1"}, {"p", "y=2"}})) << "nothing of it was added";
  EXPECT_TRUE(store->Define({{"new", "z=3"}, {"p", "y=2"}}, {}).ok());
  EXPECT_EQ(store->Definitions("policy")->size(), 3u);
}

TEST_F(ResultStoreTest, WhatAKilledWriterLeftIsTakenBackByAReader) {
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(store->Add(TestPlayed("a", "dense", "end", {1})).ok());
  }
  const std::string copy = (temp_.path() / "copy").string();
  std::filesystem::create_directories(copy);
  sqlite3* writer = nullptr;
  ASSERT_EQ(sqlite3_open(File().c_str(), &writer), SQLITE_OK);
  // More than the cache holds: pages of it are in the file before it is complete.
  ASSERT_EQ(
      sqlite3_exec(writer,
                   "PRAGMA cache_size = 2; BEGIN; DELETE FROM plays; WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL "
                   "SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO plays SELECT i, 'half ' || i, 'p', 1, '' FROM n",
                   nullptr, nullptr, nullptr),
      SQLITE_OK);
  std::filesystem::copy_file(File(), copy + "/results.sqlite");
  std::filesystem::copy_file(File() + "-journal", copy + "/results.sqlite-journal");
  sqlite3_close(writer);
  ASSERT_GT(std::filesystem::file_size(copy + "/results.sqlite"), 100'000u);
  auto store = ResultStore::OpenResults(copy);
  ASSERT_TRUE(store.ok()) << store.status().message();
  ASSERT_EQ(store->All()->size(), 1u);
  EXPECT_EQ(store->All()->at(0).dialogue, "a");
}

TEST_F(ResultStoreTest, NothingThatAFileSaysIsRun) {
  ASSERT_TRUE(Open().ok());
  const auto run_sql = [&](const char* sql) {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(File().c_str(), &database), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(database);
  };
  run_sql("CREATE TRIGGER t AFTER INSERT ON plays BEGIN DELETE FROM plays; END");
  {
    auto store = Open();
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(store->Add(TestPlayed("a", "dense", "end", {1})).ok());
    EXPECT_EQ(store->Finished()->size(), 1u);
  }
  run_sql("ALTER TABLE turns RENAME TO u; CREATE VIEW turns AS SELECT * FROM u");
  auto store = ResultStore::OpenResults(Dir());
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(store->All().status().code(), StatusCode::kCorruptData);
}

}  // namespace
}  // namespace loopserve::eval
