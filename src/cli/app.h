// The program behind main(): parses, runs one subcommand, turns its Status into a message and an exit code.
// Thread rule: call once, from the main thread; installs signal handlers.
#pragma once

namespace loopserve {

/// 0: done. 1: an error while running. 2: wrong usage. 130: interrupted. Errors are one line on stderr.
int RunApp(int argc, const char* const* argv);

}  // namespace loopserve
