/* What TVM would have compiled: kernels with bare pointers that call the runtime by TVM's names. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef RENAMED /* as the linker step of a static archive renames symbols of the kernel object */
#define TVMBackendParallelLaunch nncc_0123456789abcdef_pl
#define TVMBackendAllocWorkspace nncc_0123456789abcdef_aw
#define TVMBackendFreeWorkspace nncc_0123456789abcdef_fw
#define TVMFFIErrorSetRaisedFromCStr nncc_0123456789abcdef_er
#define TVMFFIErrorSetRaisedFromCStrParts nncc_0123456789abcdef_ep
#define fake_scale second_scale
#define fake_behave second_behave
#define fake_exact second_exact
#endif

typedef struct {
  void* sync_handle;
  int32_t num_task;
} group_env;
typedef int (*task_function)(int, group_env*, void*);
extern int TVMBackendParallelLaunch(task_function, void*, int);
extern void* TVMBackendAllocWorkspace(int, int, uint64_t, int, int);
extern int TVMBackendFreeWorkspace(int, int, void*);
extern void TVMFFIErrorSetRaisedFromCStr(const char*, const char*);
extern void TVMFFIErrorSetRaisedFromCStrParts(const char*, const char**, int32_t);

typedef struct {
  const float *x, *w;
  float* y;
  int64_t* counts;
  int32_t mode;
  _Atomic int32_t seen[16];
  _Atomic int32_t wrong;
} job;

static int scale_task(int id, group_env* env, void* data) {
  job* j = data;
  for (int i = 32 * id / env->num_task; i < 32 * (id + 1) / env->num_task; ++i) j->y[i] = j->x[i] * j->w[i];
  return 0;
}

/* y = x * w over 32 floats, in as many tasks as the runtime likes. */
int32_t fake_scale(const void* x, const void* w, void* y) {
  job j = {.x = x, .w = w, .y = y};
  return TVMBackendParallelLaunch(scale_task, &j, 0);
}

static int count_task(int id, group_env* env, void* data) {
  job* j = data;
  if (id < 0 || id >= env->num_task || id >= 16) {
    j->wrong = 1;
    return 0;
  }
  unsigned char* mine = TVMBackendAllocWorkspace(1, 0, 256, 0, 8);
  if (!mine) return -1;
  for (int i = 0; i < 256; ++i) mine[i] = (unsigned char)id;
  j->seen[id]++;
  for (int i = 0; i < 256; ++i) j->wrong |= mine[i] != (unsigned char)id; /* another task wrote to this scratch */
  TVMBackendFreeWorkspace(1, 0, mine);
  return 0;
}

/* 20 000 launches of 1 to 9 tasks: counts[0] tasks ran, counts[1] launches in which not each task ran exactly once. */
int32_t fake_exact(int64_t* counts, int32_t launches) {
  counts[0] = counts[1] = 0;
  for (int n = 0; n < launches; ++n) {
    const int tasks = 1 + n % 9;
    job j = {.wrong = 0};
    if (TVMBackendParallelLaunch(count_task, &j, tasks)) return -1;
    int exact = !j.wrong;
    for (int i = 0; i < 16; ++i) {
      exact &= j.seen[i] == (i < tasks);
      counts[0] += j.seen[i];
    }
    counts[1] += !exact;
  }
  return 0;
}

static int nested_task(int id, group_env* env, void* data) {
  (void)env;
  job* inner = &((job*)data)[id];
  return TVMBackendParallelLaunch(count_task, inner, 3);
}

static int raising_task(int id, group_env* env, void* data) {
  (void)env, (void)data;
  if (id % 2) {
    TVMFFIErrorSetRaisedFromCStr("ValueError", "index 7 is out of range");
    return -1;
  }
  return 0;
}

static int silent_task(int id, group_env* env, void* data) {
  (void)id, (void)env, (void)data;
  return -1;
}

static int greedy_task(int id, group_env* env, void* data) {
  (void)id, (void)env, (void)data;
  return TVMBackendAllocWorkspace(1, 0, 5000, 0, 8) ? 0 : -1;
}

static int leaking_task(int id, group_env* env, void* data) {
  (void)id, (void)env, (void)data;
  if (!TVMBackendAllocWorkspace(1, 0, 3000, 0, 8)) return -1;
  TVMFFIErrorSetRaisedFromCStr("ValueError", "left without freeing");
  return -1;
}

static int meeting_task(int id, group_env* env, void* data) {
  (void)id;
  job* j = data;
  j->seen[0]++;
  for (int i = 0; i < 20000 && j->seen[0] < env->num_task; ++i) nanosleep(&(struct timespec){0, 1000000}, NULL);
  return j->seen[0] == env->num_task ? 0 : -1;
}

static int slow_task(int id, group_env* env, void* data) {
  (void)id, (void)env;
  for (long i = 0; i < 30000000; ++i) *(volatile int32_t*)&((job*)data)->mode += 1;
  return 0;
}

/* Does what `mode` says. */
int32_t fake_behave(const int32_t* mode, int64_t* counts) {
  job jobs[4] = {{.wrong = 0}};
  const char* parts[] = {"shape ", "mis", "match"};
  switch (*mode) {
    case 1: return TVMBackendParallelLaunch(raising_task, jobs, 4);
    case 2: return TVMBackendParallelLaunch(greedy_task, jobs, 2);
    case 3: return fake_exact(counts, 20000);
    case 4:
      if (TVMBackendParallelLaunch(nested_task, jobs, 4)) return -1;
      counts[0] = counts[1] = 0;
      for (int i = 0; i < 4; ++i) {
        counts[0] += jobs[i].seen[0] + jobs[i].seen[1] + jobs[i].seen[2];
        counts[1] += jobs[i].wrong;
      }
      return 0;
    case 5: TVMFFIErrorSetRaisedFromCStrParts("AssertionError", parts, 3); return -1;
    case 6: return TVMBackendParallelLaunch(silent_task, jobs, 4);
    case 7: return TVMBackendParallelLaunch(slow_task, jobs, 1);
    case 8: { /* scratch is a stack: what was freed can be had again, and all of it */
      for (int i = 0; i < 100; ++i) {
        char* a = TVMBackendAllocWorkspace(1, 0, 1000, 0, 8);
        char* b = TVMBackendAllocWorkspace(1, 0, 3000, 0, 8);
        if (!a || !b || b - a < 1000 || (uintptr_t)a % 64 || (uintptr_t)b % 64) return -1;
        TVMBackendFreeWorkspace(1, 0, i % 2 ? a : b); /* in either order */
        TVMBackendFreeWorkspace(1, 0, i % 2 ? b : a);
      }
      return 0;
    }
    case 9: return TVMBackendParallelLaunch(leaking_task, jobs, 4);
    case 10: return TVMBackendParallelLaunch(meeting_task, jobs, 3); /* tasks that wait for each other */
    default: counts[0] = *mode; counts[1] = 0; return 0;
  }
}
