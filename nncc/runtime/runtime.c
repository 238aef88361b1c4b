/* runtime.c: contexts, threads and scratch memory of a compiled model. Included at the end of the generated model.c.
 *
 * C11. Needs libc, and pthreads unless NNCC_NO_THREADS. The only mutable static state is thread-local. Everything is
 * static but the public functions of nncc.h and the hidden ones that kernels call. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#ifndef NNCC_NO_THREADS
#include <pthread.h>
#if defined(_WIN32)
#include <windows.h>
#else
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#endif
#endif

#ifndef NNCC_SPIN_SECONDS
#define NNCC_SPIN_SECONDS 100e-6 /* about what waking a sleeping thread costs */
#endif

enum { RT_LINE = 64, RT_LARGE_PAGE = 2 << 20, RT_MAX_THREADS = 1024 };

/* What TVM's kernels expect of a parallel launch (tvm/runtime/c_backend_api.h). */
typedef struct {
  void* sync_handle;
  int32_t num_task;
} rt_group;
typedef int (*rt_task)(int task_id, rt_group* group, void* data);

NNCC_HIDDEN int NNCC_SYM_PARALLEL_LAUNCH(rt_task task, void* data, int num_task);
NNCC_HIDDEN int NNCC_SYM_PARALLEL_BARRIER(int task_id, rt_group* group);
NNCC_HIDDEN void* NNCC_SYM_ALLOC_WORKSPACE(int device_type, int device_id, uint64_t nbytes, int dtype_code, int bits);
NNCC_HIDDEN int NNCC_SYM_FREE_WORKSPACE(int device_type, int device_id, void* pointer);
NNCC_HIDDEN void NNCC_SYM_RAISE(const char* kind, const char* message);
NNCC_HIDDEN void NNCC_SYM_RAISE_PARTS(const char* kind, const char** parts, int32_t num_parts);
NNCC_HIDDEN int NNCC_SYM_REGISTER_SYMBOL(const char* name, void* symbol);

#include "interface.c"

#ifdef NNCC_ACCELERATOR
#include "accelerator.c"
#endif

/* One thread of a context. Thread 0 is whichever thread calls nncc_run, so it has no handle. */
typedef struct {
  nncc_context* context;
  uint8_t* scratch;
#ifndef NNCC_NO_THREADS
  pthread_t handle;
#endif
} rt_thread;

/* A launch publishes a job and `unclaimed`, its number of tasks. Whoever finds it above 0 claims task `unclaimed - 1`
 * by compare-and-swap of `unclaimed` to that. A thread that slept between load and swap through other launches does no
 * harm: a swap that succeeds claims that task of the job that is published now.
 *
 * The job's fields need no lock. They are written before `unclaimed` is published (release) and read after a claim
 * (acquire; further claims in between belong to the same release sequence). The launcher writes them again only when
 * `pending`, which each claimed task lowers when it is done (release), is back at 0 (acquire). As the launcher claims
 * tasks too, it never waits for a thread that sleeps or was not scheduled, only for tasks that another thread began.
 *
 * Two pairs go to sleep against each other: (unclaimed, sleepers) and (pending, launcher_sleeps). Each side writes its
 * own and then reads the other's, all sequentially consistent: then at least one of the two sees the other's write, so
 * either the one does not go to sleep or the other wakes it. The mutex, held by the sleeper from its write until
 * pthread_cond_wait has begun and by the waker around the signal, closes the gap in between. */
struct nncc_context {
  void* allocation; /* what free() wants: this structure, `threads`, arena and scratch are one block */
  uint8_t* arena;
  rt_thread* threads;
  int num_threads;
#ifdef NNCC_ACCELERATOR
  rt_accelerator accelerator;
#endif
  atomic_int running; /* two runs at once would share the arena: the second is refused */
#ifdef NNCC_DIMS
  int64_t sizes[NNCC_DIMS]; /* of the open dimensions */
#endif
#ifndef NNCC_NO_THREADS
  rt_task task;
  void* data;
  rt_group group;
  atomic_int failed;  /* the first nonzero value that a task of this job returned */
  char failure[256];  /* written by the task that set `failed`, read when all are done */
  pthread_mutex_t mutex;
  pthread_cond_t work_arrived;
  pthread_cond_t work_done;
  _Alignas(RT_LINE) atomic_int unclaimed;
  atomic_int sleepers;
  atomic_int stop;
  _Alignas(RT_LINE) atomic_int pending;
  atomic_int launcher_sleeps;
#endif
};

