/* cuda_fp16.h for the emulator: float16 and bfloat16, every operation rounded to its type, to nearest even. */
#pragma once

#include "../emulator.hpp"

inline unsigned short emulated_to_half(float value) {
  unsigned bits = emulated_bits<unsigned>(value);
  const unsigned sign = bits >> 16 & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return (unsigned short)(sign | 0x7fffu); /* CUDA's only NaN */
  if (bits >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);
  if (bits < 0x38800000u) { /* below 2^-14: adding 0.5 rounds to a multiple of 2^-24 */
    return (unsigned short)(sign | (emulated_bits<unsigned>(emulated_bits<float>(bits) + 0.5f) - 0x3f000000u));
  }
  return (unsigned short)(sign | ((bits - (112u << 23) + 0xfffu + (bits >> 13 & 1u)) >> 13));
}
inline float emulated_from_half(unsigned short half) {
  const unsigned sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;
  if (rest < 0x0400u) return emulated_bits<float>(sign | emulated_bits<unsigned>((float)rest * 0x1p-24f));
  return emulated_bits<float>(sign | ((rest << 13) + (rest < 0x7c00u ? 112u << 23 : 224u << 23)));
}
inline unsigned short emulated_to_bfloat16(float value) {
  const unsigned bits = emulated_bits<unsigned>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
inline float emulated_from_bfloat16(unsigned short bits) { return emulated_bits<float>((unsigned)bits << 16); }

/* A float of 16 bits. float has more than twice its digits, so rounding a result twice is rounding it once. */
template <unsigned short (*to)(float), float (*from)(unsigned short)>
struct EmulatedNarrow {
  unsigned short bits;
  EmulatedNarrow() = default;
  EmulatedNarrow(float value) : bits(to(value)) {}
  EmulatedNarrow(double value) : bits(to((float)value)) {}
  EmulatedNarrow(int value) : bits(to((float)value)) {}
  EmulatedNarrow(unsigned value) : bits(to((float)value)) {}
  EmulatedNarrow(long long value) : bits(to((float)value)) {}
  operator float() const { return from(bits); }
  EmulatedNarrow operator-() const { return EmulatedNarrow(-from(bits)); }
  EmulatedNarrow& operator+=(EmulatedNarrow b) { return *this = *this + b; }
  EmulatedNarrow& operator-=(EmulatedNarrow b) { return *this = *this - b; }
  EmulatedNarrow& operator*=(EmulatedNarrow b) { return *this = *this * b; }
  friend EmulatedNarrow operator+(EmulatedNarrow a, EmulatedNarrow b) { return (float)a + (float)b; }
  friend EmulatedNarrow operator-(EmulatedNarrow a, EmulatedNarrow b) { return (float)a - (float)b; }
  friend EmulatedNarrow operator*(EmulatedNarrow a, EmulatedNarrow b) { return (float)a * (float)b; }
  friend EmulatedNarrow operator/(EmulatedNarrow a, EmulatedNarrow b) { return (float)a / (float)b; }
  friend bool operator<(EmulatedNarrow a, EmulatedNarrow b) { return (float)a < (float)b; }
  friend bool operator>(EmulatedNarrow a, EmulatedNarrow b) { return (float)a > (float)b; }
  friend bool operator<=(EmulatedNarrow a, EmulatedNarrow b) { return (float)a <= (float)b; }
  friend bool operator>=(EmulatedNarrow a, EmulatedNarrow b) { return (float)a >= (float)b; }
  friend bool operator==(EmulatedNarrow a, EmulatedNarrow b) { return (float)a == (float)b; }
  friend bool operator!=(EmulatedNarrow a, EmulatedNarrow b) { return (float)a != (float)b; }
};

using __half = EmulatedNarrow<emulated_to_half, emulated_from_half>;
using half = __half;
using __nv_bfloat16 = EmulatedNarrow<emulated_to_bfloat16, emulated_from_bfloat16>;
using nv_bfloat16 = __nv_bfloat16;
struct alignas(4) __half2 { half x, y; };
using half2 = __half2;
struct alignas(4) __nv_bfloat162 { nv_bfloat16 x, y; };
using nv_bfloat162 = __nv_bfloat162;

inline half __float2half(float v) { return half(v); }
inline half __float2half_rn(float v) { return half(v); }
inline float __half2float(half v) { return v; }
inline half __int2half_rn(int v) { return half((float)v); }
inline half __ushort_as_half(unsigned short bits) { half v; v.bits = bits; return v; }
inline unsigned short __half_as_ushort(half v) { return v.bits; }
inline half2 make_half2(half x, half y) { return {x, y}; }
inline half2 __halves2half2(half x, half y) { return {x, y}; }
inline half2 __half2half2(half x) { return {x, x}; }
inline half2 __float2half2_rn(float v) { return {half(v), half(v)}; }
inline half2 __floats2half2_rn(float x, float y) { return {half(x), half(y)}; }
inline half2 __float22half2_rn(float2 v) { return {half(v.x), half(v.y)}; }
inline float2 __half22float2(half2 v) { return {v.x, v.y}; }
inline float __low2float(half2 v) { return v.x; }
inline float __high2float(half2 v) { return v.y; }
inline half __low2half(half2 v) { return v.x; }
inline half __high2half(half2 v) { return v.y; }
inline nv_bfloat16 __float2bfloat16(float v) { return nv_bfloat16(v); }
inline nv_bfloat16 __float2bfloat16_rn(float v) { return nv_bfloat16(v); }
inline float __bfloat162float(nv_bfloat16 v) { return v; }
inline nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {nv_bfloat16(x), nv_bfloat16(y)}; }

