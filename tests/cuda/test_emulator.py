"""emulator.hpp: kernels on the processor do what CUDA says they do, and mistakes that a GPU might hide show."""

from __future__ import annotations

import platform
import re

import numpy as np
import pytest
from fake_cuda import compiler, emulated, launch

pytestmark = pytest.mark.skipif(compiler() is None, reason="the emulator needs g++ or clang++, and Linux")

SOURCE = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" __global__ void __launch_bounds__(64) reverse(const float* __restrict__ x, float* __restrict__ y) {
  __shared__ alignas(64) float tile[64];
  tile[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = tile[63 - threadIdx.x];
}
extern "C" __global__ void forgotten_barrier(const float* x, float* y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  y[blockIdx.x * 64 + threadIdx.x] = tile[blockIdx.x % 2 ? (threadIdx.x + 63) % 64 : (threadIdx.x + 1) % 64];
}
extern "C" __global__ void barrier_of_some(float* y) {
  if (threadIdx.x < 3)
    __syncthreads();
  y[threadIdx.x] = 1;
}
extern "C" __global__ void two_barriers(float* y) {
  if (threadIdx.y < 3) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
extern "C" __global__ void lanes_that_never_come(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffffffu, y[threadIdx.x], 0);
  __syncthreads();
}
extern "C" __global__ void mask_without_itself(float* y) { y[0] = __shfl_sync(1u << 31, y[0], 0); }
extern "C" __global__ void shuffles(const int* x, int* y) {
  const int value = x[threadIdx.x], n = blockDim.x;
  y[threadIdx.x] = __shfl_sync(0xffffffffu, value, threadIdx.x + 3);
  y[n + threadIdx.x] = __shfl_up_sync(0xffffffffu, value, 2, 8);
  y[2 * n + threadIdx.x] = __shfl_down_sync(0xffffffffu, value, 2, 8);
  y[3 * n + threadIdx.x] = __shfl_xor_sync(0xffffffffu, value, 5);
  y[4 * n + threadIdx.x] = __ballot_sync(0xffffffffu, value % 3 == 0);
  y[5 * n + threadIdx.x] = __any_sync(0xffffffffu, value == 33) + 2 * __all_sync(0xffffffffu, value < 64);
}
extern "C" __global__ void halves_apart(const float* x, float* y) {
  float sum = x[threadIdx.x];
  const unsigned mask = threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u;
  for (int round = 0; round < (threadIdx.x % 32 < 16 ? 1 : 3); ++round) {
    for (int by = 8; by > 0; by /= 2) sum += __shfl_xor_sync(mask, sum, by, 16);
  }
  __syncwarp();
  y[threadIdx.x] = __shfl_sync(0xffffffffu, sum, 31 - threadIdx.x % 32);
}
extern "C" __global__ void of_nobody(const float* x, float* y) {
  y[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 8);
}
extern "C" __global__ void active(unsigned* y) {
  if (threadIdx.x % 3) y[threadIdx.x] = __activemask();
  else y[threadIdx.x] = __activemask();
}
extern "C" __global__ void dynamic(const float* x, float* y) {
  extern __shared__ float buffer[];
  y[threadIdx.x] = buffer[threadIdx.x];
  buffer[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x + blockDim.x] = buffer[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void all_indices(int* y) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(&y[block * blockDim.x * blockDim.y * blockDim.z + thread], 1 + block);
}
extern "C" __global__ void to_half(const float* x, unsigned short* h, unsigned short* b) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  h[i] = __half_as_ushort(__float2half_rn(x[i]));
  b[i] = __float2bfloat16(x[i]).bits;
}
extern "C" __global__ void from_half(const half* h, float* x) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  x[i] = __half2float(h[i]);
}
extern "C" __global__ void half_arithmetic(const half* a, const half* b, half* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
  y[i] = a[i] + b[i];
  y[n + i] = a[i] * b[i];
  y[2 * n + i] = a[i] / b[i];
  y[3 * n + i] = __hfma(a[i], b[i], a[i]);
  const half2 pair = __hadd2(make_half2(a[i], b[i]), __float2half2_rn(1.0f));
  y[4 * n + i] = pair.x - pair.y;
}
extern "C" __global__ void integers(const float* f, const int* a, const int* b, int* y) {
  const int i = threadIdx.x;
  y[i] = __float2int_rn(f[i]);
  y[32 + i] = __dp4a(a[i], b[i], 7);
  y[64 + i] = (int)__dp4a((unsigned)a[i], (unsigned)b[i], 7u);
  y[96 + i] = __mulhi(a[i], b[i]);
  y[128 + i] = max(a[i], b[i]) - min(a[i], b[i]);
  y[160 + i] = (int)__byte_perm(a[i], b[i], 0x6420);
}
extern "C" __global__ void vectors(const float4* x, float4* y) {
  float2 pair = make_float2(x[threadIdx.x].x, x[threadIdx.x].w);
  const int4 whole = make_int4(1, 2, 3, 4);
  y[threadIdx.x] = make_float4(pair.y, pair.x, whole.w, __int_as_float(__float_as_int(x[threadIdx.x].y)));
}
struct Pair { int row, column; };
extern "C" __global__ void far_away(float* y) {
  if (blockIdx.x == 2 && threadIdx.x == 5) y[1ull << 40] = 1;
  __syncthreads();
}
extern "C" __global__ void exchange(int* y) {
  const auto lanes = emulator::exchange(Pair{(int)threadIdx.x, 2 * (int)threadIdx.x});
  int sum = 0;
  for (int lane = 0; lane < 32; ++lane) sum += lanes[lane].row + 10 * lanes[lane].column;
  y[threadIdx.x] = sum + lanes[31 - threadIdx.x].row;
}
"""


@pytest.fixture(scope="module")
def kernels():
    return emulated(SOURCE)


X = np.arange(128, dtype=np.float32)


def reason(kernels, *arguments) -> str:
    with pytest.raises(RuntimeError) as caught:
        launch(kernels, *arguments)
    return re.sub(r"line \d+", "line N", str(caught.value))


def test_threads_meet_at_a_barrier(kernels):
    y = np.zeros_like(X)
    launch(kernels, "reverse", (2, 1, 1), (64, 1, 1), [X, y])
    assert np.array_equal(y, X.reshape(2, 64)[:, ::-1].ravel())


def test_a_forgotten_barrier_gives_wrong_results_in_either_direction(kernels):
    """A thread that reads its successor's element finds none in even blocks, its predecessor's none in odd ones."""
    y = np.zeros_like(X)
    launch(kernels, "forgotten_barrier", (1, 1, 1), (64, 1, 1), [X, y])
    assert np.isnan(y[:63]).all()
    launch(kernels, "forgotten_barrier", (2, 1, 1), (64, 1, 1), [X, y])
    assert not np.array_equal(y[64:], np.roll(X[64:], 1))


def test_a_barrier_that_not_all_threads_reach(kernels):
    y = np.zeros(8, np.float32)
    assert reason(kernels, "barrier_of_some", (2, 1, 1), (8, 1, 1), [y]) == (
        "kernel `barrier_of_some`, block (0,0,0): "
        "thread (0,0,0) waits at __syncthreads of line N, thread (3,0,0) has left the kernel"
    )
    launch(kernels, "reverse", (2, 1, 1), (64, 1, 1), [X, np.zeros_like(X)])  # and the next kernel runs


def test_two_barriers_are_not_one(kernels):
    assert reason(kernels, "two_barriers", (1, 1, 1), (2, 4, 1), [X]) == (
        "kernel `two_barriers`, block (0,0,0): "
        "thread (0,0,0) waits at __syncthreads of line N, thread (0,3,0) waits at __syncthreads of line N"
    )


def test_lanes_that_never_come(kernels):
    assert reason(kernels, "lanes_that_never_come", (1, 1, 1), (32, 1, 1), [X.copy()]) == (
        "kernel `lanes_that_never_come`, block (0,0,0): "
        "thread (0,0,0) waits for its warp at __shfl_sync of line N, "
        "thread (16,0,0) waits at __syncthreads of line N"
    )
    assert reason(kernels, "mask_without_itself", (1, 1, 1), (32, 1, 1), [X.copy()]) == (
        "kernel `mask_without_itself`, block (0,0,0): __shfl_sync at line N: lane 0 is not in its own mask"
    )


def test_shuffles(kernels):
    x, y = np.arange(64, dtype=np.int32), np.zeros((6, 64), np.int32)
    launch(kernels, "shuffles", (1, 1, 1), (64, 1, 1), [x, y])
    lane, warp, eighth = x % 32, x // 32 * 32, x % 8
    assert np.array_equal(y[0], warp + (lane + 3) % 32)
    assert np.array_equal(y[1], np.where(eighth >= 2, x - 2, x))
    assert np.array_equal(y[2], np.where(eighth < 6, x + 2, x))
    assert np.array_equal(y[3], warp + (lane ^ 5))
    votes = [sum(1 << i for i in range(32) if (32 * w + i) % 3 == 0) for w in range(2)]
    assert np.array_equal(y[4].view(np.uint32), np.repeat(votes, 32).astype(np.uint32))
    assert np.array_equal(y[5], np.where(x < 32, 2, 3))


def test_parts_of_a_warp_go_their_own_ways(kernels):
    y = np.zeros(32, np.float32)
    launch(kernels, "halves_apart", (1, 1, 1), (32, 1, 1), [X[:32].copy(), y])
    low, high = X[:16].sum(), X[16:32].sum() * 16 * 16
    assert np.array_equal(y, np.repeat([high, low], 16))


def test_a_lane_that_is_not_there_gives_nan(kernels):
    y = np.zeros(16, np.float32)
    launch(kernels, "of_nobody", (1, 1, 1), (16, 1, 1), [X[:16].copy(), y])
    assert np.array_equal(y[:8], X[8:16]) and np.isnan(y[8:]).all()


def test_the_active_mask_is_of_those_who_took_the_same_branch(kernels):
    y = np.zeros(40, np.uint32)
    launch(kernels, "active", (1, 1, 1), (40, 1, 1), [y])
    for start, count in ((0, 32), (32, 8)):
        threads = range(start, start + count)
        masks = [sum(1 << (t - start) for t in threads if (t % 3 == 0) == way) for way in (False, True)]
        assert [int(v) for v in y[start : start + count]] == [masks[t % 3 == 0] for t in threads]


def test_shared_memory_begins_as_nan(kernels):
    y = np.zeros(64, np.float32)
    launch(kernels, "dynamic", (1, 1, 1), (32, 1, 1), [X[:32].copy(), y], 128)
    assert np.isnan(y[:32]).all() and np.array_equal(y[32:], X[:32][::-1])


def test_grids_and_blocks_of_three_dimensions(kernels):
    y = np.zeros((24, 30), np.int32)
    launch(kernels, "all_indices", (2, 3, 4), (5, 3, 2), [y])
    assert np.array_equal(y, np.repeat(np.arange(1, 25, dtype=np.int32), 30).reshape(24, 30))


def test_conversions_of_half_are_numpy_s(kernels):
    """All halves, the middles between them, and what is just beside."""
    bits = np.arange(65536, dtype=np.uint16)
    back = np.zeros(65536, np.float32)
    launch(kernels, "from_half", (256, 1, 1), (256, 1, 1), [bits, back])
    assert np.array_equal(back, bits.view(np.float16).astype(np.float32), equal_nan=True)
    finite = back[np.isfinite(back)]
    with np.errstate(over="ignore"):
        middles = ((finite.astype(np.float64) + np.roll(finite, 1)) / 2).astype(np.float32)
        beside = [np.nextafter(middles, np.float32(way)) for way in (-np.inf, np.inf)]
        x = np.concatenate([back, middles, *beside, np.float32([1e9, -1e9, 65519.9, 65520, 1e-30])])
        x = np.resize(x, -(-x.size // 256) * 256)
        half, brain = np.zeros(x.size, np.uint16), np.zeros(x.size, np.uint16)
        launch(kernels, "to_half", (x.size // 256, 1, 1), (256, 1, 1), [x, half, brain])
        assert np.array_equal(half.view(np.float16), x.astype(np.float16), equal_nan=True)
    word = x.view(np.uint32).astype(np.uint64)
    nearest = ((word + 0x7FFF + (word >> 16 & 1)) >> 16).astype(np.uint16)
    assert np.array_equal(np.where(np.isnan(x), 0x7FFF, nearest), brain)


def test_arithmetic_of_half_rounds_each_result(kernels):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(1024).astype(np.float16) for _ in range(2))
    y = np.zeros((5, 1024), np.float16)
    launch(kernels, "half_arithmetic", (4, 1, 1), (256, 1, 1), [a, b, y])
    wide = a.astype(np.float64) * b.astype(np.float64) + a.astype(np.float64)
    one = np.float16(1)
    for found, expected in zip(y, (a + b, a * b, a / b, wide.astype(np.float16), (a + one) - (b + one)), strict=True):
        assert np.array_equal(found, expected)


def test_integer_instructions(kernels):
    rng = np.random.default_rng(0)
    f = rng.uniform(-1e3, 1e3, 32).astype(np.float32)
    f[:5] = 0.5, 1.5, 3e9, -3e9, np.nan
    a, b = (rng.integers(-(2**31), 2**31, 32).astype(np.int32) for _ in range(2))
    y = np.zeros((6, 32), np.int32)
    launch(kernels, "integers", (1, 1, 1), (32, 1, 1), [f, a, b, y])
    assert y[0, :5].tolist() == [0, 2, 2**31 - 1, -(2**31), 0] and np.array_equal(y[0, 5:], np.rint(f[5:]))
    for row, kind in ((1, np.int8), (2, np.uint8)):
        products = a.view(kind).astype(np.int64) * b.view(kind).astype(np.int64)
        assert np.array_equal(y[row], products.reshape(32, 4).sum(axis=1) + 7)
    wide_a, wide_b = a.astype(np.int64), b.astype(np.int64)
    assert np.array_equal(y[3], wide_a * wide_b >> 32)
    assert np.array_equal(y[4], np.abs(wide_a - wide_b).astype(np.uint32).view(np.int32))
    bytes_of = np.stack([a.view(np.uint8).reshape(32, 4), b.view(np.uint8).reshape(32, 4)], 1).reshape(32, 8)
    assert np.array_equal(y[5].view(np.uint8).reshape(32, 4), bytes_of[:, ::2])


def test_vectors(kernels):
    y = np.zeros((32, 4), np.float32)
    launch(kernels, "vectors", (1, 1, 1), (32, 1, 1), [X, y])
    x = X.reshape(32, 4)
    assert np.array_equal(y, np.stack([x[:, 3], x[:, 0], np.full(32, 4.0), x[:, 1]], axis=1))


def test_an_instruction_of_a_warp_sees_all_lanes(kernels):
    y = np.zeros(32, np.int32)
    launch(kernels, "exchange", (1, 1, 1), (32, 1, 1), [y])
    assert np.array_equal(y, 21 * 496 + 31 - np.arange(32))


def test_memory_that_is_not_there_and_vectors_across_their_alignment(kernels):
    assert reason(kernels, "far_away", (3, 1, 1), (8, 1, 1), [X.copy()]) == (
        "kernel `far_away`, block (2,0,0): thread (5,0,0) reads or writes where no memory is"
    )
    shifted = np.zeros(132, np.float32)
    shifted = shifted[1:] if shifted.ctypes.data % 16 == 0 else shifted
    assert reason(kernels, "vectors", (1, 1, 1), (8, 1, 1), [shifted, np.zeros_like(X)]) == (
        "kernel `vectors`, block (0,0,0): thread (0,0,0) reads or writes a vector across its alignment"
    )
    y = np.zeros_like(X)
    launch(kernels, "reverse", (2, 1, 1), (64, 1, 1), [X, y])
    assert np.array_equal(y, X.reshape(2, 64)[:, ::-1].ravel()), "the next kernel runs"


def test_a_block_larger_than_the_kernel_s_bounds(kernels):
    assert reason(kernels, "reverse", (1, 1, 1), (128, 1, 1), [X, X]) == (
        "kernel `reverse`: 128 threads of a block, and it is compiled for 64"
    )


def test_another_number_of_parameters_is_refused(kernels):
    with pytest.raises(RuntimeError, match="kernel `reverse` has 2 parameters, and 1 are given"):
        launch(kernels, "reverse", (1, 1, 1), (64, 1, 1), [X])
    with pytest.raises(RuntimeError, match="there is no kernel `inverse`"):
        launch(kernels, "inverse", (1, 1, 1), (64, 1, 1), [X])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is what runs elsewhere anyway")
def test_fibers_of_libc_do_the_same():
    kernels = emulated(SOURCE, "-DFIBER_UCONTEXT")
    y = np.zeros((6, 64), np.int32)
    launch(kernels, "shuffles", (1, 1, 1), (64, 1, 1), [np.arange(64, dtype=np.int32), y])
    assert np.array_equal(y[0], np.arange(64) // 32 * 32 + (np.arange(64) % 32 + 3) % 32)
