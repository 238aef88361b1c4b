/* device_language.hpp: the words of CUDA C++ that kernels use beside C++'s own, for one host thread. */
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
/* Of the block that runs. `extern __shared__` is rewritten before the compiler sees it. */
#define __shared__ static __attribute__((section("nncc_shared")))
#define __align__(n) __attribute__((aligned(n)))
#define alignas(n) __attribute__((aligned(n))) /* which, other than alignas, may follow __shared__ */

#define __syncthreads() emulator::barrier(__LINE__)
#define __syncwarp(...) emulator::sync_warp(__LINE__, ##__VA_ARGS__)
#define __activemask() emulator::active_mask(__LINE__)
#define __shfl_sync(...) emulator::shuffle(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) emulator::shuffle_up(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) emulator::shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) emulator::shuffle_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, predicate) emulator::ballot(__LINE__, mask, predicate)
#define __any_sync(mask, predicate) (emulator::ballot(__LINE__, mask, predicate) != 0)
#define __all_sync(mask, predicate) (emulator::ballot(__LINE__, mask, !(predicate)) == 0)
#define __threadfence()
#define __threadfence_block()
#define __trap() abort()

/* ---- vectors ---- */

#define EMULATED_VECTORS(T, name, a1, a2, a3, a4)                                          \
  struct alignas(a1) name##1 { T x; };                                                     \
  struct alignas(a2) name##2 { T x, y; };                                                  \
  struct alignas(a3) name##3 { T x, y, z; };                                               \
  struct alignas(a4) name##4 { T x, y, z, w; };                                            \
  inline name##1 make_##name##1(T x) { return {x}; }                                       \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                               \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                       \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATED_VECTORS(signed char, char, 1, 2, 1, 4)
EMULATED_VECTORS(unsigned char, uchar, 1, 2, 1, 4)
EMULATED_VECTORS(short, short, 2, 4, 2, 8)
EMULATED_VECTORS(unsigned short, ushort, 2, 4, 2, 8)
EMULATED_VECTORS(int, int, 4, 8, 4, 16)
EMULATED_VECTORS(long, long, 8, 16, 8, 16)
EMULATED_VECTORS(unsigned long, ulong, 8, 16, 8, 16)
EMULATED_VECTORS(long long, longlong, 8, 16, 8, 16)
EMULATED_VECTORS(unsigned long long, ulonglong, 8, 16, 8, 16)
EMULATED_VECTORS(float, float, 4, 8, 4, 16)
EMULATED_VECTORS(double, double, 8, 16, 8, 16)
struct alignas(4) uint1 { unsigned x; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint1 make_uint1(unsigned x) { return {x}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

/* ---- arithmetic ---- */

template <class To, class From>
inline To emulated_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "");
  To bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline int __float_as_int(float v) { return emulated_bits<int>(v); }
inline unsigned __float_as_uint(float v) { return emulated_bits<unsigned>(v); }
inline float __int_as_float(int v) { return emulated_bits<float>(v); }
inline float __uint_as_float(unsigned v) { return emulated_bits<float>(v); }
inline long long __double_as_longlong(double v) { return emulated_bits<long long>(v); }
inline double __longlong_as_double(long long v) { return emulated_bits<double>(v); }

#define EMULATED_EXTREMES(T)                            \
  inline T max(T a, T b) { return a > b ? a : b; }      \
  inline T min(T a, T b) { return a < b ? a : b; }
EMULATED_EXTREMES(int)
EMULATED_EXTREMES(unsigned)
EMULATED_EXTREMES(long)
EMULATED_EXTREMES(unsigned long)
EMULATED_EXTREMES(long long)
EMULATED_EXTREMES(unsigned long long)
/* As CUDA's: of a NaN and a number, the number. */
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }

/* libm declares some of these names for itself: macros go before its declarations. */
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
inline float __tanhf_approx(float x) { return tanhf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
inline float __saturatef(float a) { return a > 0.0f ? fminf(a, 1.0f) : 0.0f; }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline float normcdff(float a) { return 0.5f * erfcf(-a * 0.70710678f); }

/* Conversions to integers saturate, and take a NaN for 0. */
template <class To, class From>
inline To emulated_saturate(From value) {
  constexpr bool is_signed = std::is_signed<To>::value;
  const int bits = 8 * (int)sizeof(To) - is_signed;
  const From end = (From)std::ldexp(1.0, bits), start = is_signed ? -end : (From)0;
  if (value != value) return 0;
  if (value >= end) return (To)(is_signed ? ((1ull << bits) - 1) : ~0ull);
  return value <= start ? (To)(is_signed ? (To)1 << bits : 0) : (To)value;
}
inline int __float2int_rn(float v) { return emulated_saturate<int>(rintf(v)); }
inline int __float2int_rz(float v) { return emulated_saturate<int>(truncf(v)); }
inline int __float2int_rd(float v) { return emulated_saturate<int>(floorf(v)); }
inline int __float2int_ru(float v) { return emulated_saturate<int>(ceilf(v)); }
inline unsigned __float2uint_rn(float v) { return emulated_saturate<unsigned>(rintf(v)); }
inline unsigned __float2uint_rz(float v) { return emulated_saturate<unsigned>(truncf(v)); }
inline long long __float2ll_rn(float v) { return emulated_saturate<long long>(rintf(v)); }
inline int __double2int_rn(double v) { return emulated_saturate<int>(rint(v)); }
inline float __int2float_rn(int v) { return (float)v; }
inline float __uint2float_rn(unsigned v) { return (float)v; }

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __mul24(int a, int b) { return (int)((unsigned)(a << 8 >> 8) * (unsigned)(b << 8 >> 8)); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const unsigned long long both = (unsigned long long)b << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = selector >> 4 * i & 15, byte = (unsigned)(both >> 8 * (choice & 7)) & 255;
    result |= (choice & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return result;
}

/* Sums of four products of bytes. */
template <class A, class B, class C>
inline C emulated_dp4a(unsigned a, unsigned b, C c) {
  for (int i = 0; i < 4; ++i) c = (C)((unsigned)c + (unsigned)((int)(A)(a >> 8 * i) * (int)(B)(b >> 8 * i)));
  return c;
}
inline int __dp4a(int a, int b, int c) { return emulated_dp4a<signed char, signed char>((unsigned)a, (unsigned)b, c); }
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  return emulated_dp4a<unsigned char, unsigned char>(a, b, c);
}

/* ---- memory ---- */

template <class T>
inline T __ldg(const T* place) { return *place; }
template <class T>
inline T __ldcg(const T* place) { return *place; }
template <class T>
inline T __ldcs(const T* place) { return *place; }
template <class T>
inline void __stcs(T* place, T value) { *place = value; }

/* No thread runs at the same time as another. */
template <class T, class V>
inline T atomicAdd(T* place, V value) {
  const T before = *place;
  *place = (T)(before + (T)value);
  return before;
}
template <class T, class V>
inline T atomicMax(T* place, V value) {
  const T before = *place;
  if (before < (T)value) *place = (T)value;
  return before;
}
template <class T, class V>
inline T atomicMin(T* place, V value) {
  const T before = *place;
  if ((T)value < before) *place = (T)value;
  return before;
}
template <class T, class V>
inline T atomicExch(T* place, V value) {
  const T before = *place;
  *place = (T)value;
  return before;
}
template <class T, class U, class V>
inline T atomicCAS(T* place, U expected, V value) {
  const T before = *place;
  if (before == (T)expected) *place = (T)value;
  return before;
}
inline size_t __cvta_generic_to_shared(const void* place) { return reinterpret_cast<size_t>(place); }
