/* expand.c: constants that are stored without their zeros (nncc/codegen/pack_weights.py). The generated model.c
 * includes it, and defines NNCC_PACKED and `packed_constants`, where there are any. */

/* At `from`, `nbytes` bytes: a bitmap of `elements` bits, the lowest bit of a byte first, and then the elements whose
 * bit is 1, `width` bytes each (1, 2, 4 or 8). They go to `to` in the arena, zeros in between. */
typedef struct {
  size_t from;
  size_t nbytes;
  size_t to;
  size_t elements;
  size_t width;
} nncc_packed;

/* Whether the bytes are what they claim to be. Reads `nbytes` bytes at `stored`, writes elements * width at `to`. */
static int nncc_expand(const nncc_packed* packed, const uint8_t* stored, uint8_t* to) {
  const size_t index = packed->elements / 8 + (packed->elements % 8 != 0), width = packed->width;
  if (index > packed->nbytes) {
    return 0;
  }
  const uint8_t *value = stored + index, *end = stored + packed->nbytes;
  memset(to, 0, packed->elements * width);
  for (size_t i = 0; i < index; ++i) {
    unsigned mask = stored[i];
    if (i == packed->elements / 8 && mask >> packed->elements % 8) {
      return 0; /* there are no elements behind the last one */
    }
    if ((size_t)(end - value) < width * (size_t)__builtin_popcount(mask)) {
      return 0;
    }
    for (uint8_t* place = to + 8 * i * width; mask; mask &= mask - 1, value += width) {
      uint8_t* element = place + (size_t)__builtin_ctz(mask) * width;
      switch (width) { /* a copy of a size that the compiler knows is a move */
        case 1: *element = *value; break;
        case 2: memcpy(element, value, 2); break;
        case 4: memcpy(element, value, 4); break;
        default: memcpy(element, value, 8); break;
      }
    }
  }
  return value == end;
}
