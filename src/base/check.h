// LS_CHECK: for bugs in this library only, never for what a user, file or client can cause (that is a Status).
#pragma once

#include <cstdio>
#include <cstdlib>

#define LS_CHECK(condition)                                                                            \
  do {                                                                                                 \
    if (!(condition)) {                                                                                \
      std::fprintf(stderr, "loopserve: internal error: %s (%s:%d)\n", #condition, __FILE__, __LINE__); \
      std::abort();                                                                                    \
    }                                                                                                  \
  } while (false)
