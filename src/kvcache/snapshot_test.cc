// Files of the format: what is written, what is kept, what is refused.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "src/base/temp_dir.h"
#include "src/kvcache/test_snapshot.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

class SnapshotTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = SnapshotFolder::Open(FileOps::System(), dir_.path().string());
    ASSERT_TRUE(folder.ok());
    folder_ = std::move(folder).value();
  }
  SnapshotWriteStats MustSave(const TestDialogue& dialogue) {
    const auto stats = WriteSnapshot(folder_, "d", dialogue.Content());
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    return stats.ok() ? *stats : SnapshotWriteStats{};
  }
  std::vector<int> MustReadBack() {
    const auto tokens = ReadBack(folder_, "d");
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    return tokens.ok() ? *tokens : std::vector<int>();
  }
  int CountPieces() {
    const auto reader = SnapshotReader::Open(FileOps::System(), folder_.fd.get(), "d", "d");
    return static_cast<int>(std::ranges::count(reader->regions(), RegionKind::kKeysAndValues, &Region::kind));
  }
  std::string Bytes() {
    const UniqueFd fd(openat(folder_.fd.get(), "d", O_RDONLY));
    struct stat info {};
    fstat(fd.get(), &info);
    std::string bytes(static_cast<size_t>(info.st_size), '\0');
    EXPECT_EQ(pread(fd.get(), bytes.data(), bytes.size(), 0), info.st_size);
    return bytes;
  }
  void SetBytes(const std::string& bytes) {
    const UniqueFd fd(openat(folder_.fd.get(), "d", O_RDWR | O_CREAT | O_TRUNC, 0600));
    ASSERT_EQ(pwrite(fd.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  /// Changes the only header and gives it its checksum again.
  void ChangeHeader(std::string bytes, const std::function<void(SnapshotHeader&)>& change) {
    auto header = DecodeSlots(std::as_bytes(std::span(bytes)).first(kSlotsBytes));
    ASSERT_TRUE(header.ok());
    change(*header);
    const auto slot = EncodeSlot(*header);
    std::memcpy(bytes.data() + header->generation % 2 * kSlotBytes, slot.data(), slot.size());
    SetBytes(bytes);
  }
  /// The same for a region of its table.
  void ChangeRegion(std::string bytes, size_t index, const std::function<void(Region&)>& change) {
    const auto reader = SnapshotReader::Open(FileOps::System(), folder_.fd.get(), "d", "d");
    ASSERT_TRUE(reader.ok());
    std::vector<Region> regions = reader->regions();
    change(regions[index]);
    const std::vector<std::byte> table = EncodeTable(regions);
    std::memcpy(bytes.data() + reader->header().table_offset, table.data(), table.size());
    ChangeHeader(bytes, [&](SnapshotHeader& header) { header.table_hash = HashOf(table); });
  }
  Status Refusal() { return ReadBack(folder_, "d").status(); }

  TempDir dir_;
  SnapshotFolder folder_;
};

TEST_F(SnapshotTest, PiecesOfABlockDoNotGrowWithoutLimit) {
  TestDialogue dialogue;
  for (int i = 0; i < 96; ++i) {
    dialogue.Append({i});
    MustSave(dialogue);
    ASSERT_EQ(MustReadBack(), Numbers(0, i + 1));
    EXPECT_LE(CountPieces(), 3 * 9);
  }
  EXPECT_LT(CountPieces(), 96 / 3);
}

TEST_F(SnapshotTest, RewindsAndEditsWriteWhatDiffers) {
  TestDialogue dialogue(Numbers(0, 100));
  MustSave(dialogue);
  for (const int keep : {99, 64, 63, 33, 1, 0}) {
    dialogue.Truncate(keep);
    dialogue.Append(Numbers(keep * 1000 + 5000, 20));
    const SnapshotWriteStats stats = MustSave(dialogue);
    EXPECT_TRUE(stats.appended);
    EXPECT_EQ(MustReadBack(), dialogue.tokens());
    const uint64_t whole_blocks = static_cast<uint64_t>(keep / 32 * 32) * TestDialogue::Layout().token_bytes();
    EXPECT_GE(stats.kept_bytes, whole_blocks == 0 ? 0 : whole_blocks - 32 * TestDialogue::Layout().token_bytes());
  }
  dialogue.Truncate(0);
  MustSave(dialogue);
  EXPECT_EQ(MustReadBack(), std::vector<int>());
}

TEST_F(SnapshotTest, AReaderKeepsWhatItOpened) {
  TestDialogue dialogue(Numbers(0, 50));
  MustSave(dialogue);
  const auto reader = SnapshotReader::Open(FileOps::System(), folder_.fd.get(), "d", "d");
  for (int i = 0; i < 5; ++i) {
    dialogue.Truncate(20);
    dialogue.Append(Numbers(i * 100 + 300, 60));
    MustSave(dialogue);
  }
  EXPECT_EQ(*ReadBack(*reader), Numbers(0, 50));
}

TEST_F(SnapshotTest, AForkIsWrittenWhileItsOriginalGoesOn) {
  TestDialogue dialogue(Numbers(0, 50));
  for (int i = 0; i < 20; ++i) {
    auto fork = std::make_unique<KvCache>(dialogue.cache().Fork());
    const std::vector<int> tokens = dialogue.tokens();
    SnapshotContent content = dialogue.Content();
    content.cache = fork.get();
    content.regions[0].parts = {std::as_bytes(std::span(tokens))};
    Status status;
    std::thread writer([&] {
      status = WriteSnapshot(folder_, "d", content).status();
      fork.reset();
    });
    // Rows that the fork holds too are forgotten, and others are written in their places.
    for (int j = 0; j < 8; ++j) {
      dialogue.Truncate(dialogue.cache().n_tokens() - 5);
      dialogue.Append(Numbers(1000 * i + 100 * j, 6));
    }
    writer.join();
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(MustReadBack(), tokens);
  }
}

TEST_F(SnapshotTest, EveryByteThatIsFlippedIsFound) {
  MustSave(TestDialogue(Numbers(0, 40)));
  const std::string good = Bytes();
  // Slot 0 has never been written.
  for (size_t at = kSlotBytes; at < good.size(); at += at < kSlotsBytes ? 1 : 5) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
    SetBytes(bad);
    const Status status = Refusal();
    ASSERT_EQ(status.code(), StatusCode::kCorruptData) << "byte " << at << ": " << status.message();
  }
  for (size_t length = 0; length < good.size(); length += 1 + length / 50) {
    SetBytes(good.substr(0, length));
    ASSERT_EQ(Refusal().code(), StatusCode::kCorruptData) << "length " << length;
  }
  SetBytes(good + "what a save that was killed has left");
  EXPECT_EQ(MustReadBack(), Numbers(0, 40));
}

TEST_F(SnapshotTest, HostileSizesAreRefusedBeforeMemoryIsTaken) {
  MustSave(TestDialogue(Numbers(0, 40)));
  const std::string good = Bytes();
  const auto refused = [&](const std::function<void(SnapshotHeader&)>& change) {
    ChangeHeader(good, change);
    EXPECT_EQ(Refusal().code(), StatusCode::kCorruptData);
  };
  for (const uint64_t within_slots : {uint64_t{0}, uint64_t{kSlotBytes}, uint64_t{kSlotsBytes - 1}}) {
    refused([&](SnapshotHeader& h) { h.file_bytes = within_slots; });
    refused([&](SnapshotHeader& h) { h.table_offset = within_slots; });
  }
  for (const uint64_t size : {uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} >> 1}) {
    refused([&](SnapshotHeader& h) { h.file_bytes = size; });
    refused([&](SnapshotHeader& h) { h.table_offset = size; });
    refused([&](SnapshotHeader& h) { h.n_tokens = size; });
    refused([&](SnapshotHeader& h) { h.n_regions = static_cast<uint32_t>(size >> 8); });
    for (size_t region = 0; region < 3; ++region) {
      SetBytes(good);
      ChangeRegion(good, region, [&](Region& r) { r.offset = size; });
      EXPECT_EQ(Refusal().code(), StatusCode::kCorruptData);
      SetBytes(good);
      ChangeRegion(good, region, [&](Region& r) { r.bytes = size; });
      EXPECT_EQ(Refusal().code(), StatusCode::kCorruptData);
    }
  }
  refused([&](SnapshotHeader& h) { h.generation = ~uint64_t{0}; });
  // Many regions over the same bytes: together longer than the file.
  SetBytes(good);
  ChangeRegion(good, 2, [&](Region& r) {
    r.offset = kSlotsBytes;
    r.bytes = good.size() - kSlotsBytes - 10;
  });
  EXPECT_THAT(Refusal().message(), HasSubstr("longer than the file"));
}

