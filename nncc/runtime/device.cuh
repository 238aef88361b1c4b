/* What device kernels are made of, in front of the code that TVM writes.
 *
 * All sizes are template arguments: a kernel is one instance. Where CUDA's compiler reads this, copies to shared memory
 * are asynchronous from sm_80 on and products may use tensor cores; any other C++ compiler (the tests' emulator, which
 * defines __device__, __shared__, threadIdx and so on) gets the same functions as plain code.
 */
/* The words that TVM's code uses, which NVRTC does not have. */
typedef unsigned int uint;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;

#define NNCC_DEVICE __device__ __forceinline__

namespace nncc {

/* Copies of 4 or 16 bytes into shared memory, finished for the thread behind copies_wait. Where not `inside`, zeros: the
 * address may be anything (cp.async with a source of 0 bytes reads nothing). */
template <int BYTES>
NNCC_DEVICE void copy_async(float* shared, const float* global, bool inside) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned to = (unsigned)__cvta_generic_to_shared(shared);
  int bytes = inside ? BYTES : 0;
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
#else
  if (BYTES == 16)
    *(float4*)shared = inside ? *(const float4*)global : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  else
    *shared = inside ? *global : 0.0f;
#endif
}

NNCC_DEVICE void copies_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* All groups of copies but the last LEFT are in shared memory, as far as this thread made them. */
template <int LEFT>
NNCC_DEVICE void copies_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#endif
}

/* A tile of a product: M x N outputs from slabs of K, `STAGES` of them in flight, by groups of threads that have TM x TN
 * sums each. Of each slab, each of the SLICES groups takes its part; in the end a thread has 1 / SLICES of its rows.
 *
 * A thread's rows, and columns, come in runs of 4 that lie M / (TM / 4) apart, so that a warp reads shared memory in
 * whole lines. */
template <int M_, int N_, int K_, int TM_, int TN_, int STAGES_, int SLICES_>
struct Tile {
  static constexpr int M = M_, N = N_, K = K_, TM = TM_, TN = TN_, STAGES = STAGES_, SLICES = SLICES_;
  static constexpr int ROWS = M / TM, COLUMNS = N / TN, GROUP = ROWS * COLUMNS, THREADS = GROUP * SLICES;
  static constexpr int LEFT = M + 4, RIGHT = N + 4; /* floats from one row of a slab to the next */
  static constexpr int SLABS = STAGES * K * (LEFT + RIGHT), SUMS = SLICES > 1 ? THREADS * TM * TN : 0;
  static constexpr int SHARED = SLABS > SUMS ? SLABS : SUMS;
  static_assert(K % SLICES == 0 && TM % SLICES == 0 && TN % 4 == 0 && TM % 4 == 0, "parts of a tile");
};

/* Left-hand side of a product: a matrix [depth, STRIDE] whose columns are the rows of the product. */
template <class T, int STRIDE>
struct Columns {
  const float* from;
  int first;
  NNCC_DEVICE Columns(const float* matrix, int first) : from(matrix), first(first) {}
  NNCC_DEVICE void load(float* shared, int k, int end) const {
    constexpr int UNITS = T::K * T::M / 4;
#pragma unroll 8
    for (int u = 0; u < UNITS; u += T::THREADS) {
      int unit = u + (int)threadIdx.x, row = unit / (T::M / 4), column = unit % (T::M / 4) * 4;
      if (UNITS % T::THREADS != 0 && unit >= UNITS) break;
      bool inside = k + row < end && first + column < STRIDE;
      copy_async<16>(shared + row * T::LEFT + column, from + (k + row) * STRIDE + first + column, inside);
    }
  }
};

/* Left-hand side: a matrix [ROWS, STRIDE], row-major. */
template <class T, int ROWS, int STRIDE>
struct Rows {
  const float* from;
  int first;
  NNCC_DEVICE Rows(const float* matrix, int first) : from(matrix), first(first) {}
  NNCC_DEVICE void load(float* shared, int k, int end) const {
    constexpr int UNITS = T::K * T::M;
#pragma unroll 8
    for (int u = 0; u < UNITS; u += T::THREADS) {
      int unit = u + (int)threadIdx.x, row = unit / T::K, column = unit % T::K;
      if (UNITS % T::THREADS != 0 && unit >= UNITS) break;
      bool inside = k + column < end && first + row < ROWS;
      copy_async<4>(shared + column * T::LEFT + row, from + (first + row) * STRIDE + k + column, inside);
    }
  }
};

/* Right-hand side: a matrix [depth, COLUMNS], row-major. */
template <class T, int COLUMNS>
struct Matrix {
  const float* from;
  int first;
  NNCC_DEVICE Matrix(const float* matrix, int first) : from(matrix), first(first) {}
  NNCC_DEVICE void load(float* shared, int k, int end) const {
    constexpr int EACH = COLUMNS % 4 == 0 ? 4 : 1, ACROSS = T::N / EACH, UNITS = T::K * ACROSS;
#pragma unroll 8
    for (int u = 0; u < UNITS; u += T::THREADS) {
      int unit = u + (int)threadIdx.x, row = unit / ACROSS, column = unit % ACROSS * EACH;
      if (UNITS % T::THREADS != 0 && unit >= UNITS) break;
      bool inside = k + row < end && first + column < COLUMNS;
      copy_async<4 * EACH>(shared + row * T::RIGHT + column, from + (k + row) * COLUMNS + first + column, inside);
    }
  }
};

