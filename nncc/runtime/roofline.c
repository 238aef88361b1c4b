/* roofline.c: a model whose calls do nothing but what a machine does fastest: multiply and add, and read memory.
 *
 * Written by hand in place of a generated model.c, so that what is measured goes through the thread pool and the clock
 * that models go through. A call reads memory of some size again and again, or, where the size is 0, computes in
 * registers; the output says how many bytes or floating-point operations each call did. nncc_run fills the memory,
 * because pages that nobody wrote to are all the same one; nncc_profile measures, each call after one that is not
 * timed. The file that includes this one defines
 *
 *   NNCC_FEATURES       processor features that the C compiler was told to use, as in nncc_info
 *   NNCC_VECTOR_BYTES   width of a vector; 4, one float, where there are none
 *   NNCC_SIZES(DO)      DO(bytes) for each call
 *   NNCC_MOST_BYTES     the largest of them */
#include "internal.h"

static const nncc_info model_info;
static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, const int64_t* dims, const void* const* in,
                            void* const* out, double* seconds);
#include "runtime.c"

#if NNCC_VECTOR_BYTES > 4
typedef float vector __attribute__((vector_size(NNCC_VECTOR_BYTES), may_alias));
#else
typedef float vector __attribute__((may_alias));
#endif

/* As many independent sums as hide the latency of a multiply-add and leave registers for its two factors. */
#define EACH_OF_12(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#if defined(__AVX512F__) || defined(__aarch64__) || defined(__riscv)
#define EACH(DO) EACH_OF_12(DO) DO(12) DO(13) DO(14) DO(15) DO(16) DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23)
#else
#define EACH(DO) EACH_OF_12(DO)
#endif
#define COUNT(ignored) +1

enum {
  SUMS = 0 EACH(COUNT),
  CALLS = 0 NNCC_SIZES(COUNT),
  STEP = 8 * NNCC_VECTOR_BYTES /* bytes that a loop reads at once */
};
static const int64_t TASK_FLOPS = 1 << 25;
static const size_t TASK_BYTES = 16 << 20; /* that a task reads at least */

typedef struct {
  uint8_t* data;
  size_t nbytes; /* of all tasks together: each has a part of its own; 0 to compute instead */
  int fill;      /* write it rather than read it */
  double amount; /* bytes or floating-point operations of all tasks together */
} job;

static int work_task(int id, rt_group* group, void* data) {
  float half = 0.5f, one = 1.0f;
  __asm__ volatile("" : "+m"(half), "+m"(one)); /* nobody knows them, so that nothing is computed beforehand */
  const vector scale = (vector){0} + half, shift = (vector){0} + one; /* the sums go to 2 */
#define START(i) vector sum##i = scale + (float)i;
  EACH(START)
  const int64_t steps = TASK_FLOPS / (2 * SUMS * (NNCC_VECTOR_BYTES / 4));
  for (int64_t step = 0; step < steps; ++step) {
#define MULTIPLY_ADD(i) sum##i = sum##i * scale + shift;
    EACH(MULTIPLY_ADD)
  }
#define KEEP(i) __asm__ volatile("" : : "m"(sum##i));
  EACH(KEEP)
  if (id == 0) {
    ((job*)data)->amount = (double)steps * 2 * SUMS * (NNCC_VECTOR_BYTES / 4) * group->num_task;
  }
  return 0;
}

static int memory_task(int id, rt_group* group, void* data) {
  job* all = data;
  const size_t part = all->nbytes / (size_t)group->num_task / STEP * STEP;
  const size_t nbytes = part ? part : STEP;
  const size_t turns = TASK_BYTES > nbytes ? TASK_BYTES / nbytes : 1;
  uint8_t* mine = all->data + nbytes * (size_t)id;
  if (all->fill) {
    memset(mine, 0, nbytes);
    return 0;
  }
  vector a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  for (size_t turn = 0; turn < turns; ++turn) {
    for (size_t at = 0; at < nbytes; at += STEP) {
      const vector* from = (const vector*)(mine + at);
      a += from[0], b += from[1], c += from[2], d += from[3];
      e += from[4], f += from[5], g += from[6], h += from[7];
    }
  }
  a = ((a + b) + (c + d)) + ((e + f) + (g + h));
  __asm__ volatile("" : : "m"(a));
  if (id == 0) {
    all->amount = (double)nbytes * (double)turns * group->num_task;
  }
  return 0;
}

static int32_t launch(job* all) {
  return NNCC_SYM_PARALLEL_LAUNCH(all->nbytes ? memory_task : work_task, all, 0);
}

static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, const int64_t* dims, const void* const* in,
                            void* const* out, double* seconds) {
  (void)dims;
#define SIZE(nbytes) nbytes,
  static const size_t sizes[] = {NNCC_SIZES(SIZE)};
  double* amounts = out[0];
  (void)weights, (void)in;
  if (!seconds) {
    job fill = {.data = arena, .nbytes = NNCC_MOST_BYTES, .fill = 1};
    return launch(&fill) ? 1 : 0;
  }
  for (int i = 0; i < CALLS; ++i) {
    job all = {.data = arena, .nbytes = sizes[i]};
    if (launch(&all)) {
      return i + 1;
    }
    NNCC_CALL(i, launch(&all));
    amounts[i] = all.amount;
  }
  return 0;
}

#define NAME(nbytes) "read " #nbytes,
static const char* const call_names[] = {NNCC_SIZES(NAME)};
static const double unknown[CALLS];
static const int64_t shape[] = {CALLS};
static const nncc_tensor amounts = {"amounts", "float64", 1, shape, CALLS * sizeof(double)};
static const nncc_info model_info = {
  .abi_version = NNCC_ABI_VERSION,
  .num_outputs = 1,
  .num_calls = CALLS,
  .name = "roofline",
  .target = NNCC_TARGET,
  .build = "",
  .compiler = "",
  .features = NNCC_FEATURES,
  .outputs = &amounts,
  .call_names = call_names,
  .call_flops = unknown,
  .call_multiplications = unknown,
  .call_bytes = unknown,
  .call_weight_bytes = unknown,
  .arena_bytes = NNCC_MOST_BYTES,
};
