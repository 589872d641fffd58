#include "src/fetch/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <fstream>

#include "src/base/atomic_file.h"
#include "src/base/errno_status.h"
#include "src/base/paths.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;

constexpr char kMagicLine[] = "loopserve-part 1";

std::string FormatMeta(const PartMeta& meta) {
  return std::string(kMagicLine) + "\nurl " + meta.url + "\nvalidator " + meta.validator + "\ntotal " +
         (meta.total_bytes ? std::to_string(*meta.total_bytes) : "-") + "\n";
}

bool TakeField(std::istream& in, const std::string& key, std::string* value) {
  std::string line;
  if (!std::getline(in, line) || !line.starts_with(key + " ")) return false;
  *value = line.substr(key.size() + 1);
  return true;
}

std::optional<PartMeta> ReadMeta(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  PartMeta meta;
  std::string line, total;
  if (!std::getline(in, line) || line != kMagicLine) return std::nullopt;
  if (!TakeField(in, "url", &meta.url) || !TakeField(in, "validator", &meta.validator) ||
      !TakeField(in, "total", &total)) {
    return std::nullopt;
  }
  if (total == "-") return meta;
  int64_t bytes = 0;
  const auto [end, error] = std::from_chars(total.data(), total.data() + total.size(), bytes);
  if (error != std::errc() || end != total.data() + total.size() || bytes < 0) return std::nullopt;
  meta.total_bytes = bytes;
  return meta;
}

}  // namespace

Result<PartFile> PartFile::Open(const fs::path& target, const std::string& url) {
  LS_RETURN_IF_ERROR(CreateDirs(target.parent_path()));
  PartFile part;
  part.path_ = target.string() + ".part";
  part.meta_path_ = target.string() + ".part.meta";
  part.fd_ = UniqueFd(open(part.path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!part.fd_.valid()) return ErrnoStatus("cannot write " + part.path_.string(), errno);
  struct stat info {};
  if (fstat(part.fd_.get(), &info) != 0) return ErrnoStatus("cannot read " + part.path_.string(), errno);
  const std::optional<PartMeta> meta = ReadMeta(part.meta_path_);
  const bool usable = meta && meta->url == url && !meta->validator.empty() &&
                      (!meta->total_bytes || info.st_size <= *meta->total_bytes);
  if (usable) {
    part.meta_ = *meta;
    part.size_bytes_ = info.st_size;
  } else {
    part.meta_.url = url;
    if (ftruncate(part.fd_.get(), 0) != 0) return ErrnoStatus("cannot write " + part.path_.string(), errno);
  }
  return part;
}

Status PartFile::Restart(const PartMeta& meta) {
  // Bytes first, then their description: a crash in between leaves an empty part, never bytes described wrongly.
  if (ftruncate(fd_.get(), 0) != 0) return ErrnoStatus("cannot write " + path_.string(), errno);
  size_bytes_ = 0;
  meta_ = meta;
  return WriteFileAtomically(meta_path_, FormatMeta(meta));
}

Status PartFile::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd_.get(), bytes.data(), bytes.size(), size_bytes_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot write " + path_.string(), errno);
    size_bytes_ += n;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return Status::Ok();
}

Result<std::string> PartFile::Head(size_t count) const {
  std::string head(count, '\0');
  const ssize_t n = pread(fd_.get(), head.data(), count, 0);
  if (n < 0) return ErrnoStatus("cannot read " + path_.string(), errno);
  head.resize(static_cast<size_t>(n));
  return head;
}

Status PartFile::MoveTo(const fs::path& target) {
  if (fsync(fd_.get()) != 0) return ErrnoStatus("cannot write " + path_.string(), errno);
  LS_RETURN_IF_ERROR(RenameDurably(path_, target));
  unlink(meta_path_.c_str());
  fd_.Reset();
  return Status::Ok();
}

void PartFile::Discard() {
  unlink(path_.c_str());
  unlink(meta_path_.c_str());
  fd_.Reset();
  size_bytes_ = 0;
}

}  // namespace loopserve