static _Thread_local struct {
  const rt_thread* thread; /* of which context, while this thread serves one; else NULL */
  size_t scratch_used;
  int inside_task; /* a launch from a task runs inline: its thread pool is busy with the outer one */
} rt_self;

/* ---- errors ---- */

NNCC_HIDDEN void NNCC_SYM_RAISE(const char* kind, const char* message) { rt_fail(0, "%s: %s", kind, message); }

NNCC_HIDDEN void NNCC_SYM_RAISE_PARTS(const char* kind, const char** parts, int32_t num_parts) {
  rt_fail(0, "%s: ", kind);
  for (int32_t i = 0; i < num_parts; ++i) {
    const size_t used = strlen(rt_error);
    snprintf(rt_error + used, sizeof rt_error - used, "%s", parts[i]);
  }
}

#include "features.c"

#ifdef NNCC_ACCELERATOR
/* Only model_invoke asks. */
static rt_accelerator* rt_accelerator_here(void) { return &rt_self.thread->context->accelerator; }
#endif

/* ---- scratch memory ---- */

/* Each thread of a context owns scratch_bytes, handed out like a stack. The compiler knows what its kernels ask for, so
 * a request that does not fit is a defect and fails; nothing is ever taken from the heap while running. */
NNCC_HIDDEN void* NNCC_SYM_ALLOC_WORKSPACE(int device_type, int device_id, uint64_t nbytes, int dtype_code, int bits) {
  (void)device_type, (void)device_id, (void)dtype_code, (void)bits;
  const size_t left = rt_self.thread ? model_info.scratch_bytes - rt_self.scratch_used : 0;
  if (!rt_self.thread || nbytes > left) {
    rt_fail(0, "the kernel asks for %llu bytes of scratch memory and %llu of %llu are left", (unsigned long long)nbytes,
            (unsigned long long)left, (unsigned long long)model_info.scratch_bytes);
    return NULL;
  }
  uint8_t* pointer = rt_self.thread->scratch + rt_self.scratch_used;
  const size_t rounded = ((size_t)nbytes + RT_LINE - 1) & ~(size_t)(RT_LINE - 1);
  rt_self.scratch_used += rounded < left ? rounded : left;
  return pointer;
}

/* Kernels free at the end of a scope all that they took in it, in either order. */
NNCC_HIDDEN int NNCC_SYM_FREE_WORKSPACE(int device_type, int device_id, void* pointer) {
  (void)device_type, (void)device_id;
  if (rt_self.thread && pointer) {
    const size_t offset = (size_t)((uint8_t*)pointer - rt_self.thread->scratch);
    if (offset < rt_self.scratch_used) {
      rt_self.scratch_used = offset;
    }
  }
  return 0;
}

/* ---- threads ---- */

static int rt_run_inline(rt_task task, void* data, int num_task) {
  rt_group group = {NULL, num_task > 0 ? num_task : 1};
  for (int i = 0; i < group.num_task; ++i) {
    const int failed = task(i, &group, data);
    if (failed) {
      return failed;
    }
  }
  return 0;
}

#ifdef NNCC_NO_THREADS

NNCC_HIDDEN int NNCC_SYM_PARALLEL_LAUNCH(rt_task task, void* data, int num_task) {
  return rt_run_inline(task, data, num_task);
}

static int rt_processors(void) { return 1; }

static int rt_start_threads(nncc_context* context) {
  if (context->num_threads > 1) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "%d threads asked for; this library was compiled without threads",
                   context->num_threads);
  }
  return NNCC_OK;
}

static void rt_stop_threads(nncc_context* context) { (void)context; }

#else

/* Tell the processor that this is a spin loop: it saves power and leaves the core to the other hyperthread. */
static inline void rt_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory"); /* `yield` is a nop on most cores; isb takes tens of cycles */
#elif defined(__arm__)
  __asm__ volatile("yield" ::: "memory");
#endif
}

