/* sort.c: TopK, Sort and ArgSort for one element type; the generated model.c includes it once for each it needs.
 *
 *   NNCC_SORT_T      element type
 *   NNCC_SORT_NAME   name of the function that kernels call
 *
 * A whole line is sorted by the bytes of its elements, of a part of it the first ones are kept in a heap. Equal values
 * keep the order of their indices. NaN counts as greater than every number, as numpy's sort has it. */

#define BEFORE NNCC_JOIN(NNCC_SORT_NAME, _before, )
#define AFTER NNCC_JOIN(NNCC_SORT_NAME, _after, )
#define SIFT NNCC_JOIN(NNCC_SORT_NAME, _sift, )
#define TOP NNCC_JOIN(NNCC_SORT_NAME, _top, )
#define KEY NNCC_JOIN(NNCC_SORT_NAME, _key, )
#define LINE NNCC_JOIN(NNCC_SORT_NAME, _line, )

/* Whether value a comes before value b, wherever they are. */
static inline int BEFORE(NNCC_SORT_T a, NNCC_SORT_T b, int descending) {
  const int a_nan = a != a, b_nan = b != b;
  return descending ? (a > b) | (a_nan & !b_nan) : (a < b) | (b_nan & !a_nan);
}

/* Whether element j of a heap comes after element i: by its value, or its place. */
static inline int AFTER(const NNCC_SORT_T* values, const int64_t* places, int64_t j, int64_t i, int descending) {
  if (BEFORE(values[i], values[j], descending)) return 1;
  return !BEFORE(values[j], values[i], descending) && places[j] > places[i];
}

/* Let element `root` of a heap, whose last element is on top, sink to where it belongs. */
static void SIFT(NNCC_SORT_T* values, int64_t* places, int64_t root, int64_t size, int descending) {
  const NNCC_SORT_T value = values[root];
  const int64_t place = places[root];
  for (int64_t child = 2 * root + 1; child < size; child = 2 * root + 1) {
    if (child + 1 < size && AFTER(values, places, child + 1, child, descending)) child++;
    const int below = BEFORE(value, values[child], descending) ||
                      (!BEFORE(values[child], value, descending) && places[child] > place);
    if (!below) break;
    values[root] = values[child];
    places[root] = places[child];
    root = child;
  }
  values[root] = value;
  places[root] = place;
}

/* The first k < n of a line in order. Most elements come after all k that are known: they are looked at some at once. */
static void TOP(const NNCC_SORT_T* line, int64_t n, int64_t k, NNCC_SORT_T* values, int64_t* places, int descending) {
  enum { TOGETHER = 16 };
  for (int64_t j = 0; j < k; j++) {
    values[j] = line[j];
    places[j] = j;
  }
  for (int64_t j = k / 2; j-- > 0;) SIFT(values, places, j, k, descending);
  for (int64_t j = k; j < n;) {
    const NNCC_SORT_T last = values[0];
    if (j + TOGETHER <= n) {
      int maybe = 0;
      if (descending) {
        for (int u = 0; u < TOGETHER; u++) maybe |= !(line[j + u] <= last);
      } else {
        for (int u = 0; u < TOGETHER; u++) maybe |= !(line[j + u] >= last);
      }
      if (!maybe) {
        j += TOGETHER;
        continue;
      }
    }
    for (const int64_t end = j + TOGETHER < n ? j + TOGETHER : n; j < end; j++) {
      if (!BEFORE(line[j], values[0], descending)) continue;
      values[0] = line[j];
      places[0] = j;
      SIFT(values, places, 0, k, descending);
    }
  }
  for (int64_t size = k - 1; size > 0; size--) {
    const NNCC_SORT_T value = values[0];
    const int64_t place = places[0];
    values[0] = values[size];
    places[0] = places[size];
    values[size] = value;
    places[size] = place;
    SIFT(values, places, 0, size, descending);
  }
}

