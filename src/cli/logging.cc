#include "src/cli/logging.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "src/base/format.h"
#include "src/base/log.h"

namespace loopserve {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

LogLevel FromSpdlog(spdlog::level::level_enum level) {
  for (LogLevel candidate : {LogLevel::kTrace, LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning}) {
    if (level <= ToSpdlog(candidate)) return candidate;
  }
  return LogLevel::kError;
}

}  // namespace

void InstallLogSink(const std::string& level) {
  const spdlog::level::level_enum minimum = spdlog::level::from_str(level);
  if (minimum == spdlog::level::off) return;
  // Automatic colours: only where stderr is a terminal.
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("loopserve", std::move(sink));
  logger->set_pattern("%H:%M:%S.%e %^%l%$ %v");
  logger->set_level(minimum);
  SetLogSink(
      [logger](LogLevel message_level, std::string_view message) {
        logger->log(ToSpdlog(message_level), spdlog::string_view_t(OnOneLine(message)));
      },
      FromSpdlog(minimum));
}

}  // namespace loopserve