/* Whether a loop that has gone round `*rounds` times since it last saw progress should go on spinning. */
static int rt_spin(unsigned* rounds, double* deadline) {
  if (++*rounds % 64 == 0) { /* reading the clock costs as much as a pause or two */
    const double now = nncc_seconds();
    if (*rounds == 64) {
      *deadline = now + NNCC_SPIN_SECONDS;
    }
    return now < *deadline;
  }
  rt_pause();
  return 1;
}

static void rt_finish_task(nncc_context* context) {
  if (atomic_fetch_sub(&context->pending, 1) == 1 && atomic_load(&context->launcher_sleeps)) {
    pthread_mutex_lock(&context->mutex);
    pthread_cond_signal(&context->work_done);
    pthread_mutex_unlock(&context->mutex);
  }
}

static void rt_wait_until_done(nncc_context* context) {
  unsigned rounds = 0;
  double deadline = 0;
  while (atomic_load_explicit(&context->pending, memory_order_acquire)) {
    if (!rt_spin(&rounds, &deadline)) {
      pthread_mutex_lock(&context->mutex);
      atomic_store(&context->launcher_sleeps, 1);
      while (atomic_load(&context->pending)) {
        pthread_cond_wait(&context->work_done, &context->mutex);
      }
      atomic_store(&context->launcher_sleeps, 0);
      pthread_mutex_unlock(&context->mutex);
    }
  }
}

/* Claim tasks and run them until none is left. */
static void rt_work(nncc_context* context) {
  int unclaimed = atomic_load_explicit(&context->unclaimed, memory_order_relaxed);
  while (unclaimed) {
    if (!atomic_compare_exchange_weak_explicit(&context->unclaimed, &unclaimed, unclaimed - 1, memory_order_acquire,
                                               memory_order_relaxed)) {
      continue;
    }
    const size_t scratch_used = rt_self.scratch_used;
    rt_error[0] = 0;
    const int failed = context->task(unclaimed - 1, &context->group, context->data);
    rt_self.scratch_used = scratch_used; /* a task that failed may not have freed what it took */
    int none = 0;
    if (failed && atomic_compare_exchange_strong(&context->failed, &none, failed)) {
      snprintf(context->failure, sizeof context->failure, "%.*s", (int)sizeof context->failure - 1, rt_error);
    }
    rt_finish_task(context);
    unclaimed = atomic_load_explicit(&context->unclaimed, memory_order_relaxed);
  }
}

static void* rt_thread_main(void* argument) {
  const rt_thread* thread = argument;
  nncc_context* context = thread->context;
  rt_self.thread = thread; /* this first touch of thread-local memory may allocate it: nncc_create waits for it */
  rt_self.inside_task = 1;
  rt_error[0] = 0;
  rt_finish_task(context);
  for (;;) {
    unsigned rounds = 0;
    double deadline = 0;
    while (!atomic_load(&context->unclaimed)) {
      if (atomic_load_explicit(&context->stop, memory_order_relaxed)) {
        return NULL;
      }
      if (!rt_spin(&rounds, &deadline)) {
        pthread_mutex_lock(&context->mutex);
        atomic_fetch_add(&context->sleepers, 1);
        while (!atomic_load(&context->unclaimed) && !atomic_load(&context->stop)) {
          pthread_cond_wait(&context->work_arrived, &context->mutex);
        }
        atomic_fetch_sub(&context->sleepers, 1);
        pthread_mutex_unlock(&context->mutex);
      }
    }
    rt_work(context);
  }
}

NNCC_HIDDEN int NNCC_SYM_PARALLEL_LAUNCH(rt_task task, void* data, int num_task) {
  if (!rt_self.thread || rt_self.inside_task || num_task == 1 || rt_self.thread->context->num_threads == 1) {
    return rt_run_inline(task, data, num_task);
  }
  nncc_context* context = rt_self.thread->context;
  const int tasks = num_task > 0 ? num_task : context->num_threads;
  context->task = task;
  context->data = data;
  context->group.num_task = tasks;
  atomic_store_explicit(&context->failed, 0, memory_order_relaxed);
  atomic_store_explicit(&context->pending, tasks, memory_order_relaxed);
  atomic_store(&context->unclaimed, tasks);
  if (atomic_load(&context->sleepers)) {
    pthread_mutex_lock(&context->mutex);
    pthread_cond_broadcast(&context->work_arrived);
    pthread_mutex_unlock(&context->mutex);
  }
  rt_self.inside_task = 1;
  rt_work(context);
  rt_self.inside_task = 0;
  rt_wait_until_done(context);
  const int failed = atomic_load_explicit(&context->failed, memory_order_relaxed);
  if (failed) {
    rt_fail(0, "%s", context->failure);
  }
  return failed;
}

