// Saves that fail, or end with the process, at every step: what is read afterwards is the state before or the new one.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "src/base/temp_dir.h"
#include "src/kvcache/session_folder.h"
#include "src/kvcache/test_snapshot.h"

namespace loopserve {
namespace {

/// Counts steps that change something, and lets one of them go wrong.
class FaultyOps : public FileOps {
 public:
  enum class Fault { kNone, kError, kErrorAfterHalf, kErrorsFromThere, kKill, kKillAfterHalf };

  FaultyOps(Fault fault, int at_step, int error) : fault_(fault), at_step_(at_step), error_(error) {}
  int steps() const { return steps_; }

  int OpenAt(int dir, const char* name, int flags, mode_t mode) override {
    if ((flags & O_CREAT) != 0 && Fails()) return -1;
    return FileOps::OpenAt(dir, name, flags, mode);
  }
  ssize_t WriteAt(int fd, const iovec* parts, int n_parts, off_t offset) override {
    const bool fails = Fails(/*is_write=*/true);
    if (fails && (fault_ == Fault::kErrorAfterHalf || fault_ == Fault::kKillAfterHalf)) {
      const iovec half = {parts[0].iov_base, (parts[0].iov_len + 1) / 2};
      FileOps::WriteAt(fd, &half, 1, offset);
      if (fault_ == Fault::kKillAfterHalf) Kill();
    }
    if (fails) return -1;
    return FileOps::WriteAt(fd, parts, n_parts, offset);
  }
  int Sync(int fd) override { return Fails() ? -1 : FileOps::Sync(fd); }
  int SyncData(int fd) override { return Fails() ? -1 : FileOps::SyncData(fd); }
  int Truncate(int fd, off_t bytes) override { return Fails() ? -1 : FileOps::Truncate(fd, bytes); }
  int RenameAt(int dir, const char* from, const char* to) override {
    return Fails() ? -1 : FileOps::RenameAt(dir, from, to);
  }
  int UnlinkAt(int dir, const char* name) override { return Fails() ? -1 : FileOps::UnlinkAt(dir, name); }

 private:
  static void Kill() { kill(getpid(), SIGKILL); }
  bool Fails(bool is_write = false) {
    const int step = steps_++;
    const bool here = fault_ == Fault::kErrorsFromThere ? step >= at_step_ : step == at_step_;
    if (fault_ == Fault::kNone || !here) return false;
    if (fault_ == Fault::kKill || (fault_ == Fault::kKillAfterHalf && !is_write)) Kill();
    errno = error_;
    return true;
  }

  Fault fault_;
  int at_step_;
  int error_;
  int steps_ = 0;
};

/// Short writes and reads of a few bytes, and interrupts in between.
class StutteringOps : public FileOps {
 public:
  ssize_t WriteAt(int fd, const iovec* parts, int, off_t offset) override {
    if (++calls_ % 3 == 0) return Interrupted();
    const iovec few = {parts[0].iov_base, std::min<size_t>(parts[0].iov_len, 700)};
    return FileOps::WriteAt(fd, &few, 1, offset);
  }
  ssize_t ReadAt(int fd, const iovec* parts, int, off_t offset) override {
    if (++calls_ % 3 == 0) return Interrupted();
    const iovec few = {parts[0].iov_base, std::min<size_t>(parts[0].iov_len, 900)};
    return FileOps::ReadAt(fd, &few, 1, offset);
  }

