#include "src/gguf/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "ggml.h"
#include "gguf.h"
#include "tests/support/raw_gguf.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

constexpr uint32_t kF32 = GGML_TYPE_F32, kQ40 = GGML_TYPE_Q4_0;
constexpr uint32_t kArray = 9, kUint8 = 0, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8, kUint64 = 10, kInt64 = 11,
                   kFloat64 = 12, kUint16 = 2;

Result<std::unique_ptr<GgufFile>> OpenBytes(std::string_view bytes) { return GgufFile::Open(MemoryFile(bytes).path()); }

std::string TinyBytes() {
  TinyGgufOptions options = TinyModel(TinyFamily::kLlama);
  options.n_layers = 1;
  options.n_embd = options.n_ff = 32;
  options.head_dim = 8;
  const std::string path = testing::TempDir() + "gguf_file_test_tiny.gguf";
  EXPECT_TRUE(WriteTinyGguf(options, path).ok());
  std::ifstream file(path, std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(file), {});
  std::filesystem::remove(path);
  return bytes;
}

TEST(GgufFile, DescribesTensorsThatPointIntoTheFile) {
  RawGguf raw(2, 2);
  raw.String("general.architecture", "llama").Uint32("general.alignment", 64);
  raw.Tensor("a", {2, 3}, kF32, 0).Tensor("b", {32, 1, 2}, kQ40, 64).PadTo(64);
  const size_t data = raw.bytes().size();
  raw.Put(1.0f).Put(2.0f).Put(3.0f).Put(4.0f).Put(5.0f).Put(6.0f).PadTo(64).Zeros(36);
  auto file = OpenBytes(raw.bytes());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->Architecture(), "llama");
  EXPECT_EQ((*file)->file_bytes(), data + 64 + 36);
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const ggml_tensor* a = (*file)->FindTensor("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a, (*file)->tensors()[0]);
  EXPECT_STREQ(a->name, "a");
  EXPECT_EQ(ggml_n_dims(a), 2);
  EXPECT_EQ(a->ne[0], 2);
  EXPECT_EQ(a->ne[1], 3);
  EXPECT_EQ(static_cast<const float*>(a->data)[5], 6.0f);
  const ggml_tensor* b = (*file)->FindTensor("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->type, GGML_TYPE_Q4_0);
  EXPECT_EQ(ggml_nbytes(b), 36u);
  EXPECT_EQ(static_cast<const char*>(b->data) - static_cast<const char*>(a->data), 64);
  EXPECT_EQ((*file)->FindTensor("c"), nullptr);
}

TEST(GgufFile, ReadsMetadataByType) {
  RawGguf raw(0, 17);
  raw.Key("u8", kUint8).Put<uint8_t>(200);
  raw.Key("i32", kInt32).Put<int32_t>(-5);
  raw.Key("u64", kUint64).Put<uint64_t>(std::numeric_limits<uint64_t>::max());
  raw.Key("i64", kInt64).Put<int64_t>(7);
  raw.Key("f32", kFloat32).Put(1.5f).Key("f64", kFloat64).Put(2.5).Key("nan", kFloat32).Put(std::nanf(""));
  raw.Key("true", kBool).Put<uint8_t>(1).String("text", "hello");
  raw.Array("ints", kInt32, 3).Put<int32_t>(1).Put<int32_t>(0).Put<int32_t>(3);
  raw.Array("negative", kInt32, 1).Put<int32_t>(-1);
  raw.Array("big", kUint64, 1).Put<uint64_t>(std::numeric_limits<uint64_t>::max());
  raw.Array("bools", kBool, 2).Put<uint8_t>(1).Put<uint8_t>(0);
  raw.Array("texts", kString, 2).Text("").Text("xy");
  raw.Array("floats", kFloat32, 1).Put(0.5f);
  raw.Array("none", kFloat32, 0).Uint32("u32", 12);
  auto opened = OpenBytes(raw.bytes());
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const GgufFile& file = **opened;

  EXPECT_EQ(file.FindUint("u8")->value(), 200u);
  EXPECT_EQ(file.FindUint("u64")->value(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(file.FindUint("i64")->value(), 7u);
  EXPECT_FALSE(file.FindUint("missing")->has_value());
  EXPECT_EQ(file.FindFloat("f32")->value(), 1.5);
  EXPECT_EQ(file.FindFloat("f64")->value(), 2.5);
  EXPECT_TRUE(file.FindBool("true")->value());
  EXPECT_EQ(file.FindString("text")->value(), "hello");
  EXPECT_THAT(file.FindUintOrArray("ints", 3)->value(), testing::ElementsAre(1, 0, 3));
  EXPECT_THAT(file.FindUintOrArray("u32", 2)->value(), testing::ElementsAre(12, 12));
  EXPECT_THAT(file.FindBoolArray("bools")->value(), testing::ElementsAre(true, false));
  EXPECT_THAT(file.FindBoolArray("ints")->value(), testing::ElementsAre(true, false, true));
  EXPECT_THAT(file.FindStringArray("texts")->value(), testing::ElementsAre("", "xy"));
  EXPECT_THAT(file.FindIntArray("negative")->value(), testing::ElementsAre(-1));
  EXPECT_THAT(file.FindFloatArray("floats")->value(), testing::ElementsAre(0.5f));
  EXPECT_TRUE(file.FindFloatArray("none")->value().empty());
  EXPECT_EQ(*file.RequireUint("u32", 1, 12), 12u);
  EXPECT_EQ(*file.RequireFloat("f32"), 1.5);
  EXPECT_EQ(file.Architecture(), "");

  const std::pair<const char*, Status> errors[] = {
      {"i32 is -5", file.FindUint("i32").status()},
      {"f32 must be an integer", file.FindUint("f32").status()},
      {"u8 must be a floating-point", file.FindFloat("u8").status()},
      {"nan is not a finite", file.FindFloat("nan").status()},
      {"u8 must be a bool", file.FindBool("u8").status()},
      {"u8 must be a string", file.FindString("u8").status()},
      {"ints has 3 values for 4 layers", file.FindUintOrArray("ints", 4).status()},
      {"negative has the value -1", file.FindUintOrArray("negative", 1).status()},
      {"text must be an integer", file.FindUintOrArray("text", 1).status()},
      {"big has a number that is too large", file.FindIntArray("big").status()},
      {"floats must be an array of integers, but it is of type arr[f32]", file.FindBoolArray("floats").status()},
      {"ints must be an array of strings", file.FindStringArray("ints").status()},
      {"text must be an array of f32", file.FindFloatArray("text").status()},
      {"u32 is 12: it must be from 13 to 20", file.RequireUint("u32", 13, 20).status()},
      {"gone is missing", file.RequireUint("gone", 0, 1).status()},
      {"gone is missing", file.RequireFloat("gone").status()},
  };
  for (const auto& [words, status] : errors) {
    EXPECT_EQ(status.code(), StatusCode::kCorruptData) << words;
    EXPECT_THAT(status.message(), HasSubstr(words));
  }
}

struct HostileCase {
  const char* name;
  std::string bytes;
  const char* words;  ///< that the error must have
  StatusCode code = StatusCode::kCorruptData;
};

RawGguf OneTensor(std::initializer_list<int64_t> dims, uint32_t type = kF32, uint64_t offset = 0,
                  std::string_view name = "t") {
  RawGguf raw(1, 0);
  raw.Tensor(name, dims, type, offset).PadTo(32).Zeros(4096);
  return raw;
}

std::vector<HostileCase> HostileHeaders() {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  return {
      {"not a GGUF", "GGML, but not unified at all", "does not begin with 'GGUF'"},
      {"magic only", "GGUF", "ends in its header"},
      {"version 1", RawGguf(0, 0, 1).bytes(), "version 1 is not supported", StatusCode::kUnsupported},
      {"version 4", RawGguf(0, 0, 4).bytes(), "version 4 is not supported", StatusCode::kUnsupported},
      {"big endian", RawGguf(0, 0, 0x03000000).bytes(), "big-endian", StatusCode::kUnsupported},
      {"huge tensor count", RawGguf(kHuge, 0).bytes(), "tensors are too many"},
      {"huge key count", RawGguf(0, kHuge).bytes(), "keys are too many"},
      {"more tensors than bytes", RawGguf(60000, 0).bytes(), "ends in tensor 0"},
      {"more keys than bytes", RawGguf(0, 60000).bytes(), "ends in metadata key 0"},
      {"one part of several", RawGguf(0, 1).Key("split.count", kUint16).Put<uint16_t>(3).bytes(), "3 parts",
       StatusCode::kUnsupported},
      {"split count of a wrong type", RawGguf(0, 1).String("split.count", "3").bytes(), "must be an integer"},
  };
}

std::vector<HostileCase> HostileKeys() {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  return {
      {"huge key length", RawGguf(0, 1).Put(kHuge).bytes(), "ends in metadata key 0"},
      {"empty key", RawGguf(0, 1).Uint32("", 1).bytes(), "no valid name"},
      {"key with NUL", RawGguf(0, 1).Uint32(std::string_view("a\0b", 3), 1).bytes(), "no valid name"},
      {"overlong key", RawGguf(0, 1).Uint32(std::string(70000, 'k'), 1).bytes(), "no valid name"},
      {"key twice", RawGguf(0, 2).Uint32("a", 1).Uint32("a", 1).bytes(), "'a' occurs twice"},
      {"unknown type", RawGguf(0, 1).Key("a", 13).Zeros(64).bytes(), "unknown type 13"},
      {"type -1", RawGguf(0, 1).Key("a", 0xffffffff).Zeros(64).bytes(), "unknown type"},
      {"no value", RawGguf(0, 1).Key("a", kUint64).bytes(), "longer than what is left"},
      {"no type", RawGguf(0, 1).Text("a").bytes(), "ends in key 'a'"},
      {"huge string", RawGguf(0, 1).Key("a", kString).Put(kHuge).bytes(), "longer than what is left"},
      {"huge array", RawGguf(0, 1).Array("a", kUint8, kHuge).bytes(), "longer than what is left"},
      {"array whose bytes overflow", RawGguf(0, 1).Array("a", kUint64, kHuge / 8 + 2).Zeros(64).bytes(),
       "longer than what is left"},
      {"huge array of strings", RawGguf(0, 1).Array("a", kString, kHuge).Zeros(64).bytes(), "longer than what is left"},
      {"string in an array runs over", RawGguf(0, 1).Array("a", kString, 2).Text("ok").Put<uint64_t>(99).bytes(),
       "longer than what is left"},
      {"array of arrays", RawGguf(0, 1).Array("a", kArray, 1).Zeros(64).bytes(), "not allowed"},
      {"array of an unknown type", RawGguf(0, 1).Array("a", 77, 1).Zeros(64).bytes(), "not allowed"},
      {"bool of 2", RawGguf(0, 1).Key("a", kBool).Put<uint8_t>(2).bytes(), "neither 0 nor 1"},
      {"bool of 255 in an array", RawGguf(0, 1).Array("a", kBool, 1).Put<uint8_t>(255).bytes(), "neither 0 nor 1"},
      {"control characters in a name are not repeated", RawGguf(0, 1).Key("\x1b[31m", 99).bytes(), "'?[31m'"},
  };
}

std::vector<HostileCase> HostileTensors() {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  const auto two = [](uint64_t first, uint64_t second) {
    RawGguf raw(2, 0);
    raw.Tensor("a", {16}, kF32, first).Tensor("b", {16}, kF32, second).PadTo(32).Zeros(256);
    return raw.bytes();
  };
  const auto aligned = [](uint32_t alignment) { return RawGguf(0, 1).Uint32("general.alignment", alignment).bytes(); };
  return {
      {"no name", OneTensor({4}, kF32, 0, "").bytes(), "no valid name"},
      {"name too long for ggml", OneTensor({4}, kF32, 0, std::string(64, 'n')).bytes(), "no valid name"},
      {"name with NUL", OneTensor({4}, kF32, 0, std::string_view("a\0b", 3)).bytes(), "no valid name"},
      {"name twice", RawGguf(2, 0).Tensor("t", {4}, kF32, 0).Tensor("t", {4}, kF32, 32).Zeros(999).bytes(), "twice"},
      {"no dimensions", OneTensor({}).bytes(), "has 0 dimensions"},
      {"five dimensions", OneTensor({1, 1, 1, 1, 1}).bytes(), "has 5 dimensions"},
      {"dimension 0", OneTensor({4, 0}).bytes(), "impossible dimension 0"},
      {"negative dimension", OneTensor({-4}).bytes(), "impossible dimension -4"},
      {"two negative dimensions", OneTensor({-4, -4}).bytes(), "impossible dimension -4"},
      {"elements overflow", OneTensor({1LL << 32, 1LL << 31}).bytes(), "impossible dimension"},
      {"bytes overflow", OneTensor({kHuge / 2}).bytes(), "too large"},
      {"larger than the file", OneTensor({1 << 20}).bytes(), "beyond the end"},
      {"unknown type", OneTensor({4}, 9999).bytes(), "unknown type 9999"},
      {"type -1", OneTensor({4}, 0xffffffff).bytes(), "unknown type"},
      {"type that ggml dropped", OneTensor({4}, 4).bytes(), "unknown type 4"},
      {"half a block", OneTensor({48}, kQ40).bytes(), "not a multiple of its block of 32"},
      {"offset not aligned", OneTensor({4}, kF32, 4).bytes(), "not aligned"},
      {"offset past the end", OneTensor({4}, kF32, 1 << 20).bytes(), "beyond the end"},
      {"offset that overflows", OneTensor({4}, kF32, 0xffffffffffffffe0).bytes(), "beyond the end"},
      {"one byte short", OneTensor({1024 + 8}).bytes(), "beyond the end"},
      {"overlap", two(0, 32), "'a' and 'b' overlap"},
      {"overlap backwards", two(64, 32), "'b' and 'a' overlap"},
      {"same place", two(0, 0), "overlap"},
      {"description cut short", RawGguf(1, 0).Text("t").Put<uint32_t>(2).Put<int64_t>(4).bytes(), "ends in a tensor"},
      {"no type", RawGguf(1, 0).Text("t").Put<uint32_t>(1).Put<int64_t>(4).bytes(), "ends in a tensor"},
      {"no data at all", RawGguf(1, 0).Tensor("t", {4}, kF32, 0).bytes(), "beyond the end"},
      {"alignment 0", aligned(0), "power of two"},
      {"alignment 48", aligned(48), "power of two"},
      {"alignment 1", aligned(1), "power of two"},
      {"alignment 2^31", aligned(1u << 31), "power of two"},
      {"alignment is text", RawGguf(0, 1).String("general.alignment", "32").bytes(), "must be a u32"},
  };
}

TEST(GgufFile, HostileFilesAreRefusedWithAReason) {
  for (const auto& cases : {HostileHeaders(), HostileKeys(), HostileTensors()}) {
    for (const HostileCase& hostile : cases) {
      SCOPED_TRACE(hostile.name);
      auto file = OpenBytes(hostile.bytes);
      ASSERT_FALSE(file.ok());
      EXPECT_EQ(file.status().code(), hostile.code);
      EXPECT_THAT(file.status().message(), HasSubstr(hostile.words));
      EXPECT_THAT(file.status().message(), HasSubstr("/proc/self/fd/"));  // names the file
    }
  }
}

TEST(GgufFile, OpensWhatIsUnusualButValid) {
  const std::pair<const char*, std::string> cases[] = {
      {"nothing in it", RawGguf(0, 0).bytes()},
      {"version 2", RawGguf(0, 0, 2).bytes()},
      {"empty array of strings", RawGguf(0, 1).Array("a", kString, 0).bytes()},
      {"four dimensions", OneTensor({2, 3, 4, 5}).bytes()},
      {"tensors out of order",
       RawGguf(2, 0).Tensor("a", {8}, kF32, 32).Tensor("b", {8}, kF32, 0).PadTo(32).Zeros(64).bytes()},
      {"a gap between tensors",
       RawGguf(2, 0).Tensor("a", {8}, kF32, 0).Tensor("b", {8}, kF32, 96).PadTo(32).Zeros(128).bytes()},
      {"the only part of a split model", RawGguf(0, 1).Key("split.count", kUint16).Put<uint16_t>(1).bytes()},
  };
  for (const auto& [name, bytes] : cases) {
    auto file = OpenBytes(bytes);
    EXPECT_TRUE(file.ok()) << name << ": " << file.status().message();
  }
}

TEST(GgufFile, MissingFilesAndFoldersAreErrors) {
  EXPECT_EQ(GgufFile::Open("/nonexistent/model.gguf").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(GgufFile::Open(testing::TempDir()).status().code(), StatusCode::kIoError);
  EXPECT_EQ(OpenBytes("").status().code(), StatusCode::kCorruptData);
}

/// Reads everything that a file offers, so that a sanitizer sees whatever an accepted file may lead to.
uint64_t Touch(const GgufFile& file) {
  uint64_t sum = file.Architecture().size();
  for (const ggml_tensor* tensor : file.tensors()) {
    const auto* bytes = static_cast<const uint8_t*>(tensor->data);
    const size_t n = ggml_nbytes(tensor);
    for (size_t i = 0; i < n; i += 509) sum += bytes[i];
    sum += bytes[n - 1];
  }
  for (const char* key : {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores",
                          "tokenizer.ggml.token_type", "llama.context_length", "tokenizer.ggml.model"}) {
    (void)file.FindUint(key);
    (void)file.FindFloat(key);
    (void)file.FindString(key);
    (void)file.FindUintOrArray(key, 3);
    (void)file.FindBoolArray(key);
    const auto texts = file.FindStringArray(key);
    if (texts.ok() && texts->has_value()) {
      for (const std::string_view text : **texts) sum += text.empty() ? 0 : static_cast<uint8_t>(text.back());
    }
  }
  return sum;
}

TEST(GgufFile, TruncationAtAnyByteIsAnError) {
  const std::string bytes = TinyBytes();
  ASSERT_TRUE(OpenBytes(bytes).ok());
  MemoryFile file(bytes);
  for (size_t size = bytes.size() - 1; size > 0; --size) {
    // Every byte of the header; a sample of the weights, which all end in the same check.
    if (size > 16384 && size % 97 != 0 && size + 64 < bytes.size()) continue;
    file.Resize(size);
    // The writer pads the last tensor; those bytes are nobody's.
    if (bytes.size() - size < GGUF_DEFAULT_ALIGNMENT && OpenBytes(bytes.substr(0, size)).ok()) continue;
    ASSERT_FALSE(GgufFile::Open(file.path()).ok()) << "cut to " << size << " bytes";
  }
}

TEST(GgufFile, FlippedBitsGiveAnErrorOrAReadableFile) {
  const std::string bytes = TinyBytes();
  MemoryFile file(bytes);
  int n_errors = 0, n_opened = 0;
  for (size_t offset = 0; offset < std::min<size_t>(bytes.size(), 12000); ++offset) {
    const char original = bytes[offset];
    for (const char value : {char(original ^ 1), char(original ^ 0x80), char(original ^ 0x10), char(0xff), char(0)}) {
      if (value == original) continue;
      file.SetByte(offset, value);
      auto opened = GgufFile::Open(file.path());
      if (opened.ok()) {
        Touch(**opened);
        ++n_opened;
      } else {
        EXPECT_FALSE(opened.status().message().empty());
        ++n_errors;
      }
    }
    file.SetByte(offset, original);
  }
  EXPECT_GT(n_errors, 5000);  // lengths, counts, types
  EXPECT_GT(n_opened, 1000);  // letters of names and texts
}

}  // namespace
}  // namespace loopserve
