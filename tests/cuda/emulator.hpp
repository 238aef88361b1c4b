/* emulator.hpp: executes the CUDA C++ source of device kernels on the processor, exactly, with no GPU.
 *
 * g++ or clang++ compile the very file that nvcc compiles, with this header included first. Each thread of a block is a
 * fiber; the blocks of a grid run in turn. What CUDA leaves undefined is made visible: shared memory holds NaNs before
 * a launch; threads run one after the other up to a barrier, in odd blocks the last one first, so that a barrier that
 * is missing gives wrong results in one order or the other; a value shuffled from a lane that takes no part is a NaN;
 * and a barrier that not all threads reach is an error that says who waits where.
 *
 * Not like a GPU: float to integer conversions out of range do not saturate, and expf and its like are those of libm.
 *
 * A file of kernels ends with EMULATED_KERNELS(EMULATED(name, most) ...): most threads of a block. tests/cuda/fake_cuda.py does all of
 * it. Who emulates an instruction of a whole warp calls emulator::exchange(value), which gives all 32 lanes' values. */
#pragma once

#include <setjmp.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "fiber.hpp"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

/* Those of the thread that runs. */
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

extern "C" __attribute__((weak)) unsigned char __start_nncc_shared[], __stop_nncc_shared[];

namespace emulator {

enum class State : unsigned char { ready, at_barrier, at_warp, at_active_mask, done };
enum : size_t { LARGEST_VALUE = 64 };

/* What the lanes of one operation of a warp showed each other. A lane holds it until its next operation. */
struct Board {
  alignas(16) unsigned char slot[32][LARGEST_VALUE];
  unsigned members = 0, held = 0;
};

struct Warp {
  unsigned waiting = 0, gone = ~0u; /* gone: has left the kernel, or never was */
  unsigned mask[32] = {};
  const char* what[32] = {};
  alignas(16) unsigned char pending[32][LARGEST_VALUE];
  Board boards[33]; /* of 32 lanes each holds at most one */
  Board* holds[32] = {};
};

struct Thread {
  Fiber* fiber;
  State state;
  int line; /* of the source, where it waits */
  unsigned active;
  uint3 index;
};

struct Machine {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Fiber*> idle;
  Thread* current = nullptr;
  Fiber host;
  void (*kernel)(void**) = nullptr;
  void** parameters = nullptr;
  std::vector<unsigned char> dynamic_shared;
  std::string error;
  ~Machine() {
    for (Fiber* fiber : idle) delete_fiber(fiber);
  }
};

inline Machine the_machine;
inline Machine& machine() { return the_machine; }

inline unsigned number_of(const Thread* thread) { return (unsigned)(thread - machine().threads.data()); }

inline void suspend(State state, int line) {
  Thread* self = machine().current;
  self->state = state;
  self->line = line;
  switch_fiber(self->fiber, &machine().host);
}

/* What a fiber does for ever: the kernel, once for each thread that it is given. */
inline void fiber_main() {
  for (;;) {
    machine().kernel(machine().parameters);
    suspend(State::done, 0);
  }
}

inline void barrier(int line) { suspend(State::at_barrier, line); }

inline void let_go(Warp& warp, unsigned lane) {
  if (warp.holds[lane]) {
    warp.holds[lane]->held &= ~(1u << lane);
    warp.holds[lane] = nullptr;
  }
}

/* If all of `mask` that have not left the kernel wait for each other, they go on, with one board. */
inline void meet(Warp& warp, unsigned first, unsigned mask) {
  const unsigned members = mask & ~warp.gone;
  if (!members || (members & ~warp.waiting)) return;
  const char* what = nullptr;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (members >> lane & 1) {
      if (warp.mask[lane] != mask || (what && strcmp(what, warp.what[lane]))) return;
      what = warp.what[lane];
    }
  }
  Board* board = warp.boards;
  while (board->held) ++board;
  board->members = board->held = members;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (members >> lane & 1) {
      memcpy(board->slot[lane], warp.pending[lane], LARGEST_VALUE);
      warp.holds[lane] = board;
      machine().threads[first + lane].state = State::ready;
    }
  }
  warp.waiting &= ~members;
}

