#include "src/base/sha256.h"

#include <gtest/gtest.h>

#include <fstream>

#include "src/base/temp_dir.h"

namespace loopserve {
namespace {

// FIPS 180-2, appendix B.
TEST(Sha256Test, GivesThePublishedDigests) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, PiecesGiveTheHashOfTheWholeAndFinishingStartsAnew) {
  Sha256 hasher;
  for (int round = 0; round < 2; ++round) {
    hasher.Update("a", 1);
    hasher.Update("bc", 2);
    EXPECT_EQ(hasher.FinishHex(), Sha256Hex("abc"));
  }
}

TEST(Sha256Test, HashesFilesAndReportsMissingOnes) {
  TempDir dir;
  const std::string content(3 << 20, 'x');
  std::ofstream(dir.path() / "f", std::ios::binary) << content;
  auto hash = Sha256OfFile(dir.path() / "f");
  ASSERT_TRUE(hash.ok());
  EXPECT_EQ(*hash, Sha256Hex(content));
  EXPECT_EQ(Sha256OfFile(dir.path() / "none").status().code(), StatusCode::kNotFound);
  const std::atomic<bool> cancel{true};
  EXPECT_EQ(Sha256OfFile(dir.path() / "f", &cancel).status().code(), StatusCode::kCancelled);
}

TEST(Sha256Test, TellsDigestsFromOtherText) {
  EXPECT_TRUE(IsSha256Hex(Sha256Hex("")));
  EXPECT_TRUE(IsSha256Hex(std::string(64, 'A')));
  EXPECT_FALSE(IsSha256Hex(std::string(63, 'a')));
  EXPECT_FALSE(IsSha256Hex(std::string(64, 'g')));
}

}  // namespace
}  // namespace loopserve
