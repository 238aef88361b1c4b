/* sort.c: TopK, Sort and ArgSort for one element type; the generated model.c includes it once for each it needs.
 *
 *   NNCC_SORT_T      element type
 *   NNCC_SORT_NAME   name of the function that kernels call
 *
 * Both order indices by (value, index), so that equal values keep their order, and need no memory but the output.
 * NaN counts as greater than every number, as numpy's sort has it. */

#define BEFORE NNCC_JOIN(NNCC_SORT_NAME, _before, )
#define SIFT NNCC_JOIN(NNCC_SORT_NAME, _sift, )

/* Whether element i comes before element j. */
static inline int BEFORE(const NNCC_SORT_T* x, int64_t stride, int64_t i, int64_t j, int descending) {
  const NNCC_SORT_T a = x[i * stride], b = x[j * stride];
  const int a_nan = a != a, b_nan = b != b;
  if (a_nan != b_nan) return descending ? a_nan : b_nan;
  if (a < b) return !descending;
  if (b < a) return descending;
  return i < j;
}

/* Restore the heap (its last element on top) below `root`. */
static void SIFT(const NNCC_SORT_T* x, int64_t stride, int64_t* heap, int64_t heap_stride, int64_t root, int64_t size,
                 int descending) {
  const int64_t moved = heap[root * heap_stride];
  for (;;) {
    int64_t child = 2 * root + 1;
    if (child >= size) break;
    if (child + 1 < size &&
        BEFORE(x, stride, heap[child * heap_stride], heap[(child + 1) * heap_stride], descending)) {
      child++;
    }
    if (!BEFORE(x, stride, moved, heap[child * heap_stride], descending)) break;
    heap[root * heap_stride] = heap[child * heap_stride];
    root = child;
  }
  heap[root * heap_stride] = moved;
}

/* x is [outer, n, inner]; indices (int64) and values are [outer, k, inner]: the first k of each line, in order.
 * k == n sorts. values may be NULL. */
NNCC_HIDDEN int32_t NNCC_SORT_NAME(const NNCC_SORT_T* x, NNCC_SORT_T* values, int64_t* indices, int64_t outer,
                                   int64_t n, int64_t inner, int64_t k, int32_t descending) {
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t i = 0; i < inner; i++) {
      const NNCC_SORT_T* line = x + o * n * inner + i;
      int64_t* heap = indices + o * k * inner + i;
      if (k == 0) continue;
      for (int64_t j = 0; j < k; j++) heap[j * inner] = j;
      for (int64_t j = k / 2; j-- > 0;) SIFT(line, inner, heap, inner, j, k, descending);
      for (int64_t j = k; j < n; j++) {
        if (BEFORE(line, inner, j, heap[0], descending)) {
          heap[0] = j;
          SIFT(line, inner, heap, inner, 0, k, descending);
        }
      }
      for (int64_t size = k - 1; size > 0; size--) {
        const int64_t last = heap[0];
        heap[0] = heap[size * inner];
        heap[size * inner] = last;
        SIFT(line, inner, heap, inner, 0, size, descending);
      }
      if (values) {
        NNCC_SORT_T* out = values + o * k * inner + i;
        for (int64_t j = 0; j < k; j++) out[j * inner] = line[heap[j * inner] * inner];
      }
    }
  }
  return 0;
}

#undef BEFORE
#undef SIFT
#undef NNCC_SORT_T
#undef NNCC_SORT_NAME
