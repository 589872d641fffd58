// Ctrl-C as a flag that long calls look at. Thread rule: the flag is atomic and may be read from any thread.
#pragma once

#include <atomic>

namespace loopserve {

/// SIGINT and SIGTERM set the flag; a third SIGINT that nobody heeded ends the process with exit code 130. SIGPIPE and
/// SIGXFSZ are ignored: writes fail with an error instead.
void InstallSignalHandlers();

/// True after an interrupt, until ClearInterrupt. Pass it as a cancel flag.
const std::atomic<bool>& InterruptFlag();
/// True after SIGTERM, which asks for the end of the program and not of an answer. Never cleared.
bool TerminationRequested();
void ClearInterrupt();

}  // namespace loopserve
