#include "src/fetch/zip_members.h"

#include <sys/stat.h>
#include <zip.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "src/base/atomic_file.h"

namespace loopserve {
namespace {

constexpr size_t kChunkBytes = size_t{256} << 10;

struct CloseArchive {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct CloseMember {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

Status Corrupt(const std::string& why) { return Status(StatusCode::kCorruptData, why); }

class Extractor {
 public:
  Extractor(const ZipLimits& limits, const std::atomic<bool>* cancel, const std::function<void(int64_t)>& on_bytes)
      : limits_(limits), cancel_(cancel), on_bytes_(on_bytes) {}

  Status Open(const std::filesystem::path& path) {
    int code = 0;
    archive_.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (archive_) return List();
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string why = zip_error_strerror(&error);
    zip_error_fini(&error);
    const bool damaged = code == ZIP_ER_NOZIP || code == ZIP_ER_INCONS || code == ZIP_ER_EOF;
    return Status(damaged ? StatusCode::kCorruptData : StatusCode::kIoError, "cannot open the archive: " + why);
  }

  Status Extract(const ZipMember& member) {
    const auto found = indices_.find(member.name);
    if (found == indices_.end()) return Corrupt("the archive has no " + member.name);
    if (found->second.size() > 1) return Corrupt("the archive has " + member.name + " more than once");
    const zip_uint64_t index = found->second.front();
    zip_stat_t stat;
    if (zip_stat_index(archive_.get(), index, 0, &stat) != 0) return Error(member, zip_get_error(archive_.get()));
    LS_RETURN_IF_ERROR(CheckKind(member, index, stat));
    const std::unique_ptr<zip_file_t, CloseMember> file(zip_fopen_index(archive_.get(), index, 0));
    if (!file) return Error(member, zip_get_error(archive_.get()));
    return Copy(member, static_cast<int64_t>(stat.size), file.get());
  }

 private:
  /// Where each name stands.
  Status List() {
    const int64_t n = zip_get_num_entries(archive_.get(), 0);
    if (n > limits_.members) return Corrupt("the archive lists " + std::to_string(n) + " members");
    for (int64_t i = 0; i < n; ++i) {
      const char* name = zip_get_name(archive_.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
      if (name != nullptr) indices_[name].push_back(static_cast<zip_uint64_t>(i));
    }
    return Status::Ok();
  }

  Status CheckKind(const ZipMember& member, zip_uint64_t index, const zip_stat_t& stat) {
    zip_uint8_t system = 0;
    zip_uint32_t attributes = 0;
    zip_file_get_external_attributes(archive_.get(), index, 0, &system, &attributes);
    // Archives of other systems, and of programs that do not say, have no file type.
    const mode_t type = system == ZIP_OPSYS_UNIX ? (attributes >> 16) & S_IFMT : 0;
    if (type != 0 && type != S_IFREG) return Corrupt(member.name + " is no regular file");
    if ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && stat.encryption_method != ZIP_EM_NONE) {
      return Corrupt(member.name + " is encrypted");
    }
    if ((stat.valid & ZIP_STAT_SIZE) == 0) return Corrupt(member.name + " does not say how long it is");
    const auto left = static_cast<uint64_t>(std::min(limits_.member_bytes, limits_.total_bytes - written_));
    if (stat.size > left) {
      return Corrupt(member.name + " would be " + std::to_string(stat.size) + " bytes, more than is unpacked");
    }
    return Status::Ok();
  }

  Status Copy(const ZipMember& member, int64_t size, zip_file_t* file) {
    LS_ASSIGN_OR_RETURN(AtomicFile target, AtomicFile::Create(member.target));
    std::vector<char> chunk(kChunkBytes);
    int64_t copied = 0;
    while (true) {
      if (cancel_ != nullptr && cancel_->load()) return Status(StatusCode::kCancelled, "cancelled");
      const zip_int64_t n = zip_fread(file, chunk.data(), chunk.size());
      if (n < 0) return Error(member, zip_file_get_error(file));
      if (n == 0) break;
      copied += n;
      // What the archive says of the length was held against the limits; that it is true is seen only now.
      if (copied > size) break;
      LS_RETURN_IF_ERROR(target.Write({chunk.data(), static_cast<size_t>(n)}));
      written_ += n;
      if (on_bytes_) on_bytes_(written_);
    }
    if (copied != size) return Corrupt(member.name + " is not as long as it says");
    return target.Commit();
  }

  static Status Error(const ZipMember& member, zip_error_t* error) {
    return Corrupt("cannot unpack " + member.name + ": " + zip_error_strerror(error));
  }

  const ZipLimits& limits_;
  const std::atomic<bool>* cancel_;
  const std::function<void(int64_t)>& on_bytes_;
  std::unique_ptr<zip_t, CloseArchive> archive_;
  std::map<std::string, std::vector<zip_uint64_t>> indices_;
  int64_t written_ = 0;
};

}  // namespace

Status ExtractZipMembers(const std::filesystem::path& archive, std::span<const ZipMember> members,
                         const ZipLimits& limits, const std::atomic<bool>* cancel,
                         const std::function<void(int64_t)>& on_bytes) {
  Extractor extractor(limits, cancel, on_bytes);
  LS_RETURN_IF_ERROR(extractor.Open(archive));
  for (const ZipMember& member : members) LS_RETURN_IF_ERROR(extractor.Extract(member));
  return Status::Ok();
}

}  // namespace loopserve