/* Right-hand side: codes [DEPTH, COLUMNS] that become floats on their way to shared memory: a byte of int8 each, or of
 * BITS == 4 two rows' in a byte, the even row's lower. With TABLES, a code is multiplied by a scale, with two of them an
 * offset is added then: [DEPTH / GROUP, COLUMNS]. */
template <class T, int COLUMNS, int BITS, int GROUP, int TABLES>
struct Codes {
  const unsigned char* from;
  const float *scales, *offsets;
  int first;
  NNCC_DEVICE Codes(const void* codes, const float* scales, const float* offsets, int first)
      : from((const unsigned char*)codes), scales(scales), offsets(offsets), first(first) {}
  NNCC_DEVICE static float decoded(unsigned byte, int row) {
    return BITS == 8 ? (float)(signed char)byte : (float)(byte >> row % 2 * 4 & 15u);
  }
  NNCC_DEVICE void load(float* shared, int k, int end) const {
    constexpr int EACH = COLUMNS % 4 == 0 ? 4 : 1, ACROSS = T::N / EACH, UNITS = T::K * ACROSS;
#pragma unroll 8
    for (int u = 0; u < UNITS; u += T::THREADS) {
      int unit = u + (int)threadIdx.x, row = k + unit / ACROSS, column = first + unit % ACROSS * EACH;
      if (UNITS % T::THREADS != 0 && unit >= UNITS) break;
      float values[EACH];
      const unsigned char* codes = from + row / (8 / BITS) * COLUMNS + column;
      const int table = row / GROUP * COLUMNS + column;
      const bool inside = row < end && column < COLUMNS;
      const unsigned bytes = !inside ? 0 : EACH == 4 ? *(const unsigned*)codes : *codes;
#pragma unroll
      for (int i = 0; i < EACH; ++i) {
        values[i] = inside ? decoded(bytes >> 8 * i & 255u, row) : 0.0f;
        if (TABLES > 0 && inside) values[i] *= scales[table + i];
        if (TABLES > 1 && inside) values[i] += offsets[table + i];
      }
      float* to = shared + unit / ACROSS * T::RIGHT + unit % ACROSS * EACH;
      if (EACH == 4)
        *(float4*)to = make_float4(values[0], values[1 % EACH], values[2 % EACH], values[3 % EACH]);
      else
        *to = values[0];
    }
  }
};

/* Images [N, ALL, H, W] under a window of KH x KW that C of the channels are seen through; OH x OW places. */
template <int N_, int ALL_, int C_, int H_, int W_, int OH_, int OW_, int KH_, int KW_, int SH_, int SW_, int PT_,
          int PL_, int DH_, int DW_>
struct Window {
  static constexpr int N = N_, ALL = ALL_, C = C_, H = H_, W = W_, OH = OH_, OW = OW_, KH = KH_, KW = KW_;
  static constexpr int SH = SH_, SW = SW_, PT = PT_, PL = PL_, DH = DH_, DW = DW_;
  static constexpr int PIXELS = N * OH * OW, DEPTH = KH * KW * C;
  /* Each place sees its own pixel only, and four of them lie together. */
  static constexpr bool PLAIN = KH * KW * SH * SW == 1 && PT == 0 && PL == 0 && OH == H && OW == W && H * W % 4 == 0;
};

/* Right-hand side: what the places see, [KH * KW * C, N * OH * OW], gathered from the images (implicit GEMM). A thread
 * copies for the same places in all slices. */
