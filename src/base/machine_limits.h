// What of this machine the process may use: the CPUs that it may run on, and what its control groups (a container's, a
// service's) leave it of their time and of the memory. Threads beyond that share of the CPUs would wait for each other,
// and a process that takes more memory than its group has is killed. Thread rule: thread-safe.
#pragma once

#include <cstddef>
#include <filesystem>

namespace loopserve {

/// Physical cores among the CPUs that the process may run on, hardware threads where Linux does not say which share a
/// core; no more than the whole CPUs that its control groups have quota for. At least 1.
int UsableCores();

/// Bytes: the machine's memory, or the least limit of the process's control groups. 0: not known.
size_t UsableMemoryBytes();

/// For tests: the same from copies of the files under /proc and /sys/fs/cgroup (control groups of version 1 and 2).
int UsableCores(const std::filesystem::path& root);
size_t UsableMemoryBytes(const std::filesystem::path& root);

}  // namespace loopserve