/* Processors that this process may use. */
static int rt_processors(void) {
#if defined(_WIN32)
  SYSTEM_INFO system;
  GetSystemInfo(&system);
  const long count = (long)system.dwNumberOfProcessors;
#else
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return CPU_COUNT(&set);
  }
#endif
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
#endif
  return count < 1 ? 1 : count > RT_MAX_THREADS ? RT_MAX_THREADS : (int)count;
}

static void rt_join_threads(nncc_context* context, int made) {
  pthread_mutex_lock(&context->mutex);
  atomic_store(&context->stop, 1);
  pthread_cond_broadcast(&context->work_arrived);
  pthread_mutex_unlock(&context->mutex);
  for (int i = 1; i < made; ++i) {
    pthread_join(context->threads[i].handle, NULL);
  }
  pthread_cond_destroy(&context->work_arrived);
  pthread_cond_destroy(&context->work_done);
  pthread_mutex_destroy(&context->mutex);
}

static void rt_stop_threads(nncc_context* context) {
  if (context->num_threads > 1) {
    rt_join_threads(context, context->num_threads);
  }
}

static int rt_start_threads(nncc_context* context) {
  if (context->num_threads == 1) {
    return NNCC_OK;
  }
  pthread_mutex_init(&context->mutex, NULL);
  pthread_cond_init(&context->work_arrived, NULL);
  pthread_cond_init(&context->work_done, NULL);
#if !defined(_WIN32)
  sigset_t all, before; /* the program's signal handlers run on the program's own threads */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
  int made = 1, failed = 0;
  while (made < context->num_threads && !failed) {
    atomic_fetch_add(&context->pending, 1);
    failed = pthread_create(&context->threads[made].handle, NULL, rt_thread_main, &context->threads[made]);
    made += !failed;
  }
#if !defined(_WIN32)
  pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
  if (failed) {
    rt_join_threads(context, made);
    return rt_fail(NNCC_ERROR_MEMORY, "thread %d of %d cannot be made: %s", made + 1, context->num_threads,
                   strerror(failed));
  }
  rt_wait_until_done(context);
  return NNCC_OK;
}

#endif

NNCC_HIDDEN int NNCC_SYM_PARALLEL_BARRIER(int task_id, rt_group* group) {
  (void)task_id, (void)group;
  rt_fail(0, "the kernel waits at a barrier, which this runtime does not have");
  return -1;
}

/* Kernels compiled as a TVM "system library" announce their symbols when they are loaded; here nobody looks them up. */
NNCC_HIDDEN int NNCC_SYM_REGISTER_SYMBOL(const char* name, void* symbol) {
  (void)name, (void)symbol;
  return 0;
}

/* ---- the public functions ---- */

#include "dims.c"

/* Reserve `size` bytes at a multiple of a cache line behind `*used`; SIZE_MAX for `*used` once the sum overflows. */
static size_t rt_reserve(size_t* used, size_t size) {
  const size_t at = *used;
  if (at > SIZE_MAX - 2 * RT_LINE || size > SIZE_MAX - 2 * RT_LINE - at) {
    *used = SIZE_MAX;
  } else {
    *used = (at + size + RT_LINE - 1) & ~(size_t)(RT_LINE - 1);
  }
  return at;
}

/* Constants that are stored without their zeros lie in the arena, where no call writes. */
static int rt_expand_constants(uint8_t* arena) {
  (void)arena;
#ifdef NNCC_PACKED
  for (int i = 0; i < NNCC_PACKED; ++i) {
    const nncc_packed* packed = &packed_constants[i];
    if (!nncc_expand(packed, NNCC_WEIGHTS + packed->from, arena + packed->to)) {
      return rt_fail(NNCC_ERROR_KERNEL, "constant %d of this library is damaged; copy or compile it again", i);
    }
  }
#endif
  return NNCC_OK;
}

