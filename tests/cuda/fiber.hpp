/* fiber.hpp: stacks to switch between. Our own switch on x86-64, where it takes a few nanoseconds; ucontext elsewhere
 * or with FIBER_UCONTEXT. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__) && !defined(FIBER_UCONTEXT)
#define FIBER_UCONTEXT
#endif
#ifdef FIBER_UCONTEXT
#include <ucontext.h>
#endif

namespace emulator {

enum : size_t { STACK_BYTES = 256 << 10 };

struct Fiber {
#ifndef FIBER_UCONTEXT
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  unsigned char* stack = nullptr; /* null: the stack of the thread that schedules */
  void (*main)() = nullptr;
#ifdef FIBER_ASAN
  const void* bottom = nullptr;
  size_t size = 0;
#endif
};

inline Fiber *fiber_before, *fiber_now; /* the one that switched to the one that runs, and that */

#ifndef FIBER_UCONTEXT
extern "C" void nncc_switch_stack(void** save, void* load);
asm(R"(
  .pushsection .text
  .weak nncc_switch_stack
  .hidden nncc_switch_stack
  .type nncc_switch_stack, @function
nncc_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size nncc_switch_stack, . - nncc_switch_stack
  .popsection
)");
#endif

inline void arrived() {
#ifdef FIBER_ASAN
  Fiber* before = fiber_before;
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!before->stack) before->bottom = bottom, before->size = size;
#endif
}

inline void switch_fiber(Fiber* from, Fiber* to) {
  fiber_before = from;
  fiber_now = to;
#ifdef FIBER_ASAN
  __sanitizer_start_switch_fiber(nullptr, to->bottom, to->size);
#endif
#ifndef FIBER_UCONTEXT
  nncc_switch_stack(&from->stack_pointer, to->stack_pointer);
#else
  swapcontext(&from->context, &to->context);
#endif
  arrived();
}

inline void fiber_entry() {
  arrived();
  fiber_now->main();
  abort(); /* `main` never returns */
}

inline Fiber* new_fiber(void (*main)()) {
  static unsigned made;
  Fiber* fiber = new Fiber;
  fiber->main = main;
  void* memory = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    perror("emulator: no memory for the stack of a thread");
    abort();
  }
  fiber->stack = static_cast<unsigned char*>(memory);
  mprotect(memory, 4096, PROT_NONE); /* a stack that overflows is to fault */
#ifdef FIBER_ASAN
  fiber->bottom = memory;
  fiber->size = STACK_BYTES;
#endif
  const size_t stagger = made++ % 61 * 64; /* stacks that begin alike share the sets of the caches */
#ifndef FIBER_UCONTEXT
  void** top = reinterpret_cast<void**>(fiber->stack + STACK_BYTES - 64 - stagger);
  *--top = nullptr; /* where fiber_entry would return to */
  *--top = reinterpret_cast<void*>(fiber_entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber->stack_pointer = top;
#else
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = STACK_BYTES - stagger;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, fiber_entry, 0);
#endif
  return fiber;
}

/* What is on its stack is dropped, not unwound. */
inline void delete_fiber(Fiber* fiber) {
  munmap(fiber->stack, STACK_BYTES);
  delete fiber;
}

}  // namespace emulator
