/* The model of cuda_model.py under load: contexts that come and go in several threads, runs of all kinds, failures. For
 * the sanitizers, with the fake driver; and for a real one, linked with device code of a compiler (on_gpu.py). */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nncc.h"

#define EXPECT(condition)                                             \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "line %d: not so: %s: %s\n", __LINE__, #condition, nncc_last_error()); \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

typedef unsigned long long address;

static void* driver;

/* One call of the driver, of any number of words. */
#define DRIVER(name, ...)                                                       \
  do {                                                                          \
    int (*function)() = (int (*)())dlsym(driver, #name);                        \
    const int result = function ? function(__VA_ARGS__) : -1;                   \
    if (result) {                                                               \
      fprintf(stderr, "line %d: %s failed: %d\n", __LINE__, #name, result);     \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

static void check(const float* x, const float* turned, const float* total, const float* copy) {
  EXPECT(!memcmp(copy, x, 1024));
  for (int row = 0; row < 4; ++row) {
    float sum = 0;
    for (int k = 0; k < 64; ++k) {
      const float weight = 0.5f + 1.5f * (float)k / 63.0f, value = x[64 * row + k] * weight + 1;
      const float found = turned[64 * row + 63 - k];
      sum += x[64 * row + k];
      EXPECT(found - value < 1e-3f && value - found < 1e-3f);
    }
    EXPECT(total[row] == sum);
  }
}

/* Device pointers, in a stream of the caller and in a graph that it captures. */
static void on_device(int rounds) {
  nncc_context* context = NULL;
  float x[256], turned[256], total[4], copy[256];
  address places[4] = {0};
  void *primary = NULL, *stream = NULL, *graph = NULL, *executable = NULL;
  const size_t sizes[] = {1024, 1024, 16, 1024};
  EXPECT(nncc_create(&context, 0) == NNCC_OK);
  int device = 0;
  DRIVER(cuDeviceGet, &device, 0);
  DRIVER(cuDevicePrimaryCtxRetain, &primary, device);
  DRIVER(cuCtxPushCurrent_v2, primary);
  DRIVER(cuStreamCreate, &stream, 1);
  for (int i = 0; i < 4; ++i) DRIVER(cuMemAlloc_v2, &places[i], sizes[i]);
  const void* in[] = {(void*)(size_t)places[0]};
  void* out[] = {(void*)(size_t)places[1], (void*)(size_t)places[2], (void*)(size_t)places[3]};
  for (int round = 0; round < rounds; ++round) {
    for (int k = 0; k < 256; ++k) x[k] = (float)(k + round);
    DRIVER(cuMemcpyHtoD_v2, places[0], x, (size_t)1024);
    if (round == 4) {
      DRIVER(cuStreamBeginCapture_v2, stream, 1);
      EXPECT(nncc_run_on(context, in, out, stream) == NNCC_OK);
      DRIVER(cuStreamEndCapture, stream, &graph);
      DRIVER(cuGraphInstantiateWithFlags, &executable, graph, 0ull);
    }
    if (executable) {
      DRIVER(cuGraphLaunch, executable, stream);
    } else {
      EXPECT(nncc_run_on(context, in, out, stream) == NNCC_OK);
    }
    DRIVER(cuStreamSynchronize, stream);
    DRIVER(cuMemcpyDtoH_v2, turned, places[1], (size_t)1024);
    DRIVER(cuMemcpyDtoH_v2, total, places[2], (size_t)16);
    DRIVER(cuMemcpyDtoH_v2, copy, places[3], (size_t)1024);
    check(x, turned, total, copy);
    memset(copy, 0, sizeof copy);
    void* mixed[] = {turned, out[1], copy}; /* of both kinds */
    EXPECT(nncc_run(context, in, mixed) == NNCC_OK);
    check(x, turned, total, copy);
  }
  DRIVER(cuGraphExecDestroy, executable);
  DRIVER(cuGraphDestroy, graph);
  DRIVER(cuStreamDestroy_v2, stream);
  for (int i = 0; i < 4; ++i) DRIVER(cuMemFree_v2, places[i]);
  nncc_destroy(context);
  DRIVER(cuCtxPopCurrent_v2, &primary);
  DRIVER(cuDevicePrimaryCtxRelease_v2, device);
}

static void* hammer(void* argument) {
  const float seed = (float)(size_t)argument;
  for (int round = 0; round < 4; ++round) {
    nncc_context* context = NULL;
    double seconds[4] = {0};
    float x[256], turned[256], total[4], copy[256];
    const void* in[] = {x};
    void* out[] = {turned, total, copy};
    EXPECT(nncc_create(&context, 0) == NNCC_OK && context);
    for (int i = 0; i < 5; ++i) {
      for (int k = 0; k < 256; ++k) x[k] = (float)(k + i) + seed;
      memset(copy, 0, sizeof copy);
      if (i % 3 == 2) {
        EXPECT(nncc_profile(context, in, out, seconds) == NNCC_OK);
      } else {
        EXPECT(nncc_run(context, in, out) == NNCC_OK && !*nncc_last_error());
      }
      check(x, turned, total, copy);
    }
    EXPECT(nncc_run_on(context, in, out, NULL) == NNCC_ERROR_ARGUMENT);
    EXPECT(strstr(nncc_last_error(), "is memory of the processor"));
    nncc_destroy(context);
  }
  return NULL;
}

int main(void) {
  pthread_t threads[3];
  for (size_t i = 0; i < 3; ++i) EXPECT(!pthread_create(&threads[i], NULL, hammer, (void*)i));
  for (size_t i = 0; i < 3; ++i) EXPECT(!pthread_join(threads[i], NULL));
  driver = dlopen("libcuda.so.1", RTLD_NOW);
  EXPECT(driver);
  on_device(7);
  nncc_destroy(NULL);
  puts("fine");
  return 0;
}