template <class T, class V>
struct Patches {
  static constexpr int EACH = V::PLAIN ? 4 : 1, ACROSS = T::N / EACH, UNITS = T::K * ACROSS;
  static_assert(T::THREADS % ACROSS == 0 || ACROSS % T::THREADS == 0, "columns of a thread");
  static constexpr int PLACES = ACROSS > T::THREADS ? ACROSS / T::THREADS : 1;
  static constexpr int TOGETHER = T::THREADS > ACROSS ? T::THREADS / ACROSS : 1; /* rows that all threads copy at once */
  const float* from;
  int at[PLACES], top[PLACES], left[PLACES];
  NNCC_DEVICE Patches(const float* images, int first) : from(images) {
#pragma unroll
    for (int i = 0; i < PLACES; ++i) {
      int p = first + column(i) * EACH, n = p / (V::OH * V::OW), place = p % (V::OH * V::OW);
      top[i] = place / V::OW * V::SH - V::PT;
      left[i] = place % V::OW * V::SW - V::PL;
      at[i] = (n * V::ALL * V::H + top[i]) * V::W + left[i];
      if (p >= V::PIXELS) top[i] = -(1 << 20); /* inside of no image, whatever the window */
    }
  }
  NNCC_DEVICE static int column(int i) { return ((int)threadIdx.x + i * T::THREADS) % ACROSS; }
  NNCC_DEVICE static bool within(int at, int size) { return (unsigned)at < (unsigned)size; }
  NNCC_DEVICE void load(float* shared, int k, int end) const {
    int row = PLACES > 1 ? 0 : (int)threadIdx.x / ACROSS;
#pragma unroll (T::K / TOGETHER >= 8 ? 1 : PLACES)
    for (int i = 0; i < PLACES; ++i) {
      if (V::C % T::K == 0) { /* one element of the window for the whole slice */
        int tap = k / V::C, channel = k % V::C, y = tap / V::KW * V::DH, x = tap % V::KW * V::DW;
        bool inside = within(top[i] + y, V::H) && within(left[i] + x, V::W);
        const float* source = from + at[i] + y * V::W + x + (channel + row) * (V::H * V::W);
#pragma unroll 8
        for (int r = 0; r < T::K; r += TOGETHER) {
          if (T::K % TOGETHER != 0 && r + row >= T::K) break;
          copy_async<4 * EACH>(shared + (r + row) * T::RIGHT + column(i) * EACH, source + r * (V::H * V::W), inside);
        }
      } else {
#pragma unroll 8
        for (int r = 0; r < T::K; r += TOGETHER) {
          if (T::K % TOGETHER != 0 && r + row >= T::K) break;
          int depth = k + r + row, tap = depth / V::C, channel = depth % V::C;
          int y = tap / V::KW * V::DH, x = tap % V::KW * V::DW;
          bool inside = within(top[i] + y, V::H) && within(left[i] + x, V::W) && depth < end;
          copy_async<4 * EACH>(shared + (r + row) * T::RIGHT + column(i) * EACH,
                               from + at[i] + y * V::W + x + channel * (V::H * V::W), inside);
        }
      }
    }
  }
};

/* Runs of 4 floats from shared memory. */
template <int COUNT, int APART>
NNCC_DEVICE void take(float* values, const float* shared) {
#pragma unroll
  for (int i = 0; i < COUNT; i += 4) {
    float4 four = *(const float4*)(shared + i / 4 * APART);
    values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
  }
}

/* The groups add up what they have; each thread its share. */
template <class T>
NNCC_DEVICE void add_slices(float* sums, float* shared) {
  const int member = (int)threadIdx.x % T::GROUP, slice = (int)threadIdx.x / T::GROUP;
  constexpr int RUNS = T::TM * T::TN / 4, SHARE = RUNS / T::SLICES;
  float4* runs = (float4*)shared;
  __syncthreads(); /* the slabs are read */
#pragma unroll
  for (int i = 0; i < RUNS; ++i)
    runs[(slice * RUNS + i) * T::GROUP + member] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < SHARE; ++i) {
    float4 total = runs[(slice * SHARE + i) * T::GROUP + member];
#pragma unroll
    for (int other = 1; other < T::SLICES; ++other) {
      float4 more = runs[(other * RUNS + slice * SHARE + i) * T::GROUP + member];
      total.x += more.x, total.y += more.y, total.z += more.z, total.w += more.w;
    }
    sums[4 * i] = total.x, sums[4 * i + 1] = total.y, sums[4 * i + 2] = total.z, sums[4 * i + 3] = total.w;
  }
}

/* Calls add(left slab, right slab) for the slabs of the depths begin .. end, copying ahead of it. An element E of a slab
 * is a depth of T: a float, or a unit of 16 bytes. */
template <class T, class E, class L, class R, class F>
NNCC_DEVICE void over_slabs(E* shared, const L& left, const R& right, int begin, int end, const F& add) {
  E* const lefts = shared;
  E* const rights = shared + T::STAGES * T::K * T::LEFT;
  const int steps = (end - begin + T::K - 1) / T::K;
#pragma unroll
  for (int s = 0; s < T::STAGES - 1; ++s) {
    if (s < steps) {
      left.load(lefts + s * T::K * T::LEFT, begin + s * T::K, end);
      right.load(rights + s * T::K * T::RIGHT, begin + s * T::K, end);
    }
    copies_commit();
  }
  int reading = 0, writing = T::STAGES - 1;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    copies_wait<T::STAGES - 2>();
    __syncthreads();
    if (step + T::STAGES - 1 < steps) {
      int k = begin + (step + T::STAGES - 1) * T::K;
      left.load(lefts + writing * T::K * T::LEFT, k, end);
      right.load(rights + writing * T::K * T::RIGHT, k, end);
    }
    copies_commit();
    add(lefts + reading * T::K * T::LEFT, rights + reading * T::K * T::RIGHT);
    reading = reading + 1 == T::STAGES ? 0 : reading + 1;
    writing = writing + 1 == T::STAGES ? 0 : writing + 1;
  }
}

