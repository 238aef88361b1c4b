/* Products on tensor cores of what is stored in 8 or 16 bits, 16 bytes of the depth at once: a unit.
 *
 * A kind of number says how it is multiplied: Bytes<SIGNED>, activations of 8 bits by weights of int8, into int32; Half
 * and Bfloat, into float32. The fragments of all of them have the same bytes in the same lanes (PTX ISA, "Matrix
 * Fragments for mma.m16n8k32", "m16n8k16"), so all is written once. */
namespace nncc {

/* float32 from and to the two 16-bit formats, to nearest, ties to even. */
NNCC_DEVICE float from_half(unsigned short bits) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#else
  unsigned sign = (unsigned)(bits & 0x8000) << 16, size = bits & 0x7fff;
  if (size >= 0x7c00) return __uint_as_float(sign | 0x7f800000u | (size & 0x3ff) << 13);
  if (size < 0x400) return __uint_as_float(sign | __float_as_uint((float)size * 5.9604644775390625e-8f)); /* 2^-24 */
  return __uint_as_float(sign | ((size << 13) + 0x38000000u));
#endif
}

NNCC_DEVICE unsigned short to_half(float value) {
#if defined(__CUDA_ARCH__)
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7fff;
  if (size >= 0x47800000u) return (unsigned short)(sign | 0x7c00u);
  if (size < 0x38800000u) /* the sum is rounded to multiples of 2^-24 */
    return (unsigned short)(sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u));
  return (unsigned short)(sign | ((size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13));
#endif
}

