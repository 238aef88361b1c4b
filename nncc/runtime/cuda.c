/* cuda.c: devices, contexts and inferences of a model compiled for CUDA. Included at the end of the generated model.c.
 *
 * C11. Needs libc, and a driver from nncc_create on. The mutable static state is the driver, the devices in use, both
 * under rt_mutex, and the thread-local error text. The context that the caller has current is current again on return. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#ifdef NNCC_STATIC_PREFIX
NNCC_API int NNCC_FN(run_on)(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream);
#endif

#include "interface.c"
#include "features.c"

#include "cuda_driver.c"

enum {
  RT_ALIGNMENT = 256, /* bytes: of places in device memory */
  RT_VECTOR = 16,     /* bytes: the widest load of a kernel, and so the alignment that it may count on */
  RT_GRAPHS = 4       /* sets of addresses that a context remembers graphs for */
};

static pthread_mutex_t rt_mutex = PTHREAD_MUTEX_INITIALIZER;

#include "cuda_device.c"

/* A CUDA graph of the program over a set of addresses; without one where they came only once so far. */
typedef struct {
  rt_address* places; /* of inputs, then outputs */
  void* executable;
  unsigned long long used; /* when, as a number of runs */
} rt_graph;

/* One input or output of a run: where the caller has it. Where the kernels do is in the context's `places`. */
typedef struct {
  const char* role; /* "input" or "output" */
  int number;       /* among those */
  const nncc_tensor* tensor;
  void* pointer;
  int on_device;
} rt_transfer;

struct nncc_context {
  rt_device* device;
  void* stream;       /* of nncc_run */
  void* finished;     /* event: the last run that was enqueued has passed */
  int enqueued;       /* nncc_run_on has enqueued a run since the last one that was waited for */
  rt_address arena;
  rt_address staging; /* all inputs, then all outputs, for those that kernels cannot use where they are */
  rt_transfer* transfers; /* of inputs, then outputs, in this run */
  rt_address* places;
  int use_graphs;
  rt_graph graphs[RT_GRAPHS];
  rt_graph profiled;      /* of nncc_profile: with the events */
  unsigned long long runs;
  void** events; /* of nncc_profile: one before each call, one behind the last */
  atomic_int running;
};

struct rt_pass {
  nncc_context* context;
  void* stream;
  void** events; /* NULL but in nncc_profile */
  int captured;  /* whether the stream is being captured, and the events are to be part of the graph */
  int call;      /* whose event was the last to be recorded; -1 before the first */
};

#include "dims.c"

/* ---- what model_invoke calls ---- */

static int rt_begin(rt_pass* pass, int call) {
  while (pass->events && pass->call < call) {
    ++pass->call;
    if (pass->captured) {
      RT_TRY(cuEventRecordWithFlags, (pass->events[pass->call], pass->stream, CU_EVENT_RECORD_EXTERNAL),
             " before call %d", pass->call);
    } else {
      RT_TRY(cuEventRecord, (pass->events[pass->call], pass->stream), " before call %d", pass->call);
    }
  }
  return NNCC_OK;
}

static int rt_launch(rt_pass* pass, int call, int kernel, rt_shape shape, void** parameters) {
  const unsigned *grid = shape.grid, *block = shape.block;
  const int code = rt_begin(pass, call);
  if (code) {
    return code;
  }
  RT_TRY(cuLaunchKernel,
         (pass->context->device->functions[kernel], grid[0], grid[1], grid[2], block[0], block[1], block[2],
          shape.shared_bytes, pass->stream, parameters, NULL),
         " of `%.100s` in call %d with grid %ux%ux%u, block %ux%ux%u and %u bytes of shared memory",
         model_kernels[kernel].symbol, call, grid[0], grid[1], grid[2], block[0], block[1], block[2],
         shape.shared_bytes);
  return NNCC_OK;
}

static int rt_copy(rt_pass* pass, int call, rt_address to, rt_address from, size_t nbytes) {
  const int code = rt_begin(pass, call);
  if (code) {
    return code;
  }
  RT_TRY(cuMemcpyDtoDAsync_v2, (to, from, nbytes, pass->stream), " of %zu bytes in call %d", nbytes, call);
  return NNCC_OK;
}

/* ---- contexts ---- */

static int rt_num_places(void) { return model_info.num_inputs + model_info.num_outputs; }

static const nncc_tensor* rt_tensor(int place) {
  return place < model_info.num_inputs ? &model_info.inputs[place] : &model_info.outputs[place - model_info.num_inputs];
}

static size_t rt_rounded(size_t nbytes) { return (nbytes + RT_ALIGNMENT - 1) & ~(size_t)(RT_ALIGNMENT - 1); }

