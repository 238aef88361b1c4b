/* A candidate library of two kernels: y = 2 x, and one that does what BEHAVIOUR says. */
#define NNCC_TARGET "testboard"
#ifndef FEATURES
#define FEATURES ""
#endif

#include "internal.h"

static const int64_t shape_x[] = {4, 8}, shape_n[] = {2};
static const nncc_tensor inputs[] = {{"x", "float32", 2, shape_x, 128, NULL}, {"n", "int64", 1, shape_n, 16, NULL}};
static const nncc_tensor outputs[] = {{"y", "float32", 2, shape_x, 128, NULL}, {"m", "int64", 1, shape_n, 16, NULL}};
static const char* const call_names[] = {"twice", "behave"};
static const double call_flops[] = {32, 0}, call_multiplications[] = {16, 0}, call_bytes[] = {256, 32};
static const double call_weight_bytes[] = {0, 0};
static const nncc_info model_info = {
    NNCC_ABI_VERSION, 2,       2,          2,          "candidate", NNCC_TARGET, "00ff", "nncc test", FEATURES,
    inputs,           outputs, call_names, call_flops, call_multiplications, call_bytes, call_weight_bytes,  64,          64,     64,
    0,                0,       NULL,       NULL,
};
const uint8_t nncc_weights[64] = {0};

extern void TVMFFIErrorSetRaisedFromCStr(const char*, const char*);

static int32_t twice(const float* x, float* y) {
  for (int i = 0; i < 32; ++i) {
    y[i] = 2 * x[i];
  }
  return 0;
}

static int32_t behave(const int64_t* n, int64_t* m) {
  m[0] = n[0] + 1;
  m[1] = n[1] + 2;
#if BEHAVIOUR == 1 /* crash */
  *(volatile int*)(uintptr_t)(n[0] & 8) = 1;
#elif BEHAVIOUR == 2 /* hang */
  for (volatile int forever = 1; forever;) {
  }
#elif BEHAVIOUR == 3 /* fail */
  TVMFFIErrorSetRaisedFromCStr("ValueError", "this tile has no elements");
  return -1;
#elif BEHAVIOUR == 4 /* take 50 ms */
  nanosleep(&(struct timespec){0, 50000000}, NULL);
#endif
  return 0;
}

static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, const int64_t* dims, const void* const* in,
                            void* const* out, double* seconds) {
  (void)dims;
  (void)arena, (void)weights;
  NNCC_CALL(0, twice(in[0], out[0]));
  NNCC_CALL(1, behave(in[1], out[1]));
  return 0;
}

#include "runtime.c"
#include "rpc_shim.c"