NNCC_DEVICE float from_bfloat(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

NNCC_DEVICE unsigned short to_bfloat(float value) {
  unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace nncc

/* float16 and bfloat16 as TVM's code writes them, without CUDA's headers, which NVRTC may lack. */
struct half {
  unsigned short bits;
  half() = default;
  NNCC_DEVICE explicit half(float value) : bits(nncc::to_half(value)) {}
  NNCC_DEVICE operator float() const { return nncc::from_half(bits); }
};
NNCC_DEVICE half __float2half_rn(float value) { return half(value); }
struct alignas(4) half2 {
  half x, y;
};
struct alignas(8) half4 {
  half x, y, z, w;
};
struct nv_bfloat16 {
  unsigned short bits;
  nv_bfloat16() = default;
  NNCC_DEVICE explicit nv_bfloat16(float value) : bits(nncc::to_bfloat(value)) {}
  NNCC_DEVICE operator float() const { return nncc::from_bfloat(bits); }
};
NNCC_DEVICE nv_bfloat16 __float2bfloat16_rn(float value) { return nv_bfloat16(value); }
struct alignas(4) nv_bfloat162 {
  nv_bfloat16 x, y;
};
struct alignas(8) nv_bfloat164 {
  nv_bfloat16 x, y, z, w;
};

namespace nncc {

/* sums[16 x 8] += a[16 x 2 units] b[2 units x 8] of a warp: of a thread's sums, `low` lie in row lane / 4, `high` in that
 * + 8, in columns 2 (lane % 4) and one more. */
template <bool SIGNED>
struct Bytes {
  typedef int Sum;
  typedef unsigned Four; /* four of them */
  static constexpr int EACH = 16;
  NNCC_DEVICE static int of_four(unsigned four, int i) {
    return SIGNED ? (int)(signed char)(four >> 8 * i) : (int)(four >> 8 * i & 255u);
  }
  NNCC_DEVICE static int weight_of_four(unsigned four, int i) { return (int)(signed char)(four >> 8 * i); }
  NNCC_DEVICE static void add(int& sum, int a, int b) { sum += a * b; }
  NNCC_DEVICE static void dot(int& sum, unsigned a, unsigned b) { /* of one lane's share of a unit */
    for (int i = 0; i < 4; ++i) sum += of_four(a, i) * weight_of_four(b, i);
  }
#ifdef __CUDACC__
  NNCC_DEVICE static void mma(int* low, int* high, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
    if (SIGNED)
      asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                   : "+r"(low[0]), "+r"(low[1]), "+r"(high[0]), "+r"(high[1])
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
      asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                   : "+r"(low[0]), "+r"(low[1]), "+r"(high[0]), "+r"(high[1])
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
    for (int k = 0; k < 2; ++k) eight(low, a[2 * k], b[k]), eight(high, a[2 * k + 1], b[k]);
#endif
  }
  NNCC_DEVICE static void eight(int* sums, unsigned a, unsigned b) {
    if (SIGNED)
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                   : "+r"(sums[0]), "+r"(sums[1]) : "r"(a), "r"(b));
    else
      asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                   : "+r"(sums[0]), "+r"(sums[1]) : "r"(a), "r"(b));
  }
#endif
};

/* Numbers of 16 bits, D: eight to a unit, summed as float32. */
template <class D>
struct Sixteen {
  typedef float Sum;
  typedef uint2 Four;
  static constexpr int EACH = 8;
  NNCC_DEVICE static float of_four(uint2 four, int i) {
    return D::value((unsigned short)((i < 2 ? four.x : four.y) >> 16 * (i & 1)));
  }
  NNCC_DEVICE static float weight_of_four(uint2 four, int i) { return of_four(four, i); }
  NNCC_DEVICE static void add(float& sum, float a, float b) { sum = fmaf(a, b, sum); }
  NNCC_DEVICE static void dot(float& sum, unsigned a, unsigned b) {
    for (int i = 0; i < 2; ++i) add(sum, D::value((unsigned short)(a >> 16 * i)), D::value((unsigned short)(b >> 16 * i)));
  }
};

struct Half : Sixteen<Half> {
  NNCC_DEVICE static float value(unsigned short bits) { return from_half(bits); }
#ifdef __CUDACC__
  NNCC_DEVICE static void mma(float* low, float* high, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(low[0]), "+f"(low[1]), "+f"(high[0]), "+f"(high[1])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
    for (int k = 0; k < 2; ++k)
      asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                   : "+f"(low[0]), "+f"(low[1]), "+f"(high[0]), "+f"(high[1])
                   : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
  }
#endif
};

struct Bfloat : Sixteen<Bfloat> {
  NNCC_DEVICE static float value(unsigned short bits) { return from_bfloat(bits); }
#ifdef __CUDACC__
  NNCC_DEVICE static void mma(float* low, float* high, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(low[0]), "+f"(low[1]), "+f"(high[0]), "+f"(high[1])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
  }
#endif
};

/* Four registers of a lane: word lane % 4 of row lane / 4 of each of four matrices of 8 units, whose unit l % 8 of matrix
 * l / 8 lies at at(l). */
template <class F>
NNCC_DEVICE void load_matrices(unsigned* words, const F& at) {
  int lane = (int)threadIdx.x % 32;
#if defined(__CUDA_ARCH__)
  unsigned from = (unsigned)__cvta_generic_to_shared(at(lane));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(from) : "memory");
#else
  for (int m = 0; m < 4; ++m) words[m] = ((const unsigned*)at(m * 8 + lane / 4))[lane % 4];
#endif
}

/* A tile of M x N outputs of numbers D from slabs of K units, STAGES of them in flight, by warps that have WM x WN each.
 *
 * A thread's sums of a row are those of WN / 4 columns side by side: column 2 q + i of fragment j stands for column
 * q (WN / 4) + 2 j + i of the warp. */
