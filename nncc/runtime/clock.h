/* clock.h: the clock of the runtime and of the bench program. */
#ifndef NNCC_CLOCK_H
#define NNCC_CLOCK_H

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <time.h>
#endif

/* Seconds of a clock that never goes back; only differences mean anything. */
static inline double nncc_seconds(void) {
#if defined(_WIN32)
  LARGE_INTEGER now, frequency;
  QueryPerformanceCounter(&now);
  QueryPerformanceFrequency(&frequency);
  return (double)now.QuadPart / (double)frequency.QuadPart;
#else
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#endif
}

#endif