 private:
  static ssize_t Interrupted() {
    errno = EINTR;
    return -1;
  }
  int calls_ = 0;
};

using Fault = FaultyOps::Fault;

/// A file in some state and what is saved over it.
struct Scenario {
  const char* name;
  void (*prepare)(const SnapshotFolder& folder);
  std::vector<int> before;  ///< what the file says then; empty: there is none
};

Status Save(const SnapshotFolder& folder, const TestDialogue& dialogue) {
  return WriteSnapshot(folder, "d", dialogue.Content()).status();
}

SnapshotFolder OpenFolder(FileOps& ops, const TempDir& dir) {
  auto folder = SnapshotFolder::Open(ops, dir.path().string());
  EXPECT_TRUE(folder.ok());
  return std::move(folder).value();
}

const Scenario kScenarios[] = {
    {"a new file", [](const SnapshotFolder&) {}, {}},
    {"an append", [](const SnapshotFolder& folder) { ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, 70))).ok()); },
     Numbers(0, 70)},
    {"a second append",
     [](const SnapshotFolder& folder) {
       ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, 40))).ok());
       ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, 71))).ok());
     },
     Numbers(0, 71)},
    {"another model's dialogue is replaced",
     [](const SnapshotFolder& folder) {
       const TestDialogue dialogue(Numbers(500, 50));
       SnapshotContent content = dialogue.Content();
       content.key.model[0] = 9;
       ASSERT_TRUE(WriteSnapshot(folder, "d", content).ok());
     },
     Numbers(500, 50)},
};

/// After a save that did not come to its end: the old or the new state, and the next save works.
void ExpectOldOrNew(const TempDir& dir, const Scenario& scenario, const TestDialogue& dialogue, bool must_be_new) {
  auto sessions = SessionFolder::Open(FileOps::System(), dir.path().string(), 0);
  ASSERT_TRUE(sessions.ok());
  for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
    EXPECT_EQ(entry.path().filename(), "d") << "what was left over is removed";
  const SnapshotFolder folder = OpenFolder(FileOps::System(), dir);
  const auto found = ReadBack(folder, "d");
  if (!found.ok()) {
    EXPECT_EQ(found.status().code(), StatusCode::kNotFound) << found.status().message();
    EXPECT_TRUE(scenario.before.empty() && !must_be_new);
  } else if (must_be_new) {
    EXPECT_EQ(*found, dialogue.tokens());
  } else {
    EXPECT_THAT(*found, testing::AnyOf(scenario.before, dialogue.tokens()));
    EXPECT_FALSE(found->empty());
  }
  TestDialogue later(dialogue.tokens());
  later.Append(Numbers(900, 5));
  const Status status = Save(folder, later);
  ASSERT_TRUE(status.ok()) << status.message();
  const auto again = ReadBack(folder, "d");
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(*again, later.tokens());
}

class SnapshotFaultTest : public testing::TestWithParam<Fault> {};

TEST_P(SnapshotFaultTest, EveryStep) {
  const bool kills = GetParam() == Fault::kKill || GetParam() == Fault::kKillAfterHalf;
  TestDialogue dialogue(Numbers(0, 80));
  for (const Scenario& scenario : kScenarios) {
    bool reached_the_end = false;
    for (int step = 0; !reached_the_end; ++step) {
      ASSERT_LT(step, 100);
      SCOPED_TRACE(std::string(scenario.name) + ", step " + std::to_string(step));
      TempDir dir;
      scenario.prepare(OpenFolder(FileOps::System(), dir));
      FaultyOps ops(GetParam(), step, step % 2 == 0 ? ENOSPC : EIO);
      const SnapshotFolder folder = OpenFolder(ops, dir);
      if (kills) {
        const pid_t child = fork();
        if (child == 0) {
          const bool ok = Save(folder, dialogue).ok();
          _exit(ok ? 0 : 1);
        }
        int state = 0;
        ASSERT_EQ(waitpid(child, &state, 0), child);
        reached_the_end = WIFEXITED(state) && WEXITSTATUS(state) == 0;
        ASSERT_TRUE(reached_the_end || (WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL));
        ExpectOldOrNew(dir, scenario, dialogue, reached_the_end);
      } else {
        const Status status = Save(folder, dialogue);
        reached_the_end = ops.steps() <= step;
        ASSERT_TRUE(status.ok() || !reached_the_end) << status.message();
        if (!status.ok()) {
          EXPECT_THAT(status.code(), testing::AnyOf(StatusCode::kResourceExhausted, StatusCode::kIoError));
        }
        ExpectOldOrNew(dir, scenario, dialogue, status.ok());
      }
    }
  }
}