template <class D_, int M_, int N_, int K_, int WM_, int WN_, int STAGES_>
struct UnitTile {
  typedef D_ D;
  static constexpr int M = M_, N = N_, K = K_, WM = WM_, WN = WN_, STAGES = STAGES_;
  static constexpr int ACROSS = N / WN, THREADS = M / WM * ACROSS * 32, DOWN = WM / 16, ALONG = WN / 8;
  static constexpr int LEFT = M + 8 / K, RIGHT = N; /* units: of a row's K, two rows are in different banks */
  static constexpr int SHARED = STAGES * K * (LEFT + RIGHT);
  static_assert(K % 2 == 0 && ALONG % 2 == 0 && WM % 16 == 0, "parts of a tile");
  /* Where the unit of a column lies; eight of one fragment, and eight side by side, are in different banks. */
  NNCC_DEVICE static int slot(int column) {
    int inside = column % WN, lane = inside / (2 * ALONG), j = inside % (2 * ALONG) / 2;
    return column - inside + j * 8 + ((lane * 2 + inside % 2) ^ (2 * j & 6));
  }
};

/* What a warp has, times what a warp has: all fragments of two units. */
template <class T>
NNCC_DEVICE void multiply(typename T::D::Sum* sums, const unsigned (*a)[4], const unsigned (*b)[2]) {
#ifdef __CUDACC__
#pragma unroll
  for (int i = 0; i < T::DOWN; ++i)
#pragma unroll
    for (int j = 0; j < T::ALONG; ++j)
      T::D::mma(sums + (2 * i * T::ALONG + j) * 2, sums + ((2 * i + 1) * T::ALONG + j) * 2, a[i], b[j]);
#else
  __shared__ unsigned fragments[32][32][T::DOWN * 4 + T::ALONG * 2];
  unsigned(*warp)[T::DOWN * 4 + T::ALONG * 2] = fragments[threadIdx.x / 32];
  int lane = (int)threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
  for (int i = 0; i < T::DOWN * 4; ++i) warp[lane][i] = a[i / 4][i % 4];
  for (int j = 0; j < T::ALONG * 2; ++j) warp[lane][T::DOWN * 4 + j] = b[j / 2][j % 2];
  __syncwarp(0xffffffffu);
  for (int i = 0; i < T::DOWN * 2; ++i)
    for (int j = 0; j < T::ALONG; ++j)
      for (int e = 0; e < 2; ++e)
        for (int word = 0; word < 8; ++word)
          T::D::dot(sums[(i * T::ALONG + j) * 2 + e], warp[row * 4 + word % 4][i / 2 * 4 + i % 2 + word / 4 * 2],
                    warp[(column + e) * 4 + word % 4][T::DOWN * 4 + j * 2 + word / 4]);
  __syncwarp(0xffffffffu);
#endif
}

template <class T>
struct UnitProducts {
  typename T::D::Sum* sums;
  NNCC_DEVICE void operator()(const uint4* left, const uint4* right) const {
    const int warp = (int)threadIdx.x / 32;
    const uint4* rows = left + warp / T::ACROSS * T::WM;
    const uint4* columns = right + warp % T::ACROSS * T::WN;
#pragma unroll
    for (int k = 0; k < T::K; k += 2) {
      unsigned a[T::DOWN][4], b[T::ALONG][2];
#pragma unroll
      for (int i = 0; i < T::DOWN; ++i)
        load_matrices(a[i], [&](int l) { return rows + (k + l / 16) * T::LEFT + i * 16 + l % 16; });
#pragma unroll
      for (int j = 0; j < T::ALONG; j += 2)
        load_matrices(b[j], [&](int l) {
          return columns + (k + l / 8 % 2) * T::RIGHT + (j + l / 16) * 8 + (l % 8 ^ (2 * (j + l / 16) & 6));
        });
      multiply<T>(sums, a, b);
    }
  }
  template <class L, class R>
  NNCC_DEVICE static void all(void* to, const L& left, const R& right, int begin, int end) {
    __shared__ uint4 shared[T::SHARED];
    typename T::D::Sum* sums = (typename T::D::Sum*)to;
#pragma unroll
    for (int i = 0; i < T::DOWN * T::ALONG * 4; ++i) sums[i] = 0;
    over_slabs<T>(shared, left, right, begin, end, UnitProducts{sums});
  }
};