inline Board& meet_in_warp(const char* what, int line, unsigned mask, const void* mine, size_t size) {
  const unsigned number = number_of(machine().current), lane = number % 32;
  Warp& warp = machine().warps[number / 32];
  if (!(mask >> lane & 1)) {
    machine().error = std::string(what) + " at line " + std::to_string(line) + ": lane " + std::to_string(lane) +
                      " is not in its own mask";
    suspend(State::at_warp, line);
  }
  let_go(warp, lane);
  memcpy(warp.pending[lane], mine, size);
  warp.waiting |= 1u << lane;
  warp.mask[lane] = mask;
  warp.what[lane] = what;
  machine().current->state = State::at_warp;
  meet(warp, number - lane, mask);
  if (machine().current->state != State::ready) suspend(State::at_warp, line);
  return *warp.holds[lane];
}

inline unsigned active_mask(int line) {
  suspend(State::at_active_mask, line);
  return machine().current->active;
}

/* The `value` of each lane, valid until this lane's next operation of the warp; of lanes not in `mask`, anything. */
template <class T>
struct Lanes {
  const Board* board;
  T operator[](unsigned lane) const {
    T value;
    if (board->members >> lane & 1) {
      memcpy(&value, board->slot[lane], sizeof value);
    } else {
      memset(&value, 0xff, sizeof value);
    }
    return value;
  }
};

template <class T>
Lanes<T> exchange(const T& value, const char* what = "exchange", int line = 0, unsigned mask = ~0u) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= LARGEST_VALUE, "");
  return {&meet_in_warp(what, line, mask, &value, sizeof value)};
}

inline unsigned lane_number() { return number_of(machine().current) % 32; }

template <class T>
T shuffle(int line, unsigned mask, T value, int from, int width = 32) {
  const unsigned first = lane_number() & ~(unsigned)(width - 1);
  return exchange(value, "__shfl_sync", line, mask)[first + ((unsigned)from & (unsigned)(width - 1))];
}
template <class T>
T shuffle_up(int line, unsigned mask, T value, unsigned by, int width = 32) {
  const unsigned lane = lane_number(), first = lane & ~(unsigned)(width - 1);
  const auto lanes = exchange(value, "__shfl_up_sync", line, mask);
  return lane - first < by ? value : lanes[lane - by];
}
template <class T>
T shuffle_down(int line, unsigned mask, T value, unsigned by, int width = 32) {
  const unsigned lane = lane_number(), first = lane & ~(unsigned)(width - 1);
  const auto lanes = exchange(value, "__shfl_down_sync", line, mask);
  return lane - first + by >= (unsigned)width ? value : lanes[lane + by];
}
template <class T>
T shuffle_xor(int line, unsigned mask, T value, int bits, int width = 32) {
  const unsigned lane = lane_number(), end = (lane & ~(unsigned)(width - 1)) + (unsigned)width;
  const unsigned from = lane ^ (unsigned)bits;
  const auto lanes = exchange(value, "__shfl_xor_sync", line, mask);
  return from >= end ? value : lanes[from];
}
inline void sync_warp(int line, unsigned mask = ~0u) { exchange(0, "__syncwarp", line, mask); }
inline unsigned ballot(int line, unsigned mask, int predicate) {
  const auto lanes = exchange(predicate, "__ballot_sync", line, mask);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) votes |= (unsigned)((mask >> lane & 1) && lanes[lane]) << lane;
  return votes & lanes.board->members;
}

inline unsigned char* dynamic_shared() { return machine().dynamic_shared.data(); }

inline std::string place(const Thread& thread) {
  return "(" + std::to_string(thread.index.x) + "," + std::to_string(thread.index.y) + "," +
         std::to_string(thread.index.z) + ")";
}

/* Why nobody can go on: the first thread that waits, and the first that is elsewhere. */
inline std::string who_waits() {
  const auto where = [](const Thread& thread) {
    const char* const kinds[] = {"runs", "waits at __syncthreads of line ", "waits for its warp at line ",
                                 "waits at __activemask of line ", "has left the kernel"};
    const unsigned number = number_of(&thread);
    const Warp& warp = machine().warps[number / 32];
    if (thread.state == State::at_warp && warp.what[number % 32]) {
      return "waits for its warp at " + std::string(warp.what[number % 32]) + " of line " + std::to_string(thread.line);
    }
    return kinds[(int)thread.state] + (thread.state == State::done ? "" : std::to_string(thread.line));
  };
  for (const Thread& one : machine().threads) {
    if (one.state == State::done) continue;
    for (const Thread& other : machine().threads) {
      if (where(one) != where(other)) {
        return "thread " + place(one) + " " + where(one) + ", thread " + place(other) + " " + where(other);
      }
    }
    return "thread " + place(one) + " " + where(one) + ", with lanes that never come";
  }
  return "";
}

