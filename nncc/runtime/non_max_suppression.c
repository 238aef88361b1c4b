/* non_max_suppression.c: NonMaxSuppression of ONNX. NNCC_SELECT_NAME is the function that kernels call. */

/* The corners of a box, [y1, x1, y2, x2] of any two opposite ones, or where it is by its `center`, of [x, y, w, h]. */
static void NNCC_JOIN(NNCC_SELECT_NAME, _corners, )(const float* box, int32_t center, float* low, float* high) {
  for (int k = 0; k < 2; k++) {
    const float a = center ? box[k] - box[2 + k] / 2 : box[k], b = center ? box[k] + box[2 + k] / 2 : box[2 + k];
    low[k] = a < b ? a : b;
    high[k] = a < b ? b : a;
  }
}

/* Intersection over union; 0 where one of the boxes is empty. */
static float NNCC_JOIN(NNCC_SELECT_NAME, _overlap, )(const float* one, const float* other, int32_t center) {
  float low[2], high[2], low_other[2], high_other[2], both = 1, area = 1, area_other = 1;
  NNCC_JOIN(NNCC_SELECT_NAME, _corners, )(one, center, low, high);
  NNCC_JOIN(NNCC_SELECT_NAME, _corners, )(other, center, low_other, high_other);
  for (int k = 0; k < 2; k++) {
    const float start = low[k] > low_other[k] ? low[k] : low_other[k];
    const float end = high[k] < high_other[k] ? high[k] : high_other[k];
    both *= end > start ? end - start : 0;
    area *= high[k] - low[k];
    area_other *= high_other[k] - low_other[k];
  }
  return area > 0 && area_other > 0 ? both / (area + area_other - both) : 0;
}

/* Whether box `a` comes before `b`: by a higher score or, where they tie, by the lower index. */
static int NNCC_JOIN(NNCC_SELECT_NAME, _before, )(const float* score, int64_t a, int64_t b) {
  return score[a] > score[b] || (score[a] == score[b] && a < b);
}

/* What lies at `at` of a heap of `left` boxes goes down until none below comes before it; the first is on top. */
static void NNCC_JOIN(NNCC_SELECT_NAME, _sink, )(const float* score, int64_t* heap, int64_t left, int64_t at) {
  const int64_t box = heap[at];
  for (int64_t below = 2 * at + 1; below < left; below = 2 * at + 1) {
    if (below + 1 < left && NNCC_JOIN(NNCC_SELECT_NAME, _before, )(score, heap[below + 1], heap[below])) below++;
    if (!NNCC_JOIN(NNCC_SELECT_NAME, _before, )(score, heap[below], box)) break;
    heap[at] = heap[below];
    at = below;
  }
  heap[at] = box;
}

/* boxes is [batch, n, 4], scores [batch, classes, n]; out is [*count, 3]: batch, class and box of what is selected, of
 * each class the highest score first, at most `most` of them. `order` has n numbers: a heap of the boxes that are left,
 * of which the best is taken, unless it overlaps one that was selected. */
NNCC_HIDDEN int32_t NNCC_SELECT_NAME(const float* boxes, const float* scores, const int64_t* most, const float* overlap,
                                     const float* least, int64_t* out, int64_t* order, int64_t* count, int64_t batch,
                                     int64_t classes, int64_t n, int32_t center) {
  int64_t found = 0;
  for (int64_t b = 0; b < batch; b++) {
    const float* box = boxes + b * n * 4;
    for (int64_t c = 0; c < classes; c++) {
      const float* score = scores + (b * classes + c) * n;
      const int64_t first = found;
      int64_t left = 0;
      for (int64_t i = 0; i < n; i++) {
        if (score[i] > *least) order[left++] = i;
      }
      for (int64_t at = left / 2; at-- > 0;) NNCC_JOIN(NNCC_SELECT_NAME, _sink, )(score, order, left, at);
      while (left > 0 && found - first < *most) {
        const int64_t best = order[0];
        int64_t k = first;
        order[0] = order[--left];
        if (left > 0) NNCC_JOIN(NNCC_SELECT_NAME, _sink, )(score, order, left, 0);
        while (k < found &&
               !(NNCC_JOIN(NNCC_SELECT_NAME, _overlap, )(box + 4 * best, box + 4 * out[3 * k + 2], center) > *overlap)) {
          k++;
        }
        if (k < found) continue;
        out[3 * found] = b;
        out[3 * found + 1] = c;
        out[3 * found++ + 2] = best;
      }
    }
  }
  *count = found;
  return 0;
}

#undef NNCC_SELECT_NAME
