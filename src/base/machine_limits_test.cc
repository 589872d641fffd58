#include "src/base/machine_limits.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <thread>

#include "src/base/temp_dir.h"

namespace loopserve {
namespace {

/// A machine of files: two packages of two cores with two hardware threads each, 8 GiB.
class MachineLimitsTest : public testing::Test {
 protected:
  MachineLimitsTest() {
    std::string info;
    for (int cpu = 0; cpu < 8; ++cpu) {
      info += "processor\t: " + std::to_string(cpu) +
              "\nmodel name\t: A: B\nphysical id\t: " + std::to_string(cpu / 2 % 2) +
              "\ncore id\t\t: " + std::to_string(cpu % 2) + "\n\n";
    }
    Write("proc/cpuinfo", info);
    Write("proc/self/status", "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n");
    Write("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:          1 kB\n");
  }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  int Cores() const { return UsableCores(root_.path()); }
  size_t MiB() const { return UsableMemoryBytes(root_.path()) >> 20; }

 private:
  TempDir root_;
};

TEST_F(MachineLimitsTest, CountsCoresNotTheirThreads) {
  EXPECT_EQ(Cores(), 4);
  EXPECT_EQ(MiB(), 8192u);
}

TEST_F(MachineLimitsTest, CountsOnlyCpusItMayRunOn) {
  Write("proc/self/status", "Cpus_allowed_list:\t0,4\n");  // two threads of one core
  EXPECT_EQ(Cores(), 1);
  Write("proc/self/status", "Cpus_allowed_list:\t1-2,7\n");
  EXPECT_EQ(Cores(), 3);
}

TEST_F(MachineLimitsTest, CountsThreadsWhereCoresAreNotNamed) {
  Write("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\n");
  Write("proc/self/status", "Cpus_allowed_list:\t0-5\n");
  EXPECT_EQ(Cores(), 6);
}

TEST_F(MachineLimitsTest, KeepsToTheLeastLimitOfVersion2) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  Write("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
  Write("sys/fs/cgroup/a/b/memory.max", "1073741824\n");
  Write("sys/fs/cgroup/a/memory.max", "2147483648\n");
  EXPECT_EQ(Cores(), 2);  // two and a half CPUs
  EXPECT_EQ(MiB(), 1024u);
  Write("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_EQ(Cores(), 1);
  EXPECT_EQ(MiB(), 2048u);
}

TEST_F(MachineLimitsTest, FindsAContainersLimitsWhereThePathIsTheMachines) {
  Write("proc/self/cgroup", "0::/system.slice/container.scope\n");
  Write("sys/fs/cgroup/cpu.max", "300000 100000\n");
  Write("sys/fs/cgroup/memory.max", "536870912\n");
  EXPECT_EQ(Cores(), 3);
  EXPECT_EQ(MiB(), 512u);
}

TEST_F(MachineLimitsTest, KeepsToTheLeastLimitOfVersion1) {
  Write("proc/self/cgroup", "5:memory:/docker/x\n4:cpuset:/\n3:cpu,cpuacct:/docker/x\n0::/\n");
  Write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "100000\n");
  Write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "50000\n");
  Write("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1073741824\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(Cores(), 2);
  EXPECT_EQ(MiB(), 1024u);
  Write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(Cores(), 4);
}

TEST_F(MachineLimitsTest, NonsenseCountsAsNothing) {
  Write("proc/self/cgroup", "x\n0::/../..\n1:2\n");
  Write("sys/fs/cgroup/cpu.max", "many few\n");
  Write("sys/fs/cgroup/memory.max", "");
  Write("proc/self/status", "Cpus_allowed_list:\t3-1,x,,\n");
  Write("proc/meminfo", "MemTotal: much\n");
  EXPECT_EQ(Cores(), 4);
  EXPECT_EQ(MiB(), 0u);
}

TEST(MachineLimits, OfThisMachine) {
  EXPECT_GE(UsableCores(), 1);
  EXPECT_LE(UsableCores(), static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  EXPECT_GT(UsableMemoryBytes(), size_t{64} << 20);
}

}  // namespace
}  // namespace loopserve
