/* What the sanitizers watch: contexts that come and go in several threads, runs of all kinds, failures. */
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
      EXPECT(!memcmp(copy, x, sizeof x));
      for (int row = 0; row < 4; ++row) {
        float sum = 0;
        for (int k = 0; k < 64; ++k) sum += x[64 * row + k];
        EXPECT(total[row] == sum);
      }
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
  nncc_destroy(NULL);
  puts("fine");
  return 0;
}
