/* What the compiler would have generated for a model of three calls:
 *     y = x * weights;    counts = behave(mode) */
#ifndef FAKE_FEATURES
#define FAKE_FEATURES ""
#endif
#ifndef FAKE_ARENA
#define FAKE_ARENA 128
#endif
#ifndef FAKE_ABI
#define FAKE_ABI NNCC_ABI_VERSION
#endif
#ifndef FAKE_X_TYPE
#define FAKE_X_TYPE "float32"
#endif
#define NNCC_TARGET "testboard"

#include "internal.h"

#ifdef RENAMED
#define fake_scale second_scale
#define fake_behave second_behave
#endif

extern int32_t fake_scale(const void*, const void*, void*);
extern int32_t fake_behave(const void*, void*);

static const int64_t shape_x[] = {4, 8}, shape_mode[] = {1}, shape_counts[] = {2};
static const nncc_tensor inputs[] = {{"x", FAKE_X_TYPE, 2, shape_x, 128, NULL}, {"mode", "int32", 1, shape_mode, 4, NULL}};
static const nncc_tensor outputs[] = {{"y", "float32", 2, shape_x, 128, NULL}, {"counts", "int64", 1, shape_counts, 16, NULL}};
static const char* const call_names[] = {"fake_scale", "fake_\"behave\"", "copy"};
static const double call_flops[] = {32, 0, 0}, call_multiplications[] = {16, 0, 0};
static const double call_bytes[] = {384, 20, 256}, call_weight_bytes[] = {128, 0, 0};
static const nncc_info model_info = {
    FAKE_ABI, 2,      2,       3,          "fake",     NNCC_TARGET, "00ff", "nncc 0.1.0", FAKE_FEATURES,
    inputs,   outputs, call_names, call_flops, call_multiplications, call_bytes, call_weight_bytes, FAKE_ARENA, 4096,        128,
    0,        0,      NULL,    NULL,
};

static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, const int64_t* dims, const void* const* in,
                            void* const* out, double* seconds) {
  (void)dims;
  NNCC_CALL(0, fake_scale(in[0], weights + 0, arena + 0));
  NNCC_CALL(1, fake_behave(in[1], out[1]));
  NNCC_COPY(2, out[0], arena + 0, 128);
  return 0;
}

#include "runtime.c"