NNCC_DEVICE void copy_unit(uint4* shared, const uint4* global, bool inside) {
  copy_async<16>((float*)shared, (const float*)global, inside);
}

/* Left-hand side: a matrix [ROWS, DEPTH] of numbers, row-major; beyond its depth, zeros. */
template <class T, int ROWS, int DEPTH>
struct UnitRows {
  static constexpr int SIZE = 16 / T::D::EACH; /* bytes of a number */
  const char* from;
  int first;
  NNCC_DEVICE UnitRows(const void* matrix, int first) : from((const char*)matrix), first(first) {}
  NNCC_DEVICE void load(uint4* shared, int k, int end) const {
    constexpr int UNITS = T::K * T::M;
#pragma unroll 4
    for (int u = 0; u < UNITS; u += T::THREADS) {
      int unit = u + (int)threadIdx.x, row = unit / T::K, column = unit % T::K, at = (k + column) * T::D::EACH;
      if (UNITS % T::THREADS != 0 && unit >= UNITS) break;
      bool inside = k + column < end && first + row < ROWS;
      const char* source = from + ((long long)(first + row) * DEPTH + at) * SIZE;
      uint4* target = shared + column * T::LEFT + row;
      if (DEPTH % T::D::EACH == 0) {
        copy_unit(target, (const uint4*)source, inside);
      } else {
        unsigned words[4] = {0, 0, 0, 0};
#pragma unroll
        for (int e = 0; e < T::D::EACH; ++e)
          if (inside && at + e < DEPTH) {
            unsigned bits = SIZE == 1 ? ((const unsigned char*)source)[e] : ((const unsigned short*)source)[e];
            words[e * SIZE / 4] |= bits << (e * SIZE % 4 * 8);
          }
        *target = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
};

/* Left-hand side: what places see of images [N, C, H, W] of units, a place a row; FILL is in all bytes outside. A thread
 * copies for the same places in all slices. */
template <class T, class V, int FILL>
struct UnitPatches {
  static_assert(T::THREADS % T::M == 0 || T::M % T::THREADS == 0, "rows of a thread");
  static constexpr int PLACES = T::M > T::THREADS ? T::M / T::THREADS : 1;
  static constexpr int TOGETHER = T::THREADS > T::M ? T::THREADS / T::M : 1; /* units that all threads copy at once */
  const uint4* from;
  int at[PLACES], top[PLACES], left[PLACES];
  NNCC_DEVICE UnitPatches(const void* images, int first) : from((const uint4*)images) {
#pragma unroll
    for (int i = 0; i < PLACES; ++i) {
      int p = first + row(i), n = p / (V::OH * V::OW), place = p % (V::OH * V::OW);
      top[i] = place / V::OW * V::SH - V::PT;
      left[i] = place % V::OW * V::SW - V::PL;
      at[i] = (n * V::ALL * V::H + top[i]) * V::W + left[i];
      if (p >= V::PIXELS) top[i] = -(1 << 20); /* inside of no image, whatever the window */
    }
  }
  NNCC_DEVICE static int row(int i) { return ((int)threadIdx.x + i * T::THREADS) % T::M; }
  NNCC_DEVICE void load(uint4* shared, int k, int end) const {
    int unit = PLACES > 1 ? 0 : (int)threadIdx.x / T::M;
#pragma unroll
    for (int i = 0; i < PLACES; ++i) {
#pragma unroll
      for (int r = 0; r < T::K; r += TOGETHER) {
        if (T::K % TOGETHER != 0 && r + unit >= T::K) break;
        /* The slab lies in one element of the window where it divides the units of that. */
        int depth = k + r + unit, tap = V::C % T::K == 0 ? k / V::C : depth / V::C, channel = depth - tap * V::C;
        int y = tap / V::KW * V::DH, x = tap % V::KW * V::DW;
        bool inside = (unsigned)(top[i] + y) < (unsigned)V::H && (unsigned)(left[i] + x) < (unsigned)V::W && depth < end;
        const uint4* source = from + at[i] + (channel * V::H + y) * V::W + x;
        uint4* target = shared + (r + unit) * T::LEFT + row(i);
        if (FILL == 0) {
          copy_unit(target, source, inside);
        } else {
          constexpr unsigned four = (FILL & 255) * 0x01010101u;
          if (inside)
            copy_unit(target, source, true);
          else
            *target = make_uint4(four, four, four, four);
        }
      }
    }
  }
};

/* Right-hand side: weights [depth, STRIDE] of units. */
template <class T, int STRIDE>
struct UnitColumns {
  const uint4* from;
  int first;
  NNCC_DEVICE UnitColumns(const void* weights, int first) : from((const uint4*)weights), first(first) {}
  NNCC_DEVICE void load(uint4* shared, int k, int end) const {
    constexpr int UNITS = T::K * T::N;
#pragma unroll 4
    for (int u = 0; u < UNITS; u += T::THREADS) {
      int unit = u + (int)threadIdx.x, row = unit / T::N, column = unit % T::N;
      if (UNITS % T::THREADS != 0 && unit >= UNITS) break;
      bool inside = k + row < end && first + column < STRIDE;
      copy_unit(shared + row * T::RIGHT + T::slot(column), from + (k + row) * STRIDE + first + column, inside);
    }
  }
};

/* Right-hand side: a matrix of bytes [DEPTH, COLUMNS], or where it is TRANSPOSED [COLUMNS, DEPTH], row-major; units run
 * along its depth, and beyond that are zeros. */
template <class T, int DEPTH, int COLUMNS, bool TRANSPOSED>
struct UnitFactors {
  static_assert(T::D::EACH == 16, "a number is a byte");
  const char* from;
  int first;
  NNCC_DEVICE UnitFactors(const void* matrix, int first) : from((const char*)matrix), first(first) {}
  NNCC_DEVICE void load(uint4* shared, int k, int end) const {
    constexpr int UNITS = T::K * T::N;
#pragma unroll 4
    for (int u = 0; u < UNITS; u += T::THREADS) {
      int unit = u + (int)threadIdx.x; /* neighbours read what lies side by side */
      int row = TRANSPOSED ? unit % T::K : unit / T::N, column = TRANSPOSED ? unit / T::K : unit % T::N;
      if (UNITS % T::THREADS != 0 && unit >= UNITS) break;
      bool inside = k + row < end && first + column < COLUMNS;
      int at = (k + row) * 16;
      const char* source = from + (TRANSPOSED ? (long long)(first + column) * DEPTH + at : (long long)at * COLUMNS + first + column);
      uint4* target = shared + row * T::RIGHT + T::slot(column);
      if (TRANSPOSED && DEPTH % 16 == 0) {
        copy_unit(target, (const uint4*)source, inside);
      } else {
        unsigned words[4] = {0, 0, 0, 0};
#pragma unroll
        for (int e = 0; e < 16; ++e)
          if (inside && at + e < DEPTH)
            words[e / 4] |= (unsigned)((const unsigned char*)source)[TRANSPOSED ? e : e * COLUMNS] << e % 4 * 8;
        *target = make_uint4(words[0], words[1], words[2], words[3]);
      }
    }
  }
};

/* A tile of a convolution of blocked images, [N, C, H, W] of units, with weights [groups, DEPTH, OUT]; PART units a part. */
template <class T, class V, int OUT, int PART, int FILL>
NNCC_DEVICE void unit_conv2d(void* sums, const void* images, const void* weights, int pixels, int channels, int part) {
  int begin = part * PART, end = begin + PART < V::DEPTH ? begin + PART : V::DEPTH;
  constexpr int TILES = (OUT + T::N - 1) / T::N;
  int group = channels / TILES;
  UnitPatches<T, V, FILL> left((const uint4*)images + group * (V::C * V::H * V::W), pixels * T::M);
  UnitColumns<T, OUT> right((const uint4*)weights + group * (V::DEPTH * OUT), channels % TILES * T::N);
  UnitProducts<T>::all(sums, left, right, begin, end);
}

/* A tile of the product of x [ROWS, DEPTH] and weights [DEPTH in units, STRIDE]; PART units a part. */
template <class T, int ROWS, int DEPTH, int STRIDE, int PART>
NNCC_DEVICE void unit_matmul(void* sums, const void* x, const void* weights, int rows, int columns, int part) {
  constexpr int ALL = (DEPTH + T::D::EACH - 1) / T::D::EACH;
  int begin = part * PART, end = begin + PART < ALL ? begin + PART : ALL;
  UnitRows<T, ROWS, DEPTH> left(x, rows * T::M);
  UnitColumns<T, STRIDE> right(weights, columns * T::N);
  UnitProducts<T>::all(sums, left, right, begin, end);
}

/* A tile of one of several products of x [ROWS, DEPTH] and a matrix as of UnitFactors, of which all have the same where it
 * is SHARED; PART units a part of PARTS. `z` counts products, and parts innermost. */
template <class T, int ROWS, int DEPTH, int COLUMNS, bool TRANSPOSED, bool SHARED, int PARTS, int PART>
NNCC_DEVICE void unit_product(void* sums, const void* x, const void* other, int rows, int columns, int z) {
  constexpr int ALL = (DEPTH + 15) / 16;
  int batch = z / PARTS, begin = z % PARTS * PART, end = begin + PART < ALL ? begin + PART : ALL;
  UnitRows<T, ROWS, DEPTH> left((const char*)x + (long long)batch * (ROWS * DEPTH), rows * T::M);
  long long matrix = SHARED ? 0 : (long long)batch * (DEPTH * COLUMNS);
  UnitFactors<T, DEPTH, COLUMNS, TRANSPOSED> right((const char*)other + matrix, columns * T::N);
  UnitProducts<T>::all(sums, left, right, begin, end);
}

/* TW places of a depthwise convolution of four channels: number `four` of images [N, C, H, W] of units, as OH x OW
 * places and weights [C, KH KW] of units see them; `plane` counts N and C. */
template <class D, class V, int TW, int FILL>
NNCC_DEVICE void unit_depthwise(void* to, const void* images, const void* weights, int plane, int row, int column, int four) {
  typedef typename D::Four Four;
  typedef typename D::Sum Number;
  constexpr int SPAN = (TW - 1) * V::SW + (V::KW - 1) * V::DW + 1, FOURS = D::EACH / 4;
  Number* sums = (Number*)to;
  const Four* image = (const Four*)images + (long long)plane * (V::H * V::W * FOURS) + four;
  const Four* window = (const Four*)weights + plane % V::C * (V::KH * V::KW * FOURS) + four;
  int top = row * V::SH - V::PT, left = column * (TW * V::SW) - V::PL;
#pragma unroll
  for (int i = 0; i < TW * 4; ++i) sums[i] = 0;
#pragma unroll
  for (int kh = 0; kh < V::KH; ++kh) {
    Number values[SPAN][4];
    int y = top + kh * V::DH;
#pragma unroll
    for (int x = 0; x < SPAN; ++x) {
      bool inside = (unsigned)y < (unsigned)V::H && (unsigned)(left + x) < (unsigned)V::W;
      Four read = image[inside ? (y * V::W + left + x) * FOURS : 0];
#pragma unroll
      for (int i = 0; i < 4; ++i) values[x][i] = inside ? D::of_four(read, i) : (Number)FILL;
    }
#pragma unroll
    for (int kw = 0; kw < V::KW; ++kw) {
      Four factors = window[(kh * V::KW + kw) * FOURS];
#pragma unroll
      for (int j = 0; j < TW; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) D::add(sums[j * 4 + i], values[j * V::SW + kw * V::DW][i], D::weight_of_four(factors, i));
    }
  }
}

}  // namespace nncc
