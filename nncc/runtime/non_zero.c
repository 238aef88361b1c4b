/* non_zero.c: the places of what is not zero; the generated model.c includes it once for each element type it needs.
 *
 *   NNCC_SELECT_T      element type
 *   NNCC_SELECT_NAME   name of the function that kernels call
 *   NNCC_SELECT_KEY    what an element is compared as */

/* x has `total` elements and the shape `shape` of `rank` sizes; out is [rank, *count], row-major, or where it is `padded`
 * [rank, total] with -1 at the end of each row. */
NNCC_HIDDEN int32_t NNCC_SELECT_NAME(const NNCC_SELECT_T* x, const int64_t* shape, int64_t* out, int64_t* count,
                                     int64_t rank, int64_t total, int32_t padded) {
  int64_t found = 0, at = 0;
  for (int64_t i = 0; i < total; i++) found += NNCC_SELECT_KEY(x[i]) != 0;
  const int64_t row = padded ? total : found;
  for (int64_t axis = 0; axis < rank; axis++) {
    if (row > found) memset(out + axis * row + found, 0xff, (size_t)(row - found) * sizeof *out);
  }
  for (int64_t i = 0; i < total && at < found; i++) {
    if (NNCC_SELECT_KEY(x[i]) == 0) continue;
    int64_t rest = i;
    for (int64_t axis = rank - 1; axis >= 0; axis--) {
      out[axis * row + at] = rest % shape[axis];
      rest /= shape[axis];
    }
    at++;
  }
  *count = found;
  return 0;
}

#undef NNCC_SELECT_T
#undef NNCC_SELECT_NAME
#undef NNCC_SELECT_KEY
