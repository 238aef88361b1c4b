/* nncc.h: the C interface of every library that nncc compiles, the same for every model and target.
 *
 * C99 and C++. A context holds one arena and one thread pool; it belongs to one thread at a time. Several contexts,
 * of one library or of many, may run at once. No function allocates memory but nncc_create.
 *
 * Libraries for CUDA have the same functions and one more, nncc_run_on; what differs is said at its declaration. */
#ifndef NNCC_H
#define NNCC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NNCC_ABI_VERSION 4

#if defined(_WIN32)
#define NNCC_API __declspec(dllexport)
#elif defined(__GNUC__)
#define NNCC_API __attribute__((visibility("default")))
#else
#define NNCC_API
#endif

enum {
  NNCC_OK = 0,
  NNCC_ERROR_ARGUMENT = 1,    /* a null pointer, a context that is running already */
  NNCC_ERROR_MEMORY = 2,      /* the arena or the thread pool could not be allocated */
  NNCC_ERROR_CPU = 3,         /* this processor lacks a feature that the kernels were compiled for */
  NNCC_ERROR_KERNEL = 4,      /* a kernel refused its data; nncc_create: the library is damaged */
  NNCC_ERROR_DEVICE = 5       /* there is no GPU or accelerator that can run this, or a call of its driver failed */
};

/* A tensor: densely packed, row-major. Pointers handed to nncc_run may have any
 * alignment; on 32-bit Arm that of their elements. Elements of 8 and fewer bits
 * are a byte each: of "int4" and "int2" with the sign extended, of "uint4",
 * "uint2" and "float4_e2m1fn" in the low bits; of inputs only those count. */
typedef struct nncc_tensor {
  const char* name;
  const char* dtype;    /* numpy's or ml_dtypes' word: "float32", "int64", "bool", "float8_e5m2", ... */
  int32_t ndim;
  const int64_t* shape; /* the largest, where there are open dimensions */
  size_t nbytes;        /* of that shape */
  const int32_t* dims;  /* NULL where all sizes are fixed; else by axis the number of the open dimension that its size
                           is, -1 where it is fixed or computed from some: see nncc_output_shape */
} nncc_tensor;

/* A dimension whose size is chosen when the library runs, from `low` to `high`, both inclusive: by nncc_resize, or
 * where it is `from_data`, by what a run has selected. */
typedef struct nncc_dim {
  const char* name;
  int64_t low;
  int64_t high;
  int32_t from_data;
} nncc_dim;

/* What the library says of itself. Every pointer lives as long as the library is loaded. */
typedef struct nncc_info {
  int32_t abi_version;
  int32_t num_inputs;
  int32_t num_outputs;
  int32_t num_calls;              /* kernel calls of one inference; with open dimensions, of all variants */
  const char* name;               /* of the model */
  const char* target;             /* e.g. "rpi4" */
  const char* build;              /* hash of program, weights and target, in hexadecimal */
  const char* compiler;           /* e.g. "nncc 0.1.0" */
  const char* features;           /* processor features needed, separated by commas: "avx2,fma" */
  const nncc_tensor* inputs;
  const nncc_tensor* outputs;
  const char* const* call_names;  /* num_calls names of kernels */
  const double* call_flops;       /* num_calls counts of floating-point operations, 0 where not known */
  const double* call_multiplications; /* num_calls counts of those among them that multiply or divide */
  const double* call_bytes;       /* num_calls sizes: of the distinct tensors that the call reads and writes */
  const double* call_weight_bytes; /* num_calls sizes: of those among them that are weights */
  size_t arena_bytes;             /* allocated once per context */
  size_t scratch_bytes;           /* allocated once per thread of a context */
  size_t weights_bytes;           /* read-only, part of the library */
  int32_t num_dims;               /* open dimensions: 0 where all sizes are fixed */
  int32_t num_variants;           /* ways to run, of which the first that is for the sizes is taken */
  const nncc_dim* dims;
  const int64_t* variants;        /* num_variants times num_dims sizes; 0 is for any */
} nncc_info;

typedef struct nncc_context nncc_context;

NNCC_API const nncc_info* nncc_describe(void);

/* Make a context with `num_threads` threads, the caller's included; 0 means one per processor. */
NNCC_API int nncc_create(nncc_context** context, int num_threads);

/* Choose the sizes of the info->num_dims open dimensions for the runs to come. At first they are the highest (or those
 * of the last variant, where there is none for these). Where a size is outside of its range, or there is no variant for
 * the sizes, that is an error, and the old ones stay. */
NNCC_API int nncc_resize(nncc_context* context, const int64_t* sizes);

/* The shape of an input or output at the sizes chosen: sets its ndim numbers. Outputs whose size is `from_data` have room
 * for the largest until a run has written them, and then the shape that is told here, densely packed. */
NNCC_API int nncc_input_shape(const nncc_context* context, int32_t input, int64_t* shape);
NNCC_API int nncc_output_shape(const nncc_context* context, int32_t output, int64_t* shape);

/* One inference: info->num_inputs pointers in, info->num_outputs pointers out. */
NNCC_API int nncc_run(nncc_context* context, const void* const* inputs, void* const* outputs);

/* The same, adding the seconds of each kernel call to seconds[info->num_calls]. */
NNCC_API int nncc_profile(nncc_context* context, const void* const* inputs, void* const* outputs, double* seconds);

/* Of libraries for CUDA only. A context is one arena, in the memory of one GPU: that of number NNCC_CUDA_DEVICE of the
 * environment, else 0. nncc_create takes num_threads and does without threads; it is the first to need the driver, and
 * the contexts of one GPU share kernels and weights. nncc_run takes pointers to the memory of the processor or of this
 * GPU, in any mixture, and returns when all is done. From the second run with the same device pointers on, it replays
 * a CUDA graph, whose capture the driver may allocate memory for; with NNCC_CUDA_GRAPH=0 in the environment, kernels
 * are always launched one by one. nncc_profile measures by the clock of the GPU, in a graph of its own.
 *
 * nncc_run_on enqueues an inference in `stream`, a CUstream or cudaStream_t of this GPU's primary context (NULL is the
 * legacy default stream), and returns at once; all pointers are to device or managed memory, and stay valid until the
 * stream has passed. Inferences of one context come one after the other, in whatever streams they are. A stream that is
 * being captured gets the launches; replays of such a graph are the caller's to keep apart from other runs. */
NNCC_API int nncc_run_on(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream);

/* Of libraries for accelerators only. Arena and constants of a context lie in memory of the accelerator's driver, a
 * library that nncc_create opens: NNCC_ACCELERATOR in the environment is its path, then a colon and what it opens
 * ("sim:memory=ideal"). nncc_create_on takes the same text instead. nncc_profile takes the seconds of what runs on the
 * accelerator from its cycles and its clock.
 *
 * nncc_device_wanted says in JSON which machine the library's programs are for; nncc_device says which device a context
 * has. Of the last inference, nncc_counters gives the names and values of the device's counters, at most `most` of
 * them, and returns how many; nncc_cycles gives the cycles of each call, 0 for those on the host. */
NNCC_API int nncc_create_on(nncc_context** context, int num_threads, const char* device);
NNCC_API const char* nncc_device_wanted(void);
NNCC_API const char* nncc_device(nncc_context* context);
NNCC_API int nncc_counters(nncc_context* context, const char** names, uint64_t* values, int most);
NNCC_API int nncc_cycles(nncc_context* context, uint64_t* cycles);

NNCC_API void nncc_destroy(nncc_context* context);

/* Why this thread's last call failed; empty after a call that did not. */
NNCC_API const char* nncc_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
