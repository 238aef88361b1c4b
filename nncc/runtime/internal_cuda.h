/* internal_cuda.h: what the generated model.c of a library for CUDA and its runtime share. It comes first in model.c;
 * cuda.c comes last.
 *
 * model.c defines, between the two, `static const nncc_info model_info`,
 *
 *   enum { MODEL_KERNELS, MODEL_ARCHITECTURE, MODEL_EXACT }
 *                                   number of kernels; of the cubin, ten times its compute capability, and whether that
 *                                   runs on no other (as sm_90a does)
 *   static const rt_kernel model_kernels[]
 *   static int model_invoke(rt_pass* pass, rt_address arena, rt_address weights, const rt_address* in,
 *                           const rt_address* out)
 *
 * whose body is one NNCC_LAUNCH or NNCC_DEVICE_COPY for each launch or copy of the program, and `return NNCC_OK`. The
 * numbers of calls rise from 0; a call may be several launches, one after the other.
 *
 * Macros that the build may define beforehand, beside those of internal.h:
 *
 *   NNCC_CUBIN   symbol of the device code, an ELF file                                       (default nncc_cubin)
 *   NNCC_PTX     symbol of its PTX, which ends with a zero; an empty string where there is none (default nncc_ptx) */
#ifndef NNCC_INTERNAL_CUDA_H
#define NNCC_INTERNAL_CUDA_H

#include "internal.h"

#if !defined(__linux__)
#error "libraries for CUDA are for Linux"
#endif

#ifndef NNCC_CUBIN
#define NNCC_CUBIN nncc_cubin
#endif
#ifndef NNCC_PTX
#define NNCC_PTX nncc_ptx
#endif
extern NNCC_HIDDEN const uint8_t NNCC_CUBIN[];
extern NNCC_HIDDEN const uint8_t NNCC_PTX[];

/* A place in the memory of a GPU: the driver's CUdeviceptr, which has 64 bits wherever there is a driver. */
typedef unsigned long long rt_address;

typedef struct {
  const char* symbol;
  unsigned shared_bytes; /* the most dynamic shared memory that it is launched with */
} rt_kernel;

/* How one launch divides its work. */
typedef struct {
  unsigned grid[3], block[3], shared_bytes;
} rt_shape;

typedef struct rt_pass rt_pass; /* one walk through the calls of the program */

/* A program may have no launches, or no copies. */
__attribute__((unused)) static int rt_launch(rt_pass* pass, int call, int kernel, rt_shape shape, void** parameters);
__attribute__((unused)) static int rt_copy(rt_pass* pass, int call, rt_address to, rt_address from, size_t nbytes);

/* Call number `call` launches kernel number `kernel`; what follows the shape are the kernel's parameters, addresses. */
#define NNCC_LAUNCH(call, kernel, gx, gy, gz, bx, by, bz, shared, ...)                                               \
  do {                                                                                                               \
    rt_address nncc_arguments[] = {__VA_ARGS__};                                                                     \
    void* nncc_parameters[sizeof nncc_arguments / sizeof *nncc_arguments];                                           \
    for (size_t nncc_i = 0; nncc_i < sizeof nncc_arguments / sizeof *nncc_arguments; ++nncc_i) {                     \
      nncc_parameters[nncc_i] = &nncc_arguments[nncc_i];                                                             \
    }                                                                                                                \
    const rt_shape nncc_shape = {{(gx), (gy), (gz)}, {(bx), (by), (bz)}, (shared)};                                  \
    const int nncc_code = rt_launch(pass, (call), (kernel), nncc_shape, nncc_parameters);                            \
    if (__builtin_expect(nncc_code, 0)) {                                                                            \
      return nncc_code;                                                                                              \
    }                                                                                                                \
  } while (0)

/* Call number `call` copies `nbytes` bytes between places that do not overlap. */
#define NNCC_DEVICE_COPY(call, to, from, nbytes)                           \
  do {                                                                     \
    const int nncc_code = rt_copy(pass, (call), (to), (from), (nbytes));   \
    if (__builtin_expect(nncc_code, 0)) {                                  \
      return nncc_code;                                                    \
    }                                                                      \
  } while (0)

#endif
