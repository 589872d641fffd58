#include "src/kvcache/session_folder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "src/base/temp_dir.h"
#include "src/kvcache/test_snapshot.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<SessionFolder> Open(const fs::path& path, uint64_t budget = 0) {
  auto folder = SessionFolder::Open(FileOps::System(), path.string(), budget);
  EXPECT_TRUE(folder.ok()) << folder.status().message();
  return folder.ok() ? std::move(folder).value() : nullptr;
}

TEST(SessionFolderTest, IdsNeverBecomePaths) {
  TempDir dir;
  const fs::path path = dir.path() / "sessions";
  const auto folder = Open(path);
  const TestDialogue dialogue(Numbers(0, 10));
  const std::string ids[] = {"plain",
                             "../../etc/passwd",
                             "/etc/passwd",
                             "..",
                             ".",
                             "a/b",
                             "a\\b",
                             "con",
                             "CON",
                             "con ",
                             "x.lssnap",
                             "~root",
                             "-rf",
                             "\u00fc",
                             "%2e%2e",
                             "*",
                             std::string(512, 'x'),
                             "." + std::string(300, '.')};
  std::set<std::string> names;
  for (const std::string& id : ids) {
    ASSERT_TRUE(folder->Save(id, dialogue.Content()).ok()) << id;
    const auto name = SessionFileName(id);
    ASSERT_TRUE(name.ok());
    EXPECT_LE(name->size(), 100u);
    EXPECT_EQ(name->find('/'), std::string::npos);
    EXPECT_NE(name->front(), '.');
    names.insert(*name);
    EXPECT_TRUE(fs::exists(path / *name));
  }
  EXPECT_EQ(names.size(), std::size(ids));
  for (const std::string& id : ids) {
    const auto reader = folder->Read(id);
    ASSERT_TRUE(reader.ok()) << id;
    EXPECT_EQ(*ReadBack(*reader), dialogue.tokens());
  }
  EXPECT_EQ(folder->List(nullptr)->size(), std::size(ids));
  for (const std::string& id : {std::string(), std::string(513, 'x'), std::string("a\0b", 3), std::string("a\nb"),
                                std::string("\xff"), std::string("\x7f")}) {
    EXPECT_EQ(folder->Save(id, dialogue.Content()).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(folder->Read(id).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(folder->Delete(id).code(), StatusCode::kInvalidArgument);
  }
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u) << "dialogues are private";
  ASSERT_EQ(stat((path / *names.begin()).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(SessionFolderTest, WhatIsNoRegularFileIsLeftAlone) {
  TempDir dir;
  const auto folder = Open(dir.path() / "s");
  const TestDialogue dialogue(Numbers(0, 10));
  ASSERT_TRUE(folder->Save("real", dialogue.Content()).ok());
  const fs::path real = dir.path() / "s" / *SessionFileName("real");
  const auto at = [&](const char* id) { return dir.path() / "s" / *SessionFileName(id); };
  fs::create_symlink(real, at("link"));
  ASSERT_EQ(mkfifo(at("fifo").c_str(), 0600), 0);
  fs::create_directory(at("folder"));
  fs::create_symlink("/dev/zero", at("device"));
  fs::copy_file(real, at("copy"));
  std::ofstream(at("text")) << "not a session";
  std::ofstream(at("empty")).flush();
  for (const char* id : {"link", "fifo", "folder", "device"}) {
    EXPECT_EQ(folder->Read(id).status().code(), StatusCode::kIoError) << id;
    EXPECT_EQ(folder->Save(id, dialogue.Content()).status().code(), StatusCode::kIoError) << id;
  }
  EXPECT_EQ(folder->Read("copy").status().code(), StatusCode::kCorruptData) << "it says whose it is";
  EXPECT_EQ(folder->Read("text").status().code(), StatusCode::kCorruptData);
  EXPECT_EQ(folder->Save("text", dialogue.Content()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(folder->Save("empty", dialogue.Content()).ok()) << "nothing is lost";
  EXPECT_TRUE(fs::is_symlink(at("link")));
  int n_unreadable = 0;
  EXPECT_EQ(folder->List(&n_unreadable)->size(), 3u) << "real, its copy, and empty";
  EXPECT_EQ(n_unreadable, 1);
}

TEST(SessionFolderTest, LeftoversAreRemovedAndNothingElse) {
  TempDir dir;
  {
    const auto folder = Open(dir.path());
    const TestDialogue dialogue(Numbers(0, 10));
    ASSERT_TRUE(folder->Save("a", dialogue.Content()).ok());
  }
  const fs::path left = dir.path() / TemporaryNameOf(*SessionFileName("b"));
  std::ofstream(left) << "half";
  std::ofstream(dir.path() / "notes.txt") << "mine";
  std::ofstream(dir.path() / ".hidden") << "mine";
  const auto folder = Open(dir.path());
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(fs::exists(dir.path() / "notes.txt"));
  EXPECT_TRUE(fs::exists(dir.path() / ".hidden"));
  EXPECT_EQ(folder->List(nullptr)->size(), 1u);
}

TEST(SessionFolderTest, FoldersThatCannotBe) {
  TempDir dir;
  std::ofstream(dir.path() / "file") << "x";
  const auto code = [](const fs::path& path) {
    return SessionFolder::Open(FileOps::System(), path.string(), 0).status().code();
  };
  EXPECT_EQ(code(dir.path() / "file"), StatusCode::kIoError);
  EXPECT_EQ(code(dir.path() / "none" / "deep"), StatusCode::kNotFound);
  EXPECT_EQ(code(""), StatusCode::kInvalidArgument);
}

// A folder that may only be read: what is stored can be read, saving says why not.
TEST(SessionFolderTest, AReadOnlyFileSystem) {
  class ReadOnly : public FileOps {
   public:
    int OpenAt(int dir, const char* name, int flags, mode_t mode) override {
      if ((flags & (O_CREAT | O_RDWR | O_WRONLY)) == 0) return FileOps::OpenAt(dir, name, flags, mode);
      errno = EROFS;
      return -1;
    }
    int UnlinkAt(int, const char*) override {
      errno = EROFS;
      return -1;
    }
  };
  TempDir dir;
  const TestDialogue dialogue(Numbers(0, 40));
  ASSERT_TRUE(Open(dir.path())->Save("a", dialogue.Content()).ok());
  ReadOnly ops;
  auto folder = SessionFolder::Open(ops, dir.path().string(), 0);
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(*ReadBack(*(*folder)->Read("a")), dialogue.tokens());
  for (const char* id : {"a", "b"})
    EXPECT_EQ((*folder)->Save(id, dialogue.Content()).status().code(), StatusCode::kIoError);
  EXPECT_EQ((*folder)->Delete("a").code(), StatusCode::kIoError);
}

// Writers of several processes and threads on the same few sessions: each file is one of the states that were saved.
TEST(SessionFolderTest, SeveralProcessesAndThreads) {
  TempDir dir;
  Open(dir.path());
  const auto work = [&](int worker) {
    const auto folder = Open(dir.path(), 1 << 20);
    if (folder == nullptr) return false;
    for (int i = 0; i < 40; ++i) {
      const std::string id = "s" + std::to_string((worker + i) % 3);
      const TestDialogue dialogue(Numbers(worker % 2 == 0 ? 0 : 1000, 10 + (i * 7) % 60));
      if (!folder->Save(id, dialogue.Content()).ok()) return false;
      const auto reader = folder->Read("s" + std::to_string(i % 3));
      if (!reader.ok() && reader.status().code() != StatusCode::kNotFound) return false;
      if (reader.ok() && !ReadBack(*reader).ok()) return false;
      if (i % 13 == 12) (void)folder->SetPinned(id, i % 2 == 0);
      if (i % 17 == 16) (void)folder->Delete(id);
    }
    return true;
  };
  std::vector<pid_t> children;
  for (int worker = 0; worker < 3; ++worker) {
    const pid_t child = fork();
    if (child == 0) _exit(work(worker) ? 0 : 1);
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int state = 0;
    ASSERT_EQ(waitpid(child, &state, 0), child);
    EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0);
  }
  std::vector<std::thread> threads;
  std::atomic<int> succeeded = 0;
  for (int worker = 0; worker < 3; ++worker) threads.emplace_back([&, worker] { succeeded += work(worker) ? 1 : 0; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(succeeded, 3);
  for (const auto& entry : fs::directory_iterator(dir.path()))
    EXPECT_TRUE(entry.path().string().ends_with(".lssnap")) << entry.path();
}

TEST(SessionFolderTest, ALockThatIsHeldIsSaidSo) {
  TempDir dir;
  auto folder = SnapshotFolder::Open(FileOps::System(), dir.path().string());
  ASSERT_TRUE(folder.ok());
  const auto lock = FolderLock::Take(*folder);
  ASSERT_TRUE(lock.ok());
  const auto second = FolderLock::Take(*folder, 10);
  EXPECT_EQ(second.status().code(), StatusCode::kIoError);
  EXPECT_THAT(second.status().message(), testing::HasSubstr("another writer"));
}

TEST(SessionFolderTest, OneIsAloneInAFolderAndOthersMayWrite) {
  TempDir dir;
  const std::string path = dir.path().string();
  auto owner = SessionFolder::Open(FileOps::System(), path, 0, /*alone=*/true);
  ASSERT_TRUE(owner.ok()) << owner.status().message();
  const auto second = SessionFolder::Open(FileOps::System(), path, 0, true);
  EXPECT_EQ(second.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(second.status().message(), testing::HasSubstr("another server"));
  const TestDialogue dialogue(Numbers(0, 40));
  EXPECT_TRUE(Open(dir.path())->Save("a", dialogue.Content()).ok());
  EXPECT_EQ((*owner)->List(nullptr)->size(), 1u);
  owner->reset();
  EXPECT_TRUE(SessionFolder::Open(FileOps::System(), path, 0, true).ok());
  fs::remove(dir.path() / ".owner");
  fs::create_symlink("/dev/null", dir.path() / ".owner");
  EXPECT_EQ(SessionFolder::Open(FileOps::System(), path, 0, true).status().code(), StatusCode::kIoError);
}

TEST(SessionFolderTest, WhoGaveWayIsSaidAndLookingIsNoUse) {
  TempDir dir;
  const TestDialogue dialogue(Numbers(0, 40));
  const uint64_t one = Open(dir.path())->Save("probe", dialogue.Content())->file_bytes;
  ASSERT_TRUE(Open(dir.path())->Delete("probe").ok());
  const auto folder = Open(dir.path(), one * 2 + one / 2);
  const auto save = [&](const char* id) {
    std::vector<std::string> deleted;
    EXPECT_TRUE(folder->Save(id, dialogue.Content(), &deleted).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return deleted;
  };
  EXPECT_TRUE(save("a").empty());
  EXPECT_TRUE(save("b").empty());
  EXPECT_EQ(*folder->UsedBytes(), 2 * (one - 4)) << "ids that are shorter by so much";
  EXPECT_TRUE(folder->Read("a", SessionFolder::Use::kDoesNotCount).ok());
  EXPECT_EQ(save("c"), std::vector<std::string>{"a"});
  EXPECT_TRUE(folder->Read("b").ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(save("d"), std::vector<std::string>{"c"});
}

}  // namespace
}  // namespace loopserve
