/* What the sanitizers watch: many launches, many contexts, threads that sleep and wake, and every error path. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nncc.h"

#define EXPECT(condition)                                                   \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);       \
      exit(1);                                                              \
    }                                                                       \
  } while (0)

static int run(nncc_context* context, int32_t mode, float* y, int64_t* counts) {
  float x[32];
  for (int i = 0; i < 32; ++i) x[i] = (float)i;
  const void* in[] = {x, &mode};
  void* out[] = {y, counts};
  return nncc_run(context, in, out);
}

static void* hammer(void* argument) {
  const int rounds = *(int*)argument;
  nncc_context* context = NULL;
  float y[32];
  int64_t counts[2];
  EXPECT(nncc_create(&context, 3) == NNCC_OK && context);
  for (int i = 0; i < rounds; ++i) {
    memset(y, 0, sizeof y);
    EXPECT(run(context, 0, y, counts) == NNCC_OK);
    for (int k = 0; k < 32; ++k) EXPECT(y[k] == (float)k * ((float)k + 0.5f));
    EXPECT(run(context, 4, y, counts) == NNCC_OK && counts[0] == 12 && counts[1] == 0);
    EXPECT(run(context, 1, y, counts) == NNCC_ERROR_KERNEL);
    EXPECT(strstr(nncc_last_error(), "index 7 is out of range"));
    EXPECT(run(context, 2, y, counts) == NNCC_ERROR_KERNEL);
    EXPECT(run(context, 6, y, counts) == NNCC_ERROR_KERNEL);
    EXPECT(!strcmp(nncc_last_error(), "kernel 1 (fake_\"behave\") failed: it gave no reason"));
    EXPECT(run(context, 10, y, counts) == NNCC_OK);
    EXPECT(run(context, 8, y, counts) == NNCC_OK && !*nncc_last_error());
    if (i % 8 == 0) { /* long enough for the workers to fall asleep */
      nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
  }
  EXPECT(run(context, 3, y, counts) == NNCC_OK && counts[1] == 0);
  nncc_destroy(context);
  for (int i = 0; i < 20; ++i) { /* destroy threads that may not have gone to sleep yet */
    EXPECT(nncc_create(&context, 1 + i % 4) == NNCC_OK);
    nncc_destroy(context);
  }
  return NULL;
}

int main(int argc, char** argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 100;
  pthread_t threads[3];
  for (int i = 0; i < 3; ++i) EXPECT(!pthread_create(&threads[i], NULL, hammer, &rounds));
  for (int i = 0; i < 3; ++i) EXPECT(!pthread_join(threads[i], NULL));
  nncc_destroy(NULL);
  EXPECT(nncc_run(NULL, NULL, NULL) == NNCC_ERROR_ARGUMENT);
  return 0;
}