const char* NameOf(Fault fault) {
  static constexpr const char* kNames[] = {"None", "Error",        "ErrorAfterHalf", "ErrorsFromThere",
                                           "Kill", "KillAfterHalf"};
  return kNames[static_cast<int>(fault)];
}

INSTANTIATE_TEST_SUITE_P(Faults, SnapshotFaultTest,
                         testing::Values(Fault::kError, Fault::kErrorAfterHalf, Fault::kErrorsFromThere, Fault::kKill,
                                         Fault::kKillAfterHalf),
                         [](const auto& parameter) { return NameOf(parameter.param); });

// The order of a save in place: data before what refers to it. A machine that stops may have written any part of what
// was not synced: here nothing of it but the slot.
TEST(SnapshotOrderTest, WhatASlotRefersToIsSyncedBefore) {
  class Recorder : public FileOps {
   public:
    ssize_t WriteAt(int fd, const iovec* parts, int n_parts, off_t offset) override {
      log += offset < static_cast<off_t>(kSlotsBytes) ? "slot " : "data ";
      return FileOps::WriteAt(fd, parts, n_parts, offset);
    }
    int Sync(int fd) override {
      log += "sync ";
      return FileOps::Sync(fd);
    }
    int SyncData(int fd) override {
      log += "sync ";
      return FileOps::SyncData(fd);
    }
    int RenameAt(int dir, const char* from, const char* to) override {
      log += "rename ";
      return FileOps::RenameAt(dir, from, to);
    }
    std::string log;
  };
  TempDir dir;
  Recorder ops;
  const SnapshotFolder folder = OpenFolder(ops, dir);
  ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, 20))).ok());
  EXPECT_TRUE(ops.log.ends_with("slot sync rename sync ")) << ops.log;
  ops.log.clear();
  ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, 40))).ok());
  EXPECT_TRUE(ops.log.starts_with("data ")) << ops.log;
  EXPECT_TRUE(ops.log.ends_with("data sync slot sync ")) << ops.log;
  EXPECT_EQ(ops.log.find("slot"), ops.log.rfind("slot")) << ops.log;
}

TEST(SnapshotOrderTest, ShortWritesShortReadsAndInterruptsAreGoneOnWith) {
  TempDir dir;
  StutteringOps ops;
  const SnapshotFolder folder = OpenFolder(ops, dir);
  for (const int n : {50, 90}) {
    ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, n))).ok());
    const auto reader = SnapshotReader::Open(ops, folder.fd.get(), "d", "d");
    ASSERT_TRUE(reader.ok()) << reader.status().message();
    const auto found = ReadBack(*reader);
    ASSERT_TRUE(found.ok()) << found.status().message();
    EXPECT_EQ(*found, Numbers(0, n));
  }
}

// A slot that was being written when the machine stopped: the state before counts.
TEST(SnapshotOrderTest, ATornSlotLeavesTheStateBefore) {
  TempDir dir;
  const SnapshotFolder folder = OpenFolder(FileOps::System(), dir);
  ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, 30))).ok());  // generation 1
  ASSERT_TRUE(Save(folder, TestDialogue(Numbers(0, 60))).ok());  // generation 2, slot 0
  for (const off_t at : {0, 9, 17, 100, 2000, 4095}) {
    ASSERT_EQ(*ReadBack(folder, "d"), Numbers(0, 60));
    UniqueFd fd(openat(folder.fd.get(), "d", O_RDWR));
    char byte;
    ASSERT_EQ(pread(fd.get(), &byte, 1, at), 1);
    const char flipped = static_cast<char>(byte ^ 4);
    ASSERT_EQ(pwrite(fd.get(), &flipped, 1, at), 1);
    EXPECT_EQ(*ReadBack(folder, "d"), Numbers(0, 30)) << at;
    ASSERT_EQ(pwrite(fd.get(), &byte, 1, at), 1);
  }
}

}  // namespace
}  // namespace loopserve
