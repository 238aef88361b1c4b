/* Two models in one program, each with its own prefix and its own names of the runtime's functions. */
#include <stdio.h>

#include "nncc.h"

extern int nncc_first_create(nncc_context**, int);
extern int nncc_first_run(nncc_context*, const void* const*, void* const*);
extern void nncc_first_destroy(nncc_context*);
extern int nncc_second_create(nncc_context**, int);
extern int nncc_second_run(nncc_context*, const void* const*, void* const*);
extern void nncc_second_destroy(nncc_context*);

int main(void) {
  nncc_context *first, *second;
  float x[32] = {[1] = 2}, y[2][32];
  int32_t mode = 3;
  int64_t counts[2][2];
  const void* in[] = {x, &mode};
  if (nncc_first_create(&first, 2) || nncc_second_create(&second, 2)) return 1;
  if (nncc_first_run(first, in, (void*[]){y[0], counts[0]})) return 1;
  if (nncc_second_run(second, in, (void*[]){y[1], counts[1]})) return 1;
  printf("%g %g %d %d\n", (double)y[0][1], (double)y[1][1], (int)counts[0][1], (int)counts[1][1]);
  nncc_first_destroy(first);
  nncc_second_destroy(second);
  return 0;
}