/* With nobody ready to run: lets those go on that wait for what has come. False if there are none. */
inline bool release() {
  Machine& m = machine();
  bool released = false;
  unsigned at_barrier = 0;
  for (size_t w = 0; w < m.warps.size(); ++w) {
    Thread* lanes = &m.threads[32 * w];
    const size_t count = std::min<size_t>(32, m.threads.size() - 32 * w);
    for (size_t i = 0; i < count; ++i) {
      at_barrier += lanes[i].state == State::at_barrier;
      if (lanes[i].state == State::at_active_mask) { /* converged as far as they can: those at one line are together */
        unsigned active = 0;
        for (size_t k = 0; k < count; ++k) {
          active |= (unsigned)(lanes[k].state == State::at_active_mask && lanes[k].line == lanes[i].line) << k;
        }
        for (size_t k = 0; k < count; ++k) {
          if (active >> k & 1) lanes[k].state = State::ready, lanes[k].active = active;
        }
        released = true;
      }
    }
  }
  if (at_barrier == m.threads.size()) {
    for (const Thread& thread : m.threads) {
      if (thread.line != m.threads[0].line) return false;
    }
    for (Thread& thread : m.threads) thread.state = State::ready;
    return true;
  }
  return released;
}

inline void resume(Thread& thread) {
  Machine& m = machine();
  if (!thread.fiber) {
    if (m.idle.empty()) m.idle.push_back(new_fiber(fiber_main));
    thread.fiber = m.idle.back();
    m.idle.pop_back();
  }
  m.current = &thread;
  threadIdx = thread.index;
  switch_fiber(&m.host, thread.fiber);
  if (thread.state == State::done) {
    m.idle.push_back(thread.fiber);
    thread.fiber = nullptr;
    const unsigned number = number_of(&thread), lane = number % 32;
    Warp& warp = m.warps[number / 32];
    let_go(warp, lane);
    warp.gone |= 1u << lane;
    for (unsigned other = 0; other < 32 && warp.waiting; ++other) {
      if (warp.waiting >> other & 1) meet(warp, number - lane, warp.mask[other]);
    }
  }
}

/* Runs one block; false, with `error` set, if its threads can never all end. */
inline bool run_block(bool backward) {
  Machine& m = machine();
  const size_t count = m.threads.size();
  for (Warp& warp : m.warps) warp.waiting = 0, warp.gone = ~0u;
  for (size_t i = 0; i < count; ++i) {
    m.threads[i].state = State::ready;
    m.warps[i / 32].gone &= ~(1u << i % 32);
  }
  for (;;) {
    bool ran = false, left = false;
    for (size_t i = 0; i < count; ++i) {
      Thread& thread = m.threads[backward ? count - 1 - i : i];
      if (thread.state == State::ready) {
        resume(thread);
        ran = true;
        if (!m.error.empty()) return false;
      }
      left = left || thread.state != State::done;
    }
    if (!left) return true;
    if (!ran && !release()) {
      m.error = who_waits();
      return false;
    }
  }
}

inline bool run_blocks(const unsigned* grid) {
  size_t number = 0;
  for (unsigned z = 0; z < grid[2]; ++z) {
    for (unsigned y = 0; y < grid[1]; ++y) {
      for (unsigned x = 0; x < grid[0]; ++x) {
        blockIdx = {x, y, z};
        if (!run_block(number++ % 2)) return false;
      }
    }
  }
  return true;
}

/* While it lives, an access to memory that is not there ends the kernel rather than the process. Not with a sanitizer,
 * whose own report says more. */
class Trap {
 public:
  Trap() {
#ifndef FIBER_ASAN
    static unsigned char stack[64 << 10]; /* the fiber's own may be what has run out */
    stack_t ours{};
    ours.ss_sp = stack;
    ours.ss_size = sizeof stack;
    sigaltstack(&ours, &stack_before_);
    struct sigaction action {};
    action.sa_handler = [](int signal) { siglongjmp(place(), signal); };
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &action, &before_[i]);
#endif
  }
  ~Trap() {
#ifndef FIBER_ASAN
    for (int i = 0; i < 3; ++i) sigaction(SIGNALS[i], &before_[i], nullptr);
    sigaltstack(&stack_before_, nullptr);
#endif
  }
  static sigjmp_buf& place() {
    static sigjmp_buf buffer;
    return buffer;
  }

 private:
  static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL}; /* SIGILL: what -fsanitize=alignment ends with */
  stack_t stack_before_;
  struct sigaction before_[3];
};