/* A number whose unsigned order is that of the values: NaN the greatest, both zeros equal. */
static inline uint64_t KEY(NNCC_SORT_T value, int descending) {
  const uint64_t sign = (uint64_t)1 << (8 * sizeof value - 1), all = sign | (sign - 1);
  uint64_t key;
  if (value == 0) value = 0;
  if (sizeof value == 8) {
    memcpy(&key, &value, sizeof value);
  } else if (sizeof value == 4) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof value);
    key = bits;
  } else {
    key = (uint64_t)(int64_t)value & all;
  }
  if ((NNCC_SORT_T)0.5 != 0) {
    key = value != value ? all : key & sign ? ~key & all : key | sign;
  } else if ((NNCC_SORT_T)-1 < 0) {
    key ^= sign;
  }
  return descending ? ~key & all : key;
}

/* The places of a line in order, by one byte of the keys after the other, the lowest first; short lines by insertion.
 * `places` and `others` have n numbers, as `keys` and `other_keys`. */
static void LINE(const NNCC_SORT_T* line, int64_t n, int64_t* places, uint64_t* keys, uint64_t* other_keys,
                 int64_t* others, int descending) {
  enum { SHORT = 48, BYTES = sizeof(NNCC_SORT_T) };
  if (n <= SHORT) {
    for (int64_t j = 0; j < n; j++) {
      const uint64_t key = KEY(line[j], descending);
      int64_t at = j;
      for (; at > 0 && keys[at - 1] > key; at--) {
        keys[at] = keys[at - 1];
        places[at] = places[at - 1];
      }
      keys[at] = key;
      places[at] = j;
    }
    return;
  }
  int64_t counts[BYTES][256];
  memset(counts, 0, sizeof counts);
  for (int64_t j = 0; j < n; j++) {
    const uint64_t key = KEY(line[j], descending);
    keys[j] = key;
    for (int byte = 0; byte < BYTES; byte++) counts[byte][key >> (8 * byte) & 255]++;
  }
  int64_t *from = places, *to = others;
  for (int64_t j = 0; j < n; j++) from[j] = j;
  for (int byte = 0; byte < BYTES; byte++) {
    int64_t* count = counts[byte];
    int64_t start = 0;
    if (count[keys[0] >> (8 * byte) & 255] == n) continue;
    for (int digit = 0; digit < 256; digit++) {
      const int64_t here = count[digit];
      count[digit] = start;
      start += here;
    }
    for (int64_t j = 0; j < n; j++) {
      const int64_t at = count[keys[j] >> (8 * byte) & 255]++;
      other_keys[at] = keys[j];
      to[at] = from[j];
    }
    uint64_t* const keys_now = other_keys;
    int64_t* const places_now = to;
    other_keys = keys;
    to = from;
    keys = keys_now;
    from = places_now;
  }
  if (from != places) memcpy(places, from, (size_t)n * sizeof *places);
}

/* x is [outer, n, inner]; indices (int64) and values are [outer, k, inner]: the first k of each line, in order.
 * k == n sorts. `room` has 4 k numbers, `copy` n + k elements, if inner > 1. */
NNCC_HIDDEN int32_t NNCC_SORT_NAME(const NNCC_SORT_T* x, NNCC_SORT_T* values, int64_t* indices, int64_t* room,
                                   NNCC_SORT_T* copy, int64_t outer, int64_t n, int64_t inner, int64_t k,
                                   int32_t descending) {
  for (int64_t o = 0; k > 0 && o < outer; o++) {
    for (int64_t i = 0; i < inner; i++) {
      const int64_t out = o * k * inner + i;
      const NNCC_SORT_T* line = x + o * n * inner + i;
      NNCC_SORT_T* best = inner == 1 ? values + out : copy + n;
      int64_t* places = inner == 1 ? indices + out : room + 3 * k;
      if (inner > 1) {
        for (int64_t j = 0; j < n; j++) copy[j] = line[j * inner];
        line = copy;
      }
      if (k < n) {
        TOP(line, n, k, best, places, descending);
      } else {
        LINE(line, n, places, (uint64_t*)room, (uint64_t*)room + k, room + 2 * k, descending);
        for (int64_t j = 0; j < n; j++) best[j] = line[places[j]];
      }
      for (int64_t j = 0; inner > 1 && j < k; j++) {
        values[out + j * inner] = best[j];
        indices[out + j * inner] = places[j];
      }
    }
  }
  return 0;
}

#undef BEFORE
#undef AFTER
#undef SIFT
#undef TOP
#undef KEY
#undef LINE
#undef NNCC_SORT_T
#undef NNCC_SORT_NAME
