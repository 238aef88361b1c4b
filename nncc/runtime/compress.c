/* compress.c: the slices of a tensor that a condition picks. NNCC_SELECT_NAME is the function that kernels call. */

/* x is [outer, n, inner] in bytes; out is [outer, *count, inner]: the slices i < `length` whose condition is not 0; or,
 * where it is `padded`, [outer, length, inner] with zeros behind them. */
NNCC_HIDDEN int32_t NNCC_SELECT_NAME(const uint8_t* x, const uint8_t* condition, uint8_t* out, int64_t* count,
                                     int64_t outer, int64_t n, int64_t inner, int64_t length,
                                     int32_t padded) {
  int64_t found = 0;
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t i = 0; i < length; i++) {
      if (!condition[i]) continue;
      memcpy(out, x + (o * n + i) * inner, (size_t)inner);
      out += inner;
      found += o == 0;
    }
    if (padded) {
      memset(out, 0, (size_t)((length - found) * inner));
      out += (length - found) * inner;
    }
  }
  *count = found;
  return 0;
}

#undef NNCC_SELECT_NAME
