// Compares the float units with the C library: all triples of numbers at the corners of the format, and COUNT random
// ones, some of which cancel. Prints how many were compared; the first difference ends it with status 1.
#include "Vfloat_units.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static float number(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  if (value != value) return 0x7fc00000u;
  memcpy(&bits, &value, 4);
  return bits;
}

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t random_bits() {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545f4914f6cdd1du >> 16;
}

static Vfloat_units units;
static uint64_t compared;

static int clamped(float value, int low, int high) {
  value = value > (float)low ? value : (float)low;
  value = value < (float)high ? value : (float)high;
  return (int)rintf(value);
}

static void compare(uint32_t a, uint32_t b, uint32_t c) {
  int low = -(int)(c >> 3 & 255), high = (int)(a >> 5 & 255);
  units.a = a;
  units.b = b;
  units.c = c;
  units.low = low & 1023;
  units.high = high & 1023;
  units.eval();
  volatile float x = number(a), y = number(b);
  uint32_t multiplied = bits_of(x * y), fused = bits_of(fmaf(x, y, number(c))), converted = bits_of((float)(int32_t)a);
  int nearest = clamped(number(c), low, high);
  int found = (int)(units.nearest ^ 512) - 512;
  ++compared;
  if (units.multiplied == multiplied && units.fused == fused && units.converted == converted && found == nearest) return;
  printf("a %08x b %08x c %08x: a*b %08x, not %08x; a*b+c %08x, not %08x; float(a) %08x, not %08x; "
         "nearest(c) in %d..%d %d, not %d\n",
         a, b, c, (unsigned)units.multiplied, multiplied, (unsigned)units.fused, fused, (unsigned)units.converted,
         converted, low, high, found, nearest);
  exit(1);
}

int main(int count, char **arguments) {
  uint64_t random_cases = count > 1 ? strtoull(arguments[1], nullptr, 10) : 1000000;
  // Every exponent with fractions at both ends and around the middle, both signs: for pairs; of triples a choice.
  static const uint32_t fractions[] = {0, 1, 0x3fffff, 0x400000, 0x400001, 0x7ffffe, 0x7fffff};
  std::vector<uint32_t> corners, few;
  for (uint32_t exponent = 0; exponent < 256; ++exponent)
    for (uint32_t fraction : fractions) corners.push_back(exponent << 23 | fraction);
  static const uint32_t exponents[] = {0, 1, 2, 23, 24, 25, 103, 126, 127, 128, 150, 151, 152, 230, 253, 254, 255};
  for (uint32_t exponent : exponents)
    for (uint32_t fraction : fractions)
      for (uint32_t sign = 0; sign < 2; ++sign) few.push_back(sign << 31 | exponent << 23 | fraction);
  for (uint32_t a : corners)
    for (uint32_t b : few) compare(a, b, random_bits());
  for (size_t i = 0; i < few.size(); ++i)
    for (size_t j = i; j < few.size(); j += 1 + i % 3)
      for (size_t k = (i + j) % 5; k < few.size(); k += 5) compare(few[i], few[j], few[k]);
  for (uint64_t i = 0; i < random_cases; ++i) {
    uint32_t a = random_bits(), b = random_bits(), c = random_bits();
    switch (i % 4) {
      case 0: break;
      case 1:  // the sum cancels, all but some of the lowest bits
        c = bits_of(-(number(a) * number(b))) + (uint32_t)(random_bits() % 9) - 4;
        break;
      case 2:  // exponents near each other
        a = (a & 0x807fffff) | (110 + random_bits() % 30) << 23;
        b = (b & 0x807fffff) | (110 + random_bits() % 30) << 23;
        c = (c & 0x807fffff) | (100 + random_bits() % 50) << 23;
        break;
      default:  // results that are subnormal, and halves for rounding
        a = (a & 0x807fffff) | (random_bits() % 80) << 23;
        b = (b & 0x807fffff) | (40 + random_bits() % 40) << 23;
        c = bits_of((float)((int)(random_bits() % 2048) - 1024) / 2);
    }
    compare(a, b, c);
  }
  printf("%llu\n", (unsigned long long)compared);
}