static void rt_free(nncc_context* context) {
#ifdef NNCC_ACCELERATOR
  rt_close_accelerator(&context->accelerator);
#endif
  free(context->allocation);
}

/* `device` is the accelerator's driver and what it opens, NULL for what the environment says. */
static int rt_create(nncc_context** result, int num_threads, const char* device) {
  const int code = rt_check_processor();
  if (result) {
    *result = NULL;
  }
  if (code) {
    return code;
  }
  if (!result) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the place for the new context is NULL");
  }
  if (num_threads < 0 || num_threads > RT_MAX_THREADS) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "%d threads asked for; expected 1 to %d, or 0 for one per processor",
                   num_threads, (int)RT_MAX_THREADS);
  }
  const size_t threads = (size_t)(num_threads ? num_threads : rt_processors());
  size_t used = 0;
  rt_reserve(&used, sizeof(nncc_context));
  const size_t threads_at = rt_reserve(&used, threads * sizeof(rt_thread));
#ifdef NNCC_ACCELERATOR
  const size_t arena_at = used; /* its driver has the arena */
#else
  (void)device;
  const size_t arena_at = rt_reserve(&used, model_info.arena_bytes);
#endif
  const size_t scratch_at = used;
  for (size_t i = 0; i < threads; ++i) {
    rt_reserve(&used, model_info.scratch_bytes);
  }
  const size_t alignment = used < RT_LARGE_PAGE ? RT_LINE : RT_LARGE_PAGE;
  void* allocation = used > SIZE_MAX - alignment ? NULL : malloc(used + alignment);
  if (!allocation) {
    return rt_fail(NNCC_ERROR_MEMORY,
                   "no memory for the arena of %llu bytes and %llu bytes of scratch for each of %llu threads",
                   (unsigned long long)model_info.arena_bytes, (unsigned long long)model_info.scratch_bytes,
                   (unsigned long long)threads);
  }
  uint8_t* base = (uint8_t*)(((uintptr_t)allocation + alignment - 1) & ~(uintptr_t)(alignment - 1));
#if defined(MADV_HUGEPAGE)
  if (alignment == RT_LARGE_PAGE) {
    madvise(base, used, MADV_HUGEPAGE); /* fewer misses of the TLB; what Linux does not grant is no error */
  }
#endif
  nncc_context* context = (nncc_context*)base;
  memset(base, 0, arena_at);
  context->allocation = allocation;
  context->arena = base + arena_at;
  context->threads = (rt_thread*)(base + threads_at);
  context->num_threads = (int)threads;
#ifdef NNCC_DIMS
  rt_first_sizes(context->sizes);
#endif
  for (size_t i = 0; i < threads; ++i) {
    context->threads[i].context = context;
    context->threads[i].scratch = base + scratch_at + i * ((used - scratch_at) / threads);
  }
#ifdef NNCC_ACCELERATOR
  int failed = rt_open_accelerator(&context->accelerator, device);
  context->arena = context->accelerator.arena;
  if (!failed) {
    failed = rt_expand_constants(context->arena);
  }
#else
  int failed = rt_expand_constants(context->arena);
#endif
  if (!failed) {
    failed = rt_start_threads(context);
  }
  if (failed) {
    rt_free(context);
    return failed;
  }
  *result = context;
  rt_error[0] = 0;
  return NNCC_OK;
}

NNCC_API int NNCC_FN(create)(nncc_context** result, int num_threads) { return rt_create(result, num_threads, NULL); }

/* The error text stays: "create failed, destroy what there is, report" is how programs are written. */
NNCC_API void NNCC_FN(destroy)(nncc_context* context) {
  if (context) {
    rt_stop_threads(context);
    rt_free(context);
  }
}

static int rt_run(nncc_context* context, const void* const* inputs, void* const* outputs, double* seconds) {
  const int code = rt_check_arguments(context, inputs, outputs);
  if (code) {
    return code;
  }
  if (atomic_exchange_explicit(&context->running, 1, memory_order_acquire)) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "this context is running in another thread; make one context for each thread");
  }
  rt_self.thread = &context->threads[0];
  rt_self.scratch_used = 0;
  rt_error[0] = 0;
#ifdef NNCC_DIMS
  int64_t* sizes = context->sizes;