TEST_F(SnapshotTest, LaterFormatsAreNamedAndKept) {
  MustSave(TestDialogue(Numbers(0, 40)));
  std::string bytes = Bytes();
  std::byte* slot = reinterpret_cast<std::byte*>(bytes.data()) + kSlotBytes;
  const uint32_t version = 7;
  std::memcpy(slot + 8, &version, sizeof(version));
  const ContentHash hash = HashOf({slot, kSlotBytes - 16});
  std::memcpy(slot + kSlotBytes - 16, hash.data(), hash.size());
  SetBytes(bytes);
  EXPECT_EQ(Refusal().code(), StatusCode::kUnsupported);
  EXPECT_THAT(Refusal().message(), HasSubstr("format 7"));
  const TestDialogue other(Numbers(0, 5));
  EXPECT_EQ(WriteSnapshot(folder_, "d", other.Content()).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(Bytes(), bytes);
}

TEST_F(SnapshotTest, DamagedFilesAreReplacedAndOthersAreNot) {
  MustSave(TestDialogue(Numbers(0, 40)));
  SetBytes(Bytes().substr(0, 9000));
  MustSave(TestDialogue(Numbers(0, 50)));
  EXPECT_EQ(MustReadBack(), Numbers(0, 50));
  SetBytes("a letter to a friend");
  const TestDialogue dialogue(Numbers(0, 5));
  EXPECT_EQ(WriteSnapshot(folder_, "d", dialogue.Content()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Bytes(), "a letter to a friend");
}

TEST_F(SnapshotTest, AdmissionIsAskedBeforeAnythingIsWritten) {
  const TestDialogue dialogue(Numbers(0, 40));
  uint64_t asked = 0;
  const auto refused = WriteSnapshot(folder_, "d", dialogue.Content(), [&](uint64_t bytes) {
    asked = bytes;
    return Status(StatusCode::kResourceExhausted, "full");
  });
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadBack(folder_, "d").status().code(), StatusCode::kNotFound);
  MustSave(dialogue);
  EXPECT_EQ(Bytes().size(), asked);
}

TEST_F(SnapshotTest, PinsStayThroughSaves) {
  MustSave(TestDialogue(Numbers(0, 40)));
  const auto is_pinned = [&] {
    return SnapshotReader::Open(FileOps::System(), folder_.fd.get(), "d", "d")->header().pinned;
  };
  ASSERT_TRUE(SetSnapshotPinned(folder_, "d", true).ok());
  EXPECT_TRUE(is_pinned());
  MustSave(TestDialogue(Numbers(0, 60)));
  EXPECT_TRUE(is_pinned());
  ASSERT_TRUE(SetSnapshotPinned(folder_, "d", false).ok());
  EXPECT_FALSE(is_pinned());
  EXPECT_EQ(MustReadBack(), Numbers(0, 60));
  EXPECT_EQ(SetSnapshotPinned(folder_, "none", true).code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace loopserve
