#include "src/base/machine_limits.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace loopserve {
namespace {

namespace fs = std::filesystem;

/// The number that `text` begins with, blanks before it left out.
std::optional<int64_t> NumberIn(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

std::string FirstLine(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// What stands behind "name:" in a file of such lines.
std::optional<std::string> ValueOf(const fs::path& file, std::string_view name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(name)) continue;
    if (line.find_last_not_of(" \t", colon - 1) + 1 != name.size()) continue;
    return line.substr(colon + 1);
  }
  return std::nullopt;
}

/// CPUs of a list as "0-3,8".
std::set<int64_t> CpusOf(std::string_view list) {
  std::set<int64_t> cpus;
  while (!list.empty()) {
    const std::string_view range = list.substr(0, list.find(','));
    list.remove_prefix(std::min(range.size() + 1, list.size()));
    const auto first = NumberIn(range);
    constexpr int64_t kMostCpus = 65536;
    if (!first || *first < 0 || *first >= kMostCpus) continue;
    const size_t dash = range.find('-');
    const int64_t last = dash == std::string_view::npos ? *first : NumberIn(range.substr(dash + 1)).value_or(*first);
    for (int64_t cpu = *first; cpu <= std::min(last, kMostCpus); ++cpu) cpus.insert(cpu);
  }
  return cpus;
}

/// Cores, as (package, core), of the CPUs that may be used; empty where Linux does not name cores.
std::set<std::pair<int64_t, int64_t>> CoresOf(const fs::path& root, const std::set<int64_t>& cpus) {
  std::ifstream info(root / "proc/cpuinfo");
  std::set<std::pair<int64_t, int64_t>> cores;
  int64_t cpu = 0, package = 0;
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const int64_t value = NumberIn(std::string_view(line).substr(colon + 1)).value_or(0);
    if (line.starts_with("processor")) cpu = value;
    if (line.starts_with("physical id")) package = value;
    if (line.starts_with("core id") && (cpus.empty() || cpus.contains(cpu))) cores.emplace(package, value);
  }
  return cores;
}

/// The folders of the process's control groups, its own and those around it, that limit what `controller` gives. In a
/// container the path may be that of the machine, which is not mounted: what does not exist is passed over by readers.
std::vector<fs::path> GroupFolders(const fs::path& root, std::string_view controller) {
  std::vector<fs::path> folders;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // number:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_unified = controllers == ",,";  // version 2
    if (!is_unified && controllers.find("," + std::string(controller) + ",") == std::string::npos) continue;
    const fs::path mount = root / "sys/fs/cgroup" / (is_unified ? "" : controller);
    fs::path folder = fs::path(line.substr(second + 1)).relative_path().lexically_normal();
    for (; !folder.empty() && folder != "." && *folder.begin() != ".."; folder = folder.parent_path()) {
      folders.push_back(mount / folder);
    }
    folders.push_back(mount);
  }
  return folders;
}

/// Whole CPUs, at least 1, that a group's quota is worth; nothing without a quota.
std::optional<int64_t> CpusOfQuota(const fs::path& folder) {
  const std::string both = FirstLine(folder / "cpu.max");  // "quota period"; "max" is no number
  auto quota = NumberIn(both), period = NumberIn(std::string_view(both).substr(std::min(both.find(' '), both.size())));
  if (both.empty()) {
    quota = NumberIn(FirstLine(folder / "cpu.cfs_quota_us"));  // -1: none
    period = NumberIn(FirstLine(folder / "cpu.cfs_period_us"));
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return std::max<int64_t>(1, *quota / *period);
}

std::optional<int64_t> MemoryLimit(const fs::path& folder) {
  const auto limit = NumberIn(FirstLine(folder / "memory.max"));
  return limit ? limit : NumberIn(FirstLine(folder / "memory.limit_in_bytes"));
}

}  // namespace

int UsableCores(const fs::path& root) {
  const std::set<int64_t> cpus = CpusOf(ValueOf(root / "proc/self/status", "Cpus_allowed_list").value_or(""));
  const std::set<std::pair<int64_t, int64_t>> cores = CoresOf(root, cpus);
  auto n = static_cast<int64_t>(cores.empty() ? cpus.size() : cores.size());
  if (n == 0) n = std::max(1u, std::thread::hardware_concurrency());
  for (const fs::path& folder : GroupFolders(root, "cpu")) n = std::min(n, CpusOfQuota(folder).value_or(n));
  return static_cast<int>(n);
}

size_t UsableMemoryBytes(const fs::path& root) {
  const int64_t kib = NumberIn(ValueOf(root / "proc/meminfo", "MemTotal").value_or("")).value_or(0);
  int64_t bytes = std::clamp<int64_t>(kib, 0, INT64_MAX / 1024) * 1024;
  for (const fs::path& folder : GroupFolders(root, "memory")) {
    const auto limit = MemoryLimit(folder);
    if (limit && *limit > 0 && (bytes == 0 || *limit < bytes)) bytes = *limit;
  }
  return static_cast<size_t>(bytes);
}

int UsableCores() { return UsableCores("/"); }
size_t UsableMemoryBytes() { return UsableMemoryBytes("/"); }

}  // namespace loopserve