#else
  int64_t* sizes = NULL;
#endif
#ifdef NNCC_ACCELERATOR
  rt_begin_inference(&context->accelerator);
#endif
  const int32_t failed = model_invoke(context->arena, NNCC_WEIGHTS, sizes, inputs, outputs, seconds);
  rt_self.thread = NULL;
  atomic_store_explicit(&context->running, 0, memory_order_release);
  if (!failed) {
    rt_error[0] = 0;
    return NNCC_OK;
  }
  char reason[sizeof rt_error];
  memcpy(reason, rt_error, sizeof reason);
  return rt_fail(NNCC_ERROR_KERNEL, "kernel %d (%s) failed: %.400s", (int)failed - 1, model_info.call_names[failed - 1],
                 *reason ? reason : "it gave no reason");
}

NNCC_API int NNCC_FN(run)(nncc_context* context, const void* const* inputs, void* const* outputs) {
  return rt_run(context, inputs, outputs, NULL);
}

NNCC_API int NNCC_FN(profile)(nncc_context* context, const void* const* inputs, void* const* outputs, double* seconds) {
  if (!seconds && model_info.num_calls > 0) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the array for the seconds of each call is NULL");
  }
  return rt_run(context, inputs, outputs, seconds);
}

#ifdef NNCC_ACCELERATOR
NNCC_API int NNCC_FN(create_on)(nncc_context** result, int num_threads, const char* device) {
  return rt_create(result, num_threads, device);
}

NNCC_API const char* NNCC_FN(device_wanted)(void) { return model_machine.json; }

NNCC_API const char* NNCC_FN(device)(nncc_context* context) { return context ? context->accelerator.about : ""; }

NNCC_API int NNCC_FN(counters)(nncc_context* context, const char** names, uint64_t* values, int most) {
  int count = 0;
  for (; context && count < most && count < (int)context->accelerator.num_counters; ++count) {
    names[count] = context->accelerator.names[count];
    values[count] = context->accelerator.counters[count];
  }
  return count;
}

NNCC_API int NNCC_FN(cycles)(nncc_context* context, uint64_t* cycles) {
  if (!context || !cycles) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the %s is NULL", context ? "array for the cycles of each call" : "context");
  }
  if (!context->accelerator.cycles_known) {
    return rt_fail(NNCC_ERROR_DEVICE, "there was no inference yet, or the device does not count cycles");
  }
  memcpy(cycles, context->accelerator.cycles, sizeof context->accelerator.cycles);
  return NNCC_OK;
}
#endif

#if defined(__riscv_float_abi_single) || defined(__riscv_float_abi_double)
/* Conversions of float16, where the processor has none. LLVM hands a half over in a floating-point register; the weak
 * functions that TVM puts beside its kernels take it in an integer register, and so convert garbage. These come first in
 * the link and win. A half is the lower 16 bits of `carrier`, the others are ones. */
NNCC_HIDDEN __attribute__((weak)) float __extendhfsf2(float carrier) {
  uint32_t bits;
  memcpy(&bits, &carrier, sizeof bits);
  const uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  if (rest < 0x0400u) { /* zero and subnormals: multiples of 2^-24 */
    const float value = (float)rest * 0x1p-24f;
    memcpy(&bits, &value, sizeof bits);
  } else { /* infinity and NaN keep the largest exponent */
    bits = (rest << 13) + (rest < 0x7c00u ? 112u << 23 : 224u << 23);
  }
  bits |= sign;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

NNCC_HIDDEN __attribute__((weak)) float __truncsfhf2(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) {
    half = 0x7e00u | ((bits >> 13) & 0x1ffu);
  } else if (bits >= 0x477ff000u) { /* 65520 and above round to infinity */
    half = 0x7c00u;
  } else if (bits < 0x38800000u) { /* below 2^-14: adding 0.5 rounds to a multiple of 2^-24, to even */
    float small;
    memcpy(&small, &bits, sizeof small);
    small += 0.5f;
    memcpy(&half, &small, sizeof half);
    half -= 0x3f000000u;
  } else { /* to nearest, to even */
    half = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;
  }
  bits = 0xffff0000u | sign | half;
  memcpy(&value, &bits, sizeof value);
  return value;
}
#endif