/* sums[TM, TN] = left * right over the depths begin .. end: float32 products, fused with their additions. */
template <class T>
struct Products {
  float* sums;
  NNCC_DEVICE void operator()(const float* left, const float* right) const {
    const int member = (int)threadIdx.x % T::GROUP, first = (int)threadIdx.x / T::GROUP * (T::K / T::SLICES);
    const float* rows = left + first * T::LEFT + member / T::COLUMNS * 4;
    const float* columns = right + first * T::RIGHT + member % T::COLUMNS * 4;
#pragma unroll
    for (int k = 0; k < T::K / T::SLICES; ++k) {
      float a[T::TM], b[T::TN];
      take<T::TM, T::ROWS * 4>(a, rows + k * T::LEFT);
      take<T::TN, T::COLUMNS * 4>(b, columns + k * T::RIGHT);
#pragma unroll
      for (int i = 0; i < T::TM; ++i)
#pragma unroll
        for (int j = 0; j < T::TN; ++j) sums[i * T::TN + j] = fmaf(a[i], b[j], sums[i * T::TN + j]);
    }
  }
  template <class L, class R>
  NNCC_DEVICE static void all(float* sums, const L& left, const R& right, int begin, int end) {
    alignas(16) __shared__ float shared[T::SHARED];
#pragma unroll
    for (int i = 0; i < T::TM * T::TN; ++i) sums[i] = 0.0f;
    over_slabs<T>(shared, left, right, begin, end, Products{sums});
    if (T::SLICES > 1) add_slices<T>(sums, shared);
  }
};

/* A tile of M x N outputs by tensor cores, from float32 that is rounded to TF32 (10 bits of fraction); a warp has WM x WN
 * of them. PTX ISA, "Matrix Fragments for mma.m16n8k8": of a thread's four sums two lie in a row g = lane / 4, two in
 * g + 8, in columns 2 (lane % 4) and one more. */
template <int M_, int N_, int K_, int WM_, int WN_, int STAGES_>
struct TensorTile {
  static constexpr int M = M_, N = N_, K = K_, WM = WM_, WN = WN_, STAGES = STAGES_;
  static constexpr int ACROSS = N / WN, THREADS = M / WM * ACROSS * 32, DOWN = WM / 16, ALONG = WN / 8;
  static constexpr int LEFT = M + 8, RIGHT = N + 8; /* four rows of a slab begin in different banks */
  static constexpr int SHARED = STAGES * K * (LEFT + RIGHT);
};

/* To the nearest of 10 bits of fraction, ties away from zero. */
NNCC_DEVICE unsigned rounded_to_tf32(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  return (__float_as_uint(value) + 0x1000u) & 0xffffe000u;
#endif
}

/* sums[16 x 8] += a[16 x 8] b[8 x 8], of a warp. */
NNCC_DEVICE void mma_tf32(float* sums, const unsigned* a, const unsigned* b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif !defined(__CUDACC__)
  __shared__ unsigned fragments[32][32][6];
  unsigned(*warp)[6] = fragments[threadIdx.x / 32];
  int lane = (int)threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
  for (int i = 0; i < 6; ++i) warp[lane][i] = i < 4 ? a[i] : b[i - 4];
  __syncwarp(0xffffffffu);
  for (int k = 0; k < 8; ++k)
    for (int i = 0; i < 4; ++i) {
      unsigned x = warp[row * 4 + k % 4][k / 4 * 2 + i / 2], y = warp[(column + i % 2) * 4 + k % 4][4 + k / 4];
      sums[i] = fmaf(__uint_as_float(x), __uint_as_float(y), sums[i]);
    }
  __syncwarp(0xffffffffu);
#endif
}

template <class T>
struct TensorProducts {
  float* sums;
  NNCC_DEVICE void operator()(const float* left, const float* right) const {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const float* rows = left + lane % 4 * T::LEFT + warp / T::ACROSS * T::WM + lane / 4;
    const float* columns = right + lane % 4 * T::RIGHT + warp % T::ACROSS * T::WN + lane / 4;
#pragma unroll
    for (int k = 0; k < T::K; k += 8) {
      unsigned a[T::DOWN][4], b[T::ALONG][2];
#pragma unroll
      for (int i = 0; i < T::DOWN; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) a[i][j] = rounded_to_tf32(rows[(k + j / 2 * 4) * T::LEFT + i * 16 + j % 2 * 8]);
#pragma unroll
      for (int i = 0; i < T::ALONG; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) b[i][j] = rounded_to_tf32(columns[(k + j * 4) * T::RIGHT + i * 8]);
#pragma unroll
      for (int i = 0; i < T::DOWN; ++i)
#pragma unroll
        for (int j = 0; j < T::ALONG; ++j) mma_tf32(sums + (i * T::ALONG + j) * 4, a[i], b[j]);
    }
  }
  template <class L, class R>
  NNCC_DEVICE static void all(float* sums, const L& left, const R& right, int begin, int end) {
    alignas(16) __shared__ float shared[T::SHARED];
#pragma unroll
    for (int i = 0; i < T::DOWN * T::ALONG * 4; ++i) sums[i] = 0.0f;
    over_slabs<T>(shared, left, right, begin, end, TensorProducts{sums});
  }
};

