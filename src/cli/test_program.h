// The program run within a test, from its arguments to its streams.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "src/cli/app.h"

namespace loopserve {

struct ProgramOutcome {
  int exit_code;
  std::string out, err;
};

/// arguments: without the program's name.
inline ProgramOutcome RunProgram(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"loopserve"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int exit_code = RunApp(static_cast<int>(argv.size()), argv.data());
  std::string out = testing::internal::GetCapturedStdout();
  return {exit_code, std::move(out), testing::internal::GetCapturedStderr()};
}

}  // namespace loopserve
