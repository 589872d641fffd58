#include "bench/logits_spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <string_view>

#include "src/base/atomic_file.h"
#include "src/base/check.h"
#include "src/base/errno_status.h"

namespace loopserve::bench {

Result<LogitsSpool> LogitsSpool::Create(const std::string& dir, int n_vocab) {
  std::string path = (std::filesystem::path(dir) / ".logits.XXXXXX").string();
  UniqueFd fd(mkostemp(path.data(), O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus("cannot write into " + dir, errno);
  unlink(path.c_str());
  return LogitsSpool(std::move(fd), dir, n_vocab);
}

Status LogitsSpool::Append(std::span<const float> row) {
  LS_CHECK(row.size() == row_.size());
  const std::string_view bytes(reinterpret_cast<const char*>(row.data()), row.size_bytes());
  const Status written = WriteAll(fd_.get(), bytes, "logits into " + dir_);
  if (!written.ok()) return Status(StatusCode::kIoError, written.message());
  ++n_rows_;
  return Status::Ok();
}

Result<std::span<const float>> LogitsSpool::Row(int64_t i) {
  LS_CHECK(i >= 0 && i < n_rows_);
  const size_t row_bytes = row_.size() * sizeof(float);
  auto* bytes = reinterpret_cast<char*>(row_.data());
  for (size_t done = 0; done < row_bytes;) {
    const off_t offset = static_cast<off_t>(i) * static_cast<off_t>(row_bytes) + static_cast<off_t>(done);
    const ssize_t n = pread(fd_.get(), bytes + done, row_bytes - done, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoStatus("cannot read logits back from " + dir_, n < 0 ? errno : EIO);
    done += static_cast<size_t>(n);
  }
  return std::span<const float>(row_);
}

}  // namespace loopserve::bench