/* The way in which a kind of tile is made. */
template <class T>
struct Way;
template <int M, int N, int K, int TM, int TN, int STAGES, int SLICES>
struct Way<Tile<M, N, K, TM, TN, STAGES, SLICES>> {
  typedef Products<Tile<M, N, K, TM, TN, STAGES, SLICES>> Of;
};
template <int M, int N, int K, int WM, int WN, int STAGES>
struct Way<TensorTile<M, N, K, WM, WN, STAGES>> {
  typedef TensorProducts<TensorTile<M, N, K, WM, WN, STAGES>> Of;
};

/* A tile of a convolution with OUT channels a group, whose weights are [groups, DEPTH, STRIDE]; depths of one part. */
template <class T, class V, int OUT, int STRIDE, int PART>
NNCC_DEVICE void conv2d(void* sums, const void* images, const void* weights, int pixels, int channels, int part) {
  constexpr int TILES = (OUT + T::M - 1) / T::M;
  int group = channels / TILES, begin = part * PART, end = begin + PART < V::DEPTH ? begin + PART : V::DEPTH;
  Columns<T, STRIDE> left((const float*)weights + group * (V::DEPTH * STRIDE), channels % TILES * T::M);
  Patches<T, V> right((const float*)images + group * (V::C * V::H * V::W), pixels * T::N);
  Way<T>::Of::all((float*)sums, left, right, begin, end);
}

/* A tile of the product of x [batch, ROWS, DEPTH] and w [batch or 1, DEPTH, COLUMNS]; depths of one part. */
template <class T, int ROWS, int DEPTH, int COLUMNS, bool SHARED, int PARTS, int PART>
NNCC_DEVICE void matmul(void* sums, const void* x, const void* w, int columns, int rows, int batch_and_part) {
  int batch = batch_and_part / PARTS, begin = batch_and_part % PARTS * PART;
  int end = begin + PART < DEPTH ? begin + PART : DEPTH;
  Rows<T, ROWS, DEPTH> left((const float*)x + batch * (ROWS * DEPTH), rows * T::M);
  Matrix<T, COLUMNS> right((const float*)w + (SHARED ? 0 : batch) * (DEPTH * COLUMNS), columns * T::N);
  Way<T>::Of::all((float*)sums, left, right, begin, end);
}

/* A tile of the product of x [ROWS, DEPTH] and decoded weights; depths of one part. */
template <class T, int ROWS, int DEPTH, int COLUMNS, int BITS, int GROUP, int TABLES, int PART>
NNCC_DEVICE void coded_matmul(void* sums, const void* x, const void* codes, const void* scales, const void* offsets,
                              int columns, int rows, int part) {
  int begin = part * PART, end = begin + PART < DEPTH ? begin + PART : DEPTH;
  Rows<T, ROWS, DEPTH> left((const float*)x, rows * T::M);
  Codes<T, COLUMNS, BITS, GROUP, TABLES> right(codes, (const float*)scales, (const float*)offsets, columns * T::N);
  Way<T>::Of::all((float*)sums, left, right, begin, end);
}

/* TH x TW places of a depthwise convolution, of channel `plane` of all images' outputs; weights are [OUT, KH * KW]. */
template <class V, int OUT, int TH, int TW>
NNCC_DEVICE void depthwise_conv2d(void* to, const void* images, const void* weights, int plane, int row, int column) {
  constexpr int SPAN = (TW - 1) * V::SW + (V::KW - 1) * V::DW + 1;
  float* sums = (float*)to;
  int channel = plane % OUT, from = plane / OUT * V::ALL + channel / (OUT / V::ALL);
  const float* image = (const float*)images + from * (V::H * V::W);
  const float* window = (const float*)weights + channel * (V::KH * V::KW);
  int top = row * (TH * V::SH) - V::PT, left = column * (TW * V::SW) - V::PL;
#pragma unroll
  for (int i = 0; i < TH * TW; ++i) sums[i] = 0.0f;
#pragma unroll
  for (int kh = 0; kh < V::KH; ++kh)
#pragma unroll
    for (int i = 0; i < TH; ++i) {
      float values[SPAN];
      int y = top + i * V::SH + kh * V::DH;
#pragma unroll
      for (int x = 0; x < SPAN; ++x) {
        bool inside = (unsigned)y < (unsigned)V::H && (unsigned)(left + x) < (unsigned)V::W;
        values[x] = inside ? image[y * V::W + left + x] : 0.0f;
      }
#pragma unroll
      for (int kw = 0; kw < V::KW; ++kw)
#pragma unroll
        for (int j = 0; j < TW; ++j)
          sums[i * TW + j] = fmaf(values[j * V::SW + kw * V::DW], window[kh * V::KW + kw], sums[i * TW + j]);
    }
}

NNCC_DEVICE float infinity() { return __int_as_float(0x7f800000); }

/* Sums, and maxima, over the THREADS threads of a row, for all of them. Rows of a warp stand side by side in a block; a
 * longer row has the block for itself. */
