// What the library has to say while it works. It is silent unless a program installs a sink (src/cli does).
// Thread rule: thread-safe; sinks must be too.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace loopserve {

enum class LogLevel { kTrace, kDebug, kInfo, kWarning, kError };

/// Called with each message at or above the level that was given with it; may be called from any thread.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Replaces the sink; an empty one silences the library. Messages in flight may still reach the old one.
void SetLogSink(LogSink sink, LogLevel minimum = LogLevel::kInfo);

/// Whether a message of this level goes anywhere: guards messages that are dear to build.
bool LogEnabled(LogLevel level);
void Log(LogLevel level, std::string_view message);

}  // namespace loopserve
