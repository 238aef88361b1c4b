/* unique.c: Unique for one element type; the generated model.c includes it once for each it needs, as non_zero.c. */

#define ORDER NNCC_JOIN(NNCC_SELECT_NAME, _order, )
#define SIFT NNCC_JOIN(NNCC_SELECT_NAME, _sift, )

/* Slices i and j of x, which is [outer, n, inner]: below, equal or above 0 as i comes before j, is equal, or comes after
 * it. NaN is equal to NaN and greater than every number, as numpy has it. */
static int ORDER(const NNCC_SELECT_T* x, int64_t outer, int64_t n, int64_t inner, int64_t i, int64_t j) {
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t k = 0; k < inner; k++) {
      const int a_nan = NNCC_SELECT_KEY(x[(o * n + i) * inner + k]) != NNCC_SELECT_KEY(x[(o * n + i) * inner + k]);
      const int b_nan = NNCC_SELECT_KEY(x[(o * n + j) * inner + k]) != NNCC_SELECT_KEY(x[(o * n + j) * inner + k]);
      if (a_nan != b_nan) return a_nan ? 1 : -1;
      if (NNCC_SELECT_KEY(x[(o * n + i) * inner + k]) < NNCC_SELECT_KEY(x[(o * n + j) * inner + k])) return -1;
      if (NNCC_SELECT_KEY(x[(o * n + j) * inner + k]) < NNCC_SELECT_KEY(x[(o * n + i) * inner + k])) return 1;
    }
  }
  return 0;
}

static int64_t NNCC_JOIN(NNCC_SELECT_NAME, _before, )(const NNCC_SELECT_T* x, int64_t outer, int64_t n, int64_t inner,
                                                    int64_t i, int64_t j) {
  const int order = ORDER(x, outer, n, inner, i, j);
  return order < 0 || (order == 0 && i < j);
}

static void SIFT(const NNCC_SELECT_T* x, int64_t outer, int64_t n, int64_t inner, int64_t* heap, int64_t root,
                 int64_t size) {
  const int64_t moved = heap[root];
  for (;;) {
    int64_t child = 2 * root + 1;
    if (child >= size) break;
    if (child + 1 < size && NNCC_JOIN(NNCC_SELECT_NAME, _before, )(x, outer, n, inner, heap[child], heap[child + 1])) {
      child++;
    }
    if (!NNCC_JOIN(NNCC_SELECT_NAME, _before, )(x, outer, n, inner, moved, heap[child])) break;
    heap[root] = heap[child];
    root = child;
  }
  heap[root] = moved;
}

/* The different slices of x, [outer, n, inner]: y is [outer, *count, inner]; indices is where each comes first, inverse
 * which one slice i is, counts how often each comes. In the order of their values, or of their first places where it is
 * not `sorted`. Where it is `padded`, y is [outer, n, inner], and zeros are behind what is found, in y, indices and counts.
 * `scratch` has 3 n numbers. */
NNCC_HIDDEN int32_t NNCC_SELECT_NAME(const NNCC_SELECT_T* x, NNCC_SELECT_T* y, int64_t* indices, int64_t* inverse,
                                     int64_t* counts, int64_t* scratch, int64_t* count, int64_t outer, int64_t n,
                                     int64_t inner, int32_t sorted, int32_t padded) {
  int64_t *order = scratch, *rank = scratch + n, *times = scratch + 2 * n, found = 0;
  for (int64_t i = 0; i < n; i++) order[i] = i;
  for (int64_t i = n / 2; i-- > 0;) SIFT(x, outer, n, inner, order, i, n);
  for (int64_t size = n - 1; size > 0; size--) {
    const int64_t last = order[0];
    order[0] = order[size];
    order[size] = last;
    SIFT(x, outer, n, inner, order, 0, size);
  }
  for (int64_t s = 0; s < n; s++) {
    if (s == 0 || ORDER(x, outer, n, inner, order[s - 1], order[s]) != 0) {
      indices[found] = order[s];
      times[found++] = 0;
    }
    inverse[order[s]] = found - 1;
    times[found - 1]++;
  }
  if (sorted) {
    for (int64_t g = 0; g < found; g++) counts[g] = times[g];
  } else {
    int64_t next = 0;
    for (int64_t i = 0; i < n; i++) {
      const int64_t g = inverse[i];
      if (indices[g] != i) continue;
      rank[g] = next;
      counts[next] = times[g];
      order[next++] = i;
    }
    for (int64_t i = 0; i < n; i++) inverse[i] = rank[inverse[i]];
    for (int64_t g = 0; g < found; g++) indices[g] = order[g];
  }
  const int64_t row = padded ? n : found;
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t g = 0; g < found; g++) {
      for (int64_t k = 0; k < inner; k++) y[(o * row + g) * inner + k] = x[(o * n + indices[g]) * inner + k];
    }
    if (row > found) memset(y + (o * row + found) * inner, 0, (size_t)((row - found) * inner) * sizeof *y);
  }
  for (int64_t g = found; g < row; g++) indices[g] = counts[g] = 0;
  *count = found;
  return 0;
}

#undef ORDER
#undef SIFT
#undef NNCC_SELECT_T
#undef NNCC_SELECT_NAME
#undef NNCC_SELECT_KEY