struct Sum {
  NNCC_DEVICE static float of(float a, float b) { return a + b; }
};
struct Maximum {
  NNCC_DEVICE static float of(float a, float b) { return fmaxf(a, b); }
};
template <class F, int THREADS>
NNCC_DEVICE float across(float value) {
  constexpr int WIDTH = THREADS < 32 ? THREADS : 32;
#pragma unroll
  for (int apart = WIDTH / 2; apart > 0; apart /= 2)
    value = F::of(value, __shfl_xor_sync(0xffffffffu, value, apart, 32));
  if (THREADS > 32) {
    __shared__ float warps[THREADS / 32];
    __syncthreads(); /* what was here before is read */
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = warps[0];
#pragma unroll
    for (int w = 1; w < THREADS / 32; ++w) value = F::of(value, warps[w]);
  }
  return value;
}

/* A row of LENGTH elements in the registers of THREADS threads, `outside` beyond its end: COUNT each, which lie in runs
 * of EACH. */
template <int LENGTH, int THREADS>
struct Row {
  static constexpr int EACH = LENGTH % 4 == 0 ? 4 : 1;
  static constexpr int COUNT = (LENGTH / EACH + THREADS - 1) / THREADS * EACH;
  NNCC_DEVICE static int place(int number) {
    return (number / EACH * THREADS + (int)threadIdx.x % THREADS) * EACH + number % EACH;
  }
  NNCC_DEVICE static void read(float* values, const float* row, float outside) {
#pragma unroll
    for (int i = 0; i < COUNT; i += EACH) {
      bool inside = LENGTH / EACH % THREADS == 0 || place(i) < LENGTH;
      if (EACH == 4) {
        float4 four = inside ? *(const float4*)(row + place(i)) : make_float4(outside, outside, outside, outside);
        values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
      } else {
        values[i] = inside ? row[place(i)] : outside;
      }
    }
  }
};

template <int LENGTH, int THREADS>
NNCC_DEVICE void softmax(void* to, const void* x, int row) {
  typedef Row<LENGTH, THREADS> R;
  float* values = (float*)to;
  R::read(values, (const float*)x + (long long)row * LENGTH, -infinity());
  float highest = values[0], total = 0.0f;
#pragma unroll
  for (int i = 1; i < R::COUNT; ++i) highest = fmaxf(highest, values[i]);
  highest = across<Maximum, THREADS>(highest);
#pragma unroll
  for (int i = 0; i < R::COUNT; ++i) total += values[i] = expf(values[i] - highest);
  float scale = 1.0f / across<Sum, THREADS>(total);
#pragma unroll
  for (int i = 0; i < R::COUNT; ++i) values[i] *= scale;
}

/* The variance is a pass of its own: as a difference of two sums it would lose the digits that they share. */
template <int LENGTH, int THREADS>
NNCC_DEVICE void layer_norm(void* to, const void* x, const void* gamma, const void* beta, float epsilon, int row) {
  typedef Row<LENGTH, THREADS> R;
  float* values = (float*)to;
  R::read(values, (const float*)x + (long long)row * LENGTH, 0.0f);
  float total = 0.0f, squares = 0.0f;
#pragma unroll
  for (int i = 0; i < R::COUNT; ++i) total += values[i];
  float mean = across<Sum, THREADS>(total) / LENGTH;
#pragma unroll
  for (int i = 0; i < R::COUNT; ++i)
    if (R::place(i) < LENGTH) values[i] -= mean, squares += values[i] * values[i];
  float scale = 1.0f / sqrtf(across<Sum, THREADS>(squares) / LENGTH + epsilon);
  float factors[R::COUNT], offsets[R::COUNT];
  R::read(factors, (const float*)gamma, 0.0f);
  R::read(offsets, (const float*)beta, 0.0f);
#pragma unroll
  for (int i = 0; i < R::COUNT; ++i) values[i] = values[i] * scale * factors[i] + offsets[i];
}

/* ROWS x COLUMNS elements of a matrix with any strides, to rows of STRIDE floats in shared memory; zeros where there
 * are none, up to FULL columns. `rows` of them are left. */
template <int ROWS, int COLUMNS, int FULL, int STRIDE, int DOWN, int ACROSS, int THREADS>
NNCC_DEVICE void stage(float* shared, const float* from, int rows) {
  for (int u = (int)threadIdx.x; u < ROWS * FULL; u += THREADS) {
    int row = ACROSS == 1 ? u / FULL : u % ROWS, column = ACROSS == 1 ? u % FULL : u / ROWS;
    bool inside = row < rows && (FULL == COLUMNS || column < COLUMNS);
    shared[row * STRIDE + column] = inside ? from[row * DOWN + column * ACROSS] : 0.0f;
  }
}

/* Attention of WARPS * EACH queries, EACH to a warp, to all LENGTH keys, 32 of them at a time: the maximum and the sum of
 * exponentials so far are corrected with each 32 (Milakov and Gimelshein 2018, "Online normalizer calculation for
 * softmax"). QM, QD and so on are the strides of the tensors along queries or keys, and within them. */
