/* internal.h: what the generated model.c and the runtime share. It comes first in model.c; runtime.c comes last.
 *
 * model.c defines, between the two, `static const nncc_info model_info` and
 *
 *   static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, int64_t* dims, const void* const* in,
 *                               void* const* out, double* seconds)
 *
 * whose body is one NNCC_CALL or NNCC_COPY for each call of the program, numbered from 0, in loops and branches where the
 * model has some, and `return 0`. With open dimensions, whose sizes are `dims`, it also defines
 *
 *   static int32_t model_variant(const int64_t* dims)      the number of the variant for these sizes, -1 where none is
 *   static void model_shape(int is_output, int32_t number, const int64_t* dims, int64_t* shape)
 *
 * of which the second sets those sizes in a tensor's largest shape that are not fixed.
 *
 * Macros that the build may define beforehand:
 *
 *   NNCC_WEIGHTS          symbol of the weights: hidden, in .rodata, 64-byte aligned   (default nncc_weights)
 *   NNCC_TARGET           name of the target as a string, which a loader on a foreign machine finds in the file
 *   NNCC_STATIC_PREFIX    public functions are nncc_<prefix>_create ..., so that one program can link many models
 *   NNCC_PACKED           how many constants expand.c expands, those of `packed_constants`   (by default none)
 *   NNCC_DIMS             how many open dimensions there are                            (by default none)
 *   NNCC_ACCELERATOR      accelerator.c drives an accelerator: model.c defines `model_machine` and `model_programs`
 *   NNCC_NO_THREADS       no thread pool and no pthreads: every launch runs its tasks in turn
 *   NNCC_SPIN_SECONDS     how long an idle thread spins before it sleeps                (default 100e-6)
 *   NNCC_SYM_...          names under which kernels find the runtime; see the table below */
#ifndef NNCC_INTERNAL_H
#define NNCC_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity; before any system header */
#endif

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "clock.h"
#include "nncc.h"

#define NNCC_JOIN_(a, b, c) a##b##c
#define NNCC_JOIN(a, b, c) NNCC_JOIN_(a, b, c)
#ifdef NNCC_STATIC_PREFIX
#define NNCC_FN(name) NNCC_JOIN(NNCC_JOIN(nncc_, NNCC_STATIC_PREFIX, _), name, )
#else
#define NNCC_FN(name) NNCC_JOIN(nncc_, name, )
#endif

#if defined(_WIN32) || !defined(__GNUC__)
#define NNCC_HIDDEN
#else
#define NNCC_HIDDEN __attribute__((visibility("hidden")))
#endif

/* The functions that kernels call. A static archive renames each in the kernel object and defines the macro. */
#ifndef NNCC_SYM_PARALLEL_LAUNCH
#define NNCC_SYM_PARALLEL_LAUNCH TVMBackendParallelLaunch
#endif
#ifndef NNCC_SYM_PARALLEL_BARRIER
#define NNCC_SYM_PARALLEL_BARRIER TVMBackendParallelBarrier
#endif
#ifndef NNCC_SYM_ALLOC_WORKSPACE
#define NNCC_SYM_ALLOC_WORKSPACE TVMBackendAllocWorkspace
#endif
#ifndef NNCC_SYM_FREE_WORKSPACE
#define NNCC_SYM_FREE_WORKSPACE TVMBackendFreeWorkspace
#endif
#ifndef NNCC_SYM_RAISE
#define NNCC_SYM_RAISE TVMFFIErrorSetRaisedFromCStr
#endif
#ifndef NNCC_SYM_RAISE_PARTS
#define NNCC_SYM_RAISE_PARTS TVMFFIErrorSetRaisedFromCStrParts
#endif
#ifndef NNCC_SYM_REGISTER_SYMBOL
#define NNCC_SYM_REGISTER_SYMBOL TVMFFIEnvModRegisterSystemLibSymbol
#endif

#ifndef NNCC_WEIGHTS
#define NNCC_WEIGHTS nncc_weights
#endif
extern NNCC_HIDDEN const uint8_t NNCC_WEIGHTS[];

#ifdef NNCC_ACCELERATOR
#ifndef NNCC_PROGRAMS
#define NNCC_PROGRAMS nncc_programs
#endif
extern NNCC_HIDDEN const uint8_t NNCC_PROGRAMS[]; /* all programs, as nncc/vta/program.py writes them */

/* The machine that the programs are for. Behind the weights, the constants hold the programs. */
typedef struct {
  const char* isa_hash;
  const char* configuration;
  const char* json; /* all that is said of it, for nncc_device_wanted */
  uint64_t programs_at;
  uint64_t programs_bytes;
} nncc_machine;

/* Consecutive calls that the accelerator computes at once: places in NNCC_PROGRAMS, and in the list of calls. */
typedef struct {
  uint64_t instructions_at;
  uint64_t uops_at;
  uint32_t num_instructions;
  uint32_t first_call;
  uint32_t num_layers;
  const uint32_t* ends; /* for each layer, the number of the first instruction that is not its own */
} nncc_program;

static int32_t rt_submit(uint32_t number, double* seconds);

/* Program number `i`, in place of its calls. */
#define NNCC_SUBMIT(i)                                  \
  do {                                                  \
    const int32_t nncc_failed = rt_submit((i), seconds); \
    if (__builtin_expect(nncc_failed, 0)) {             \
      return nncc_failed;                               \
    }                                                   \
  } while (0)
#endif

/* Call number `i`: a kernel, which returns 0 or fails. model_invoke then returns i + 1 at once. */
#define NNCC_CALL(i, ...)                                                         \
  do {                                                                            \
    const double nncc_start = __builtin_expect(!seconds, 1) ? 0 : nncc_seconds(); \
    const int32_t nncc_failed = (__VA_ARGS__);                                    \
    if (__builtin_expect(seconds != NULL, 0)) {                                   \
      seconds[i] += nncc_seconds() - nncc_start;                                  \
    }                                                                             \
    if (__builtin_expect(nncc_failed, 0)) {                                       \
      return (int32_t)(i) + 1;                                                    \
    }                                                                             \
  } while (0)

/* How often a loop runs that is told by an int64 in memory. */
static inline int64_t nncc_int64(const void* at) {
  int64_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

/* Call number `i`: a copy of `nbytes` bytes between places that do not overlap. */
#define NNCC_COPY(i, to, from, nbytes) NNCC_CALL(i, (memcpy((to), (from), (nbytes)), 0))

#endif
