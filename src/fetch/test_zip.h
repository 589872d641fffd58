// Archives for tests, good ones and hostile ones.
#pragma once

#include <sys/stat.h>
#include <zip.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "src/base/check.h"

namespace loopserve {

/// Members in order; the same name may come twice.
using TestMembers = std::vector<std::pair<std::string, std::string>>;

/// Writes an archive. link: a member that is marked as a symbolic link; locked: one that is encrypted.
inline void WriteTestZip(const std::filesystem::path& path, const TestMembers& members, const std::string& link = "",
                         const std::string& locked = "") {
  zip_t* archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
  LS_CHECK(archive != nullptr);
  for (size_t i = 0; i < members.size(); ++i) {
    const auto& [name, text] = members[i];
    zip_source_t* source = zip_source_buffer(archive, text.data(), text.size(), 0);
    // libzip does not add a name twice: it gets another one of the same length, and its own again in the bytes.
    bool twice = false;
    for (size_t k = 0; k < i; ++k) twice |= members[k].first == name;
    const std::string written = twice ? std::string(name.size(), '~') : name;
    const zip_int64_t index = zip_file_add(archive, written.c_str(), source, ZIP_FL_ENC_UTF_8);
    LS_CHECK(index >= 0);
    const auto at = static_cast<zip_uint64_t>(index);
    if (name == link) {
      zip_file_set_external_attributes(archive, at, 0, ZIP_OPSYS_UNIX, zip_uint32_t{S_IFLNK | 0777} << 16);
    }
    if (name == locked) LS_CHECK(zip_file_set_encryption(archive, at, ZIP_EM_AES_256, "secret") == 0);
  }
  LS_CHECK(zip_close(archive) == 0);
}

inline std::string ReadTestFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteTestFile(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// All of `from` becomes `to`, of the same length.
inline void ReplaceInFile(const std::filesystem::path& path, const std::string& from, const std::string& to) {
  LS_CHECK(from.size() == to.size());
  std::string bytes = ReadTestFile(path);
  for (size_t at = bytes.find(from); at != std::string::npos; at = bytes.find(from, at + to.size())) {
    bytes.replace(at, from.size(), to);
  }
  WriteTestFile(path, bytes);
}

}  // namespace loopserve