/* Runs a grid. 0, or 1 with the reason in `error`. */
inline int run_grid(const char* name, void (*kernel)(void**), const unsigned* grid, const unsigned* block, size_t shared,
                    void** parameters, char* error, size_t error_size) {
  Machine& m = machine();
  gridDim = dim3(grid[0], grid[1], grid[2]);
  blockDim = dim3(block[0], block[1], block[2]);
  m.kernel = kernel;
  m.parameters = parameters;
  m.error.clear();
  m.dynamic_shared.assign(shared, 0xff);
  if (__start_nncc_shared) memset(__start_nncc_shared, 0xff, (size_t)(__stop_nncc_shared - __start_nncc_shared));
  m.threads.clear();
  for (unsigned z = 0; z < block[2]; ++z) {
    for (unsigned y = 0; y < block[1]; ++y) {
      for (unsigned x = 0; x < block[0]; ++x) m.threads.push_back({nullptr, State::ready, 0, 0, {x, y, z}});
    }
  }
  const size_t warps = (m.threads.size() + 31) / 32;
  if (m.warps.size() != warps) m.warps = std::vector<Warp>(warps);
  Trap trap;
  bool fine = true;
  if (const int signal = sigsetjmp(Trap::place(), 1)) {
    m.error = "thread " + place(*m.current) + " reads or writes " +
              (signal == SIGILL ? "a vector across its alignment" : "where no memory is");
    fine = false;
  } else {
    fine = run_blocks(grid);
  }
  if (!fine) {
    snprintf(error, error_size, "kernel `%s`, block (%u,%u,%u): %s", name, blockIdx.x, blockIdx.y, blockIdx.z,
             m.error.c_str());
    for (Thread& thread : m.threads) {
      if (thread.fiber) delete_fiber(thread.fiber);
    }
    m.warps.clear();
  }
  return !fine;
}

/* A kernel as a function of the array that cuLaunchKernel takes: a pointer to each parameter. */
template <auto kernel>
struct Bare;
template <class... P, void (*kernel)(P...)>
struct Bare<kernel> {
  static constexpr int count = sizeof...(P);
  template <size_t... i>
  static void apply(void** parameters, std::index_sequence<i...>) {
    kernel(*static_cast<std::remove_cv_t<P>*>(parameters[i])...);
  }
  static void call(void** parameters) { apply(parameters, std::make_index_sequence<sizeof...(P)>()); }
};

struct Kernel {
  const char* name;
  int parameters;
  void (*call)(void**);
  unsigned most_threads; /* of a block: its __launch_bounds__, else 1024 */
};

}  // namespace emulator

#define EMULATED(name, most) {#name, emulator::Bare<name>::count, emulator::Bare<name>::call, most},
#define EMULATED_KERNELS(...)                                                                                      \
  static const emulator::Kernel emulated_kernels[] = {__VA_ARGS__ {nullptr, 0, nullptr, 0}};                       \
  static const emulator::Kernel* emulated_kernel(const char* name) {                                               \
    const emulator::Kernel* kernel = emulated_kernels;                                                             \
    while (kernel->name && strcmp(kernel->name, name)) ++kernel;                                                   \
    return kernel;                                                                                                 \
  }                                                                                                                \
  /* The number of parameters of a kernel, all of them pointers; -1 if there is no such kernel. */                 \
  EMULATOR_API int emulated_parameters(const char* name) {                                                         \
    const emulator::Kernel* kernel = emulated_kernel(name);                                                        \
    return kernel->name ? kernel->parameters : -1;                                                                 \
  }                                                                                                                \
  /* 0; 1 if the kernel fails, with its reason in `error`; 2 if there is no such kernel. One thread at a time. */  \
  EMULATOR_API int emulated_launch(const char* name, const unsigned* grid, const unsigned* block, size_t shared,   \
                                   void** parameters, char* error, size_t error_size) {                            \
    const emulator::Kernel* kernel = emulated_kernel(name);                                                        \
    const size_t threads = (size_t)block[0] * block[1] * block[2];                                                 \
    if (!kernel->name) return 2;                                                                                   \
    if (threads > kernel->most_threads) {                                                                          \
      snprintf(error, error_size, "kernel `%s`: %zu threads of a block, and it is compiled for %u", name, threads, \
               kernel->most_threads);                                                                              \
      return 1;                                                                                                    \
    }                                                                                                              \
    return emulator::run_grid(name, kernel->call, grid, block, shared, parameters, error, error_size);             \
  }
#define EMULATOR_API extern "C" __attribute__((visibility("default")))

#include "device_language.hpp"
