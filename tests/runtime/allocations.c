/* Counts what the heap is asked for, by libc itself too: a program's malloc takes the place of libc's. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "nncc.h"

static atomic_int count;
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t items, size_t size);
void* __libc_realloc(void* pointer, size_t size);
void __libc_free(void* pointer);

void* malloc(size_t size) {
  atomic_fetch_add(&count, 1);
  return __libc_malloc(size);
}
void* calloc(size_t items, size_t size) {
  atomic_fetch_add(&count, 1);
  return __libc_calloc(items, size);
}
void* realloc(void* pointer, size_t size) {
  atomic_fetch_add(&count, 1);
  return __libc_realloc(pointer, size);
}
void free(void* pointer) {
  atomic_fetch_add(&count, 1);
  __libc_free(pointer);
}

int main(void) {
  nncc_context* context;
  float x[32] = {0}, y[32];
  int32_t mode;
  int64_t counts[2];
  double seconds[3] = {0};
  const void* in[] = {x, &mode};
  void* out[] = {y, counts};
  if (nncc_create(&context, 3)) return 1;
  const int created = atomic_load(&count);
  for (mode = 0; mode < 9; ++mode) {
    if (mode != 7) {
      nncc_run(context, in, out);
      nncc_profile(context, in, out, seconds);
    }
  }
  const int ran = atomic_load(&count);
  nncc_destroy(context);
  printf("%s in create, %d in run\n", created ? "some" : "none", ran - created);
  return 0;
}