#define EMULATED_NARROW(T)                                                                      \
  inline T __hadd(T a, T b) { return a + b; }                                                   \
  inline T __hsub(T a, T b) { return a - b; }                                                   \
  inline T __hmul(T a, T b) { return a * b; }                                                   \
  inline T __hdiv(T a, T b) { return a / b; }                                                   \
  inline T __hneg(T a) { return -a; }                                                           \
  inline T __habs(T a) { return T(fabsf(a)); }                                                  \
  /* double holds the product of two exactly, and their sum closely enough to round it once. */ \
  inline T __hfma(T a, T b, T c) { return T((float)((double)(float)a * (float)b + (float)c)); } \
  inline T __hmax(T a, T b) { return T(fmaxf(a, b)); }                                          \
  inline T __hmin(T a, T b) { return T(fminf(a, b)); }                                          \
  inline bool __hlt(T a, T b) { return a < b; }                                                 \
  inline bool __hgt(T a, T b) { return a > b; }                                                 \
  inline bool __hle(T a, T b) { return a <= b; }                                                \
  inline bool __hge(T a, T b) { return a >= b; }                                                \
  inline bool __heq(T a, T b) { return a == b; }                                                \
  inline bool __hne(T a, T b) { return a != b; }                                                \
  inline bool __hisnan(T a) { return a != a; }                                                  \
  inline T hexp(T a) { return T(expf(a)); }                                                     \
  inline T hexp2(T a) { return T(exp2f(a)); }                                                   \
  inline T hlog(T a) { return T(logf(a)); }                                                     \
  inline T hlog2(T a) { return T(log2f(a)); }                                                   \
  inline T hsqrt(T a) { return T(sqrtf(a)); }                                                   \
  inline T hrsqrt(T a) { return T(1.0f / sqrtf(a)); }                                           \
  inline T hrcp(T a) { return T(1.0f / (float)a); }                                             \
  inline T hsin(T a) { return T(sinf(a)); }                                                     \
  inline T hcos(T a) { return T(cosf(a)); }                                                     \
  inline T hceil(T a) { return T(ceilf(a)); }                                                   \
  inline T hfloor(T a) { return T(floorf(a)); }                                                 \
  inline T hrint(T a) { return T(rintf(a)); }                                                   \
  inline T htrunc(T a) { return T(truncf(a)); }
EMULATED_NARROW(half)
EMULATED_NARROW(nv_bfloat16)
#define EMULATED_PAIRS(P)                                                                                 \
  inline P __hadd2(P a, P b) { return {a.x + b.x, a.y + b.y}; }                                           \
  inline P __hsub2(P a, P b) { return {a.x - b.x, a.y - b.y}; }                                           \
  inline P __hmul2(P a, P b) { return {a.x * b.x, a.y * b.y}; }                                           \
  inline P __hfma2(P a, P b, P c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }              \
  inline P __hmax2(P a, P b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                             \
  inline P __hmin2(P a, P b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }
EMULATED_PAIRS(half2)
EMULATED_PAIRS(nv_bfloat162)