static int rt_fill_context(nncc_context* context) {
  size_t staging = 0;
  for (int i = 0; i < rt_num_places(); ++i) {
    staging += rt_rounded(rt_tensor(i)->nbytes);
  }
  RT_TRY(cuStreamCreate, (&context->stream, CU_STREAM_DEFAULT), "");
  RT_TRY(cuEventCreate, (&context->finished, CU_EVENT_DISABLE_TIMING), "");
  if (model_info.arena_bytes) {
    RT_TRY(cuMemAlloc_v2, (&context->arena, model_info.arena_bytes), " for %zu bytes of activations",
           model_info.arena_bytes);
  }
  if (staging) {
    RT_TRY(cuMemAlloc_v2, (&context->staging, staging), " for %zu bytes of inputs and outputs", staging);
  }
  return NNCC_OK;
}

/* Failures are not reported: the GPU or the driver is lost, and so is all that was there. */
static void rt_empty_context(nncc_context* context) {
  if (context->stream) {
    rt_cuda.cuStreamSynchronize(context->stream);
  }
  if (context->finished) {
    rt_cuda.cuEventSynchronize(context->finished);
    rt_cuda.cuEventDestroy_v2(context->finished);
  }
  for (int i = 0; i < RT_GRAPHS; ++i) {
    if (context->graphs[i].executable) {
      rt_cuda.cuGraphExecDestroy(context->graphs[i].executable);
    }
  }
  if (context->profiled.executable) {
    rt_cuda.cuGraphExecDestroy(context->profiled.executable);
  }
  for (int i = 0; i <= model_info.num_calls; ++i) {
    if (context->events[i]) {
      rt_cuda.cuEventDestroy_v2(context->events[i]);
    }
  }
  if (context->staging) {
    rt_cuda.cuMemFree_v2(context->staging);
  }
  if (context->arena) {
    rt_cuda.cuMemFree_v2(context->arena);
  }
  if (context->stream) {
    rt_cuda.cuStreamDestroy_v2(context->stream);
  }
}

/* All the memory that the processor needs for a context, in one block. */
static nncc_context* rt_new_context(void) {
  const size_t places = (size_t)rt_num_places();
  const size_t events = (size_t)model_info.num_calls + 1;
  const size_t of_place = sizeof(rt_transfer) + (RT_GRAPHS + 2) * sizeof(rt_address);
  nncc_context* context = calloc(1, sizeof *context + places * of_place + events * sizeof(void*));
  if (context) {
    context->places = (rt_address*)(context + 1);
    context->transfers = (rt_transfer*)(context->places + (RT_GRAPHS + 2) * places);
    context->events = (void**)(context->transfers + places);
    for (int i = 0; i < RT_GRAPHS; ++i) {
      context->graphs[i].places = context->places + (size_t)(i + 1) * places;
    }
    context->profiled.places = context->places + (RT_GRAPHS + 1) * places;
  }
  return context;
}

/* The error text stays. */
static void rt_free_context(nncc_context* context) {
  char reason[sizeof rt_error];
  memcpy(reason, rt_error, sizeof reason);
  if (context->device) {
    if (rt_enter(context->device) == NNCC_OK) {
      rt_empty_context(context);
      rt_leave(NNCC_OK);
    }
    pthread_mutex_lock(&rt_mutex);
    rt_release_device(context->device);
    pthread_mutex_unlock(&rt_mutex);
  }
  free(context);
  memcpy(rt_error, reason, sizeof reason);
}

NNCC_API int NNCC_FN(create)(nncc_context** result, int num_threads) {
  int ordinal = 0, use_graphs = 1;
  if (result) {
    *result = NULL;
  }
  int code = rt_check_processor();
  if (!code && !result) {
    code = rt_fail(NNCC_ERROR_ARGUMENT, "the place for the new context is NULL");
  }
  if (!code && num_threads < 0) {
    code = rt_fail(NNCC_ERROR_ARGUMENT, "%d threads asked for; a library for CUDA takes 0 or more, and uses none",
                   num_threads);
  }
  code = code ? code : rt_environment("NNCC_CUDA_DEVICE", 0, 65535, &ordinal);
  code = code ? code : rt_environment("NNCC_CUDA_GRAPH", 0, 1, &use_graphs);
  if (code) {
    return code;
  }
  nncc_context* context = rt_new_context();
  if (!context) {
    return rt_fail(NNCC_ERROR_MEMORY, "no memory for the description of a context");
  }
  context->use_graphs = use_graphs;
  pthread_mutex_lock(&rt_mutex);
  code = rt_acquire_device(ordinal, &context->device);
  pthread_mutex_unlock(&rt_mutex);
  code = code ? code : rt_enter(context->device);
  if (!code) {
    code = rt_leave(rt_fill_context(context));
  }
  if (code) {
    rt_free_context(context);
    return code;
  }
  *result = context;
  rt_error[0] = 0;
  return NNCC_OK;
}

/* The error text stays: "create failed, destroy what there is, report" is how programs are written. */
NNCC_API void NNCC_FN(destroy)(nncc_context* context) {
  if (context) {
    rt_free_context(context);
  }
}

#include "cuda_graph.c"

#include "cuda_run.c"
