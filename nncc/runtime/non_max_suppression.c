/* non_max_suppression.c: NonMaxSuppression of ONNX. NNCC_SELECT_NAME is the function that kernels call. */

/* The corners of a box, [y1, x1, y2, x2] of any two opposite ones, or where it is by its `center`, of [x, y, w, h]. */
static void NNCC_JOIN(NNCC_SELECT_NAME, _corners, )(const float* box, int32_t center, float* low, float* high) {
  for (int k = 0; k < 2; k++) {
    const float a = center ? box[k] - box[2 + k] / 2 : box[k], b = center ? box[k] + box[2 + k] / 2 : box[2 + k];
    low[k] = a < b ? a : b;
    high[k] = a < b ? b : a;
  }
}

enum { NNCC_JOIN(NNCC_SELECT_NAME, _together, ) = 8 };

/* Whether a box overlaps one of `count` others by more than `most` of what both cover; empty boxes overlap none. A box is
 * its four corners and its area, the others are five rows of `room` numbers. Some are looked at at once, by arithmetic
 * without conditions, which compilers make vectors of; what lies behind the last is finite. */
static int NNCC_JOIN(NNCC_SELECT_NAME, _overlaps, )(const float* box, const float* others, int64_t count, int64_t room,
                                                   float most) {
  const float *y_low = others, *x_low = others + room, *y_high = others + 2 * room, *x_high = others + 3 * room;
  const float* areas = others + 4 * room;
  const float y0 = box[0], x0 = box[1], y1 = box[2], x1 = box[3], area = box[4];
  if (!(area > 0)) return 0 > most && count > 0;
  for (int64_t first = 0; first < count; first += NNCC_JOIN(NNCC_SELECT_NAME, _together, )) {
    float shares[NNCC_JOIN(NNCC_SELECT_NAME, _together, )];
    for (int u = 0; u < NNCC_JOIN(NNCC_SELECT_NAME, _together, ); u++) {
      const int64_t k = first + u;
      const float top = y0 > y_low[k] ? y0 : y_low[k], left = x0 > x_low[k] ? x0 : x_low[k];
      const float bottom = y1 < y_high[k] ? y1 : y_high[k], right = x1 < x_high[k] ? x1 : x_high[k];
      const float height = bottom - top, width = right - left;
      const float both = (height > 0 ? height : 0) * (width > 0 ? width : 0);
      shares[u] = both / (area + areas[k] - both);
    }
    for (int u = 0; u < NNCC_JOIN(NNCC_SELECT_NAME, _together, ) && first + u < count; u++) {
      if (shares[u] > most) return 1;
    }
  }
  return 0;
}

/* A number that is greater for the box that comes before: by a higher score or, where they tie, by the lower index. */
static inline uint64_t NNCC_JOIN(NNCC_SELECT_NAME, _rank, )(float score, int64_t box) {
  uint32_t bits;
  score += 0.0f; /* both zeros are one */
  memcpy(&bits, &score, sizeof bits);
  bits ^= bits >> 31 ? UINT32_MAX : UINT32_C(1) << 31;
  return (uint64_t)bits << 32 | (UINT32_MAX - (uint32_t)box);
}

/* What lies at `root` of a heap of `left` ranks goes to where none below is greater: down to the end, then up again, since
 * it mostly comes from there. */
static void NNCC_JOIN(NNCC_SELECT_NAME, _sink, )(uint64_t* heap, int64_t left, int64_t root) {
  const uint64_t rank = heap[root];
  int64_t at = root, below;
  while ((below = 2 * at + 2) < left) {
    below -= heap[below - 1] > heap[below];
    heap[at] = heap[below];
    at = below;
  }
  if (below == left) {
    heap[at] = heap[left - 1];
    at = left - 1;
  }
  for (; at > root && heap[(at - 1) / 2] < rank; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
  heap[at] = rank;
}

/* boxes is [batch, n, 4], scores [batch, classes, n]; out is [*count, 3]: batch, class and box of what is selected, of
 * each class the highest score first, at most `most` of them. Where it is `padded`, -1 is behind, up to as many rows as
 * there can be. `order` has n numbers: a heap of the ranks that are left, of which the best is taken, unless it overlaps
 * one that was selected. `selected` has 5 `room` numbers for what one class selects: 8 boxes more than there can be. */
NNCC_HIDDEN int32_t NNCC_SELECT_NAME(const float* boxes, const float* scores, const int64_t* most, const float* overlap,
                                     const float* least, int64_t* out, int64_t* order, float* selected,
                                     int64_t* count, int64_t batch, int64_t classes, int64_t n, int64_t rows,
                                     int64_t room, int32_t center, int32_t padded) {
  uint64_t* heap = (uint64_t*)order;
  int64_t found = 0;
  memset(selected, 0, (size_t)(5 * room) * sizeof *selected);
  for (int64_t b = 0; b < batch; b++) {
    const float* box = boxes + b * n * 4;
    for (int64_t c = 0; c < classes; c++) {
      const float* score = scores + (b * classes + c) * n;
      const int64_t first = found;
      int64_t left = 0;
      for (int64_t i = 0; i < n; i++) {
        heap[left] = NNCC_JOIN(NNCC_SELECT_NAME, _rank, )(score[i], i);
        left += score[i] > *least;
      }
      for (int64_t at = left / 2; at-- > 0;) NNCC_JOIN(NNCC_SELECT_NAME, _sink, )(heap, left, at);
      while (left > 0 && found - first < *most) {
        const int64_t best = UINT32_MAX - (uint32_t)heap[0];
        float corners[5];
        heap[0] = heap[--left];
        if (left > 0) NNCC_JOIN(NNCC_SELECT_NAME, _sink, )(heap, left, 0);
        NNCC_JOIN(NNCC_SELECT_NAME, _corners, )(box + 4 * best, center, corners, corners + 2);
        corners[4] = (corners[2] - corners[0]) * (corners[3] - corners[1]);
        if (NNCC_JOIN(NNCC_SELECT_NAME, _overlaps, )(corners, selected, found - first, room, *overlap)) continue;
        for (int k = 0; k < 5; k++) selected[k * room + found - first] = corners[k];
        out[3 * found] = b;
        out[3 * found + 1] = c;
        out[3 * found++ + 2] = best;
      }
    }
  }
  if (padded) memset(out + 3 * found, 0xff, (size_t)(3 * (rows - found)) * sizeof *out);
  *count = found;
  return 0;
}

#undef NNCC_SELECT_NAME