template <int QUERIES, int DEPTH, int LENGTH, int WIDTH, int EACH, int WARPS, int QM, int QD, int KN, int KD, int VN,
          int VE, bool MASKED, int MM, int MN>
NNCC_DEVICE void attention(void* to, const void* q, int q_start, const void* k, int k_start, const void* v, int v_start,
                           const void* mask, int mask_start, float alpha, int first) {
  constexpr int FULL = (DEPTH + 3) / 4 * 4, STRIDE = FULL + 4, THREADS = 32 * WARPS, COLUMNS = (WIDTH + 31) / 32;
  constexpr int ALL = WARPS * EACH;
  alignas(16) __shared__ float queries[ALL * FULL];
  alignas(16) __shared__ float keys[32 * STRIDE];
  alignas(16) __shared__ float values[32 * COLUMNS * 32];
  alignas(16) __shared__ float powers[ALL * 32];
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, mine = warp * EACH;
  float* sums = (float*)to;
  float highest[EACH], total[EACH];
#pragma unroll
  for (int i = 0; i < EACH * COLUMNS; ++i) sums[i] = 0.0f;
#pragma unroll
  for (int r = 0; r < EACH; ++r) highest[r] = -infinity(), total[r] = 0.0f;
  stage<ALL, DEPTH, FULL, FULL, QM, QD, THREADS>(queries, (const float*)q + q_start + first * QM, QUERIES - first);
#pragma unroll 1
  for (int start = 0; start < LENGTH; start += 32) {
    __syncthreads();
    stage<32, DEPTH, FULL, STRIDE, KN, KD, THREADS>(keys, (const float*)k + k_start + start * KN, LENGTH - start);
    stage<32, WIDTH, COLUMNS * 32, COLUMNS * 32, VN, VE, THREADS>(values, (const float*)v + v_start + start * VN, LENGTH - start);
    __syncthreads();
    float scores[EACH];
#pragma unroll
    for (int r = 0; r < EACH; ++r) scores[r] = 0.0f;
#pragma unroll 4
    for (int d = 0; d < FULL; d += 4) {
      float4 key = *(const float4*)(keys + lane * STRIDE + d);
#pragma unroll
      for (int r = 0; r < EACH; ++r) {
        float4 query = *(const float4*)(queries + (mine + r) * FULL + d);
        scores[r] = fmaf(query.x, key.x, fmaf(query.y, key.y, fmaf(query.z, key.z, fmaf(query.w, key.w, scores[r]))));
      }
    }
#pragma unroll
    for (int r = 0; r < EACH; ++r) {
      scores[r] *= alpha;
      bool inside = start + lane < LENGTH;
      if (MASKED && inside && first + mine + r < QUERIES)
        scores[r] += ((const float*)mask)[mask_start + (first + mine + r) * MM + (start + lane) * MN];
      if (!inside) scores[r] = -infinity();
      float now = fmaxf(highest[r], across<Maximum, 32>(scores[r]));
      /* Masked by minus infinity alone, so far: powers of 0. */
      float power = now == -infinity() ? 0.0f : expf(scores[r] - now), earlier = now == -infinity() ? 1.0f : expf(highest[r] - now);
      highest[r] = now;
      total[r] = total[r] * earlier + across<Sum, 32>(power);
      powers[(mine + r) * 32 + lane] = power;
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) sums[r * COLUMNS + c] *= earlier;
    }
    __syncwarp(0xffffffffu);
#pragma unroll 2
    for (int n = 0; n < 32; n += 4) {
      float4 weights[EACH];
#pragma unroll
      for (int r = 0; r < EACH; ++r) weights[r] = *(const float4*)(powers + (mine + r) * 32 + n);
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const float* column = values + n * (COLUMNS * 32) + c * 32 + lane;
        float a = column[0], b = column[COLUMNS * 32], d = column[2 * COLUMNS * 32], e = column[3 * COLUMNS * 32];
#pragma unroll
        for (int r = 0; r < EACH; ++r)
          sums[r * COLUMNS + c] = fmaf(weights[r].x, a, fmaf(weights[r].y, b, fmaf(weights[r].z, d,
                                       fmaf(weights[r].w, e, sums[r * COLUMNS + c]))));
      }
    }
  }
#pragma unroll
  for (int r = 0; r < EACH; ++r)
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) sums[r * COLUMNS + c] /= total[r];
}

/* Attention of ALL queries of one head to all LENGTH keys at once, whose scores lie in shared memory: for short
 * sequences, where steps of a few keys would wait for memory one after the other. THREADS are a multiple of WIDE, WIDTH up
 * to a multiple of 32; a thread has one column of every THREADS / WIDE-th query. Strides as for `attention`. */
template <int QUERIES, int DEPTH, int LENGTH, int WIDTH, int ALL, int THREADS, int QM, int QD, int KN, int KD, int VN,
          int VE, bool MASKED, int MM, int MN>
