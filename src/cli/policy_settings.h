// A policy spelt out: its canonical specification leaves out what is at its default, and defaults change from version
// to version. Thread rule: pure function.
#pragma once

#include <string>

#include "loopserve/policy.h"

namespace loopserve {

/// "prefill.method=2 prefill.alpha=0.95 ...": every setting that is not zero or off. Two policies compute the same if
/// and only if these are equal.
std::string SettingsOf(const Policy& policy);

}  // namespace loopserve