NNCC_DEVICE void whole_attention(void* to, const void* q, int q_start, const void* k, int k_start, const void* v,
                                 int v_start, const void* mask, int mask_start, float alpha, int first) {
  constexpr int FULL = (DEPTH + 3) / 4 * 4, STRIDE = (LENGTH + 3) / 4 * 4, WIDE = (WIDTH + 31) / 32 * 32;
  constexpr int GROUPS = THREADS / WIDE, MINE = ALL / GROUPS, SHARE = (STRIDE / 4 + GROUPS - 1) / GROUPS * 4;
  alignas(16) __shared__ float queries[ALL * FULL];
  alignas(16) __shared__ float scores[ALL * STRIDE];
  __shared__ float shares[GROUPS > 1 ? THREADS * ALL : 1];
  __shared__ float factors[ALL];
  stage<ALL, DEPTH, FULL, FULL, QM, QD, THREADS>(queries, (const float*)q + q_start + first * QM, QUERIES - first);
  __syncthreads();
  const bool fours = KD == 1 && KN % 4 == 0 && DEPTH % 4 == 0 && (size_t)((const float*)k + k_start) % 16 == 0;
#pragma unroll 1
  for (int n = (int)threadIdx.x; n < STRIDE; n += THREADS) {
    float products[ALL];
#pragma unroll
    for (int r = 0; r < ALL; ++r) products[r] = 0.0f;
    const float* key = (const float*)k + k_start + (n < LENGTH ? n : 0) * KN;
#pragma unroll 4
    for (int d = 0; d < FULL; d += 4) {
      float4 four;
      if (fours) {
        four = *(const float4*)(key + d);
      } else {
        four.x = key[d * KD];
        four.y = d + 1 < DEPTH ? key[(d + 1) * KD] : 0.0f;
        four.z = d + 2 < DEPTH ? key[(d + 2) * KD] : 0.0f;
        four.w = d + 3 < DEPTH ? key[(d + 3) * KD] : 0.0f;
      }
#pragma unroll
      for (int r = 0; r < ALL; ++r) {
        float4 query = *(const float4*)(queries + r * FULL + d);
        products[r] = fmaf(query.x, four.x, fmaf(query.y, four.y, fmaf(query.z, four.z, fmaf(query.w, four.w, products[r]))));
      }
    }
#pragma unroll
    for (int r = 0; r < ALL; ++r) {
      float score = products[r] * alpha;
      if (MASKED && n < LENGTH && first + r < QUERIES)
        score += ((const float*)mask)[mask_start + (first + r) * MM + n * MN];
      scores[r * STRIDE + n] = n < LENGTH ? score : -infinity();
    }
  }
  __syncthreads();
  const int lane = (int)threadIdx.x % 32;
#pragma unroll 1
  for (int r = (int)threadIdx.x / 32; r < ALL; r += THREADS / 32) {
    float highest = -infinity(), total = 0.0f;
    for (int n = lane; n < STRIDE; n += 32) highest = fmaxf(highest, scores[r * STRIDE + n]);
    highest = across<Maximum, 32>(highest);
    for (int n = lane; n < STRIDE; n += 32) {
      float power = expf(scores[r * STRIDE + n] - highest);
      scores[r * STRIDE + n] = power;
      total += power;
    }
    total = across<Sum, 32>(total);
    if (lane == 0) factors[r] = 1.0f / total;
  }
  __syncthreads();
  /* Each group of threads mixes its share of the values for all queries, so that a block reads each value once; then
   * each adds up what all groups have of its own queries. */
  const int column = (int)threadIdx.x % WIDE, group = (int)threadIdx.x / WIDE;
  const float* value = (const float*)v + v_start + (column < WIDTH ? column : 0) * VE;
  float mixed[ALL];
#pragma unroll
  for (int r = 0; r < ALL; ++r) mixed[r] = 0.0f;
#pragma unroll 4
  for (int n = group * SHARE; n < STRIDE && n < (group + 1) * SHARE; n += 4) {
    float a = value[n * VN], b = value[(n + 1 < LENGTH ? n + 1 : 0) * VN];
    float c = value[(n + 2 < LENGTH ? n + 2 : 0) * VN], d = value[(n + 3 < LENGTH ? n + 3 : 0) * VN];
#pragma unroll
    for (int r = 0; r < ALL; ++r) {
      float4 weights = *(const float4*)(scores + r * STRIDE + n);
      mixed[r] = fmaf(weights.x, a, fmaf(weights.y, b, fmaf(weights.z, c, fmaf(weights.w, d, mixed[r]))));
    }
  }
  float* sums = (float*)to;
  if (GROUPS == 1) {
#pragma unroll
    for (int r = 0; r < ALL; ++r) sums[r] = mixed[r] * factors[r];
  } else {
#pragma unroll
    for (int r = 0; r < ALL; ++r) shares[(group * ALL + r) * WIDE + column] = mixed[r];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < MINE; ++i) {
      const int r = group + i * GROUPS;
      float total = shares[r * WIDE + column];
#pragma unroll
      for (int other = 1; other < GROUPS; ++other) total += shares[(other * ALL + r) * WIDE + column];
      sums[i] = total * factors[r];
    }
  }
}

}  // namespace nncc
