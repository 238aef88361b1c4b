/* cuda_driver.c: the CUDA driver, libcuda.so.1: opened at run time, so that a library is built, inspected and loaded
 * where there is none. Types and numbers are those of cuda.h ("CUDA Driver API"), which is not needed here. */
#include <dlfcn.h>

enum {
  CU_OUT_OF_MEMORY = 2,
  CU_INVALID_VALUE = 1,
  CU_INVALID_IMAGE = 200,
  CU_NO_BINARY_FOR_GPU = 209,
  CU_INVALID_PTX = 218,
  CU_UNSUPPORTED_PTX_VERSION = 222,
  CU_INVALID_SOURCE = 300,
  CU_ILLEGAL_ADDRESS = 700,
  CU_FIRST_FAULT = 714,          /* CUDA_ERROR_HARDWARE_STACK_ERROR; then instructions, alignment, addresses, ... */
  CU_LAUNCH_FAILED = 719,
  CU_CAPABILITY_MAJOR = 75,      /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR */
  CU_CAPABILITY_MINOR = 76,
  CU_FUNCTION_MAX_DYNAMIC_SHARED = 8, /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
  CU_POINTER_MEMORY_TYPE = 2,    /* CU_POINTER_ATTRIBUTE_MEMORY_TYPE */
  CU_POINTER_IS_MANAGED = 8,
  CU_POINTER_DEVICE_ORDINAL = 9,
  CU_MEMORY_DEVICE = 2,          /* CU_MEMORYTYPE_DEVICE */
  CU_STREAM_DEFAULT = 0,         /* ordered after what the legacy default stream was given before */
  CU_STREAM_NON_BLOCKING = 1,
  CU_EVENT_DISABLE_TIMING = 2,
  CU_EVENT_RECORD_EXTERNAL = 1,  /* in a stream that is captured: the graph is to record it whenever it runs */
  CU_CAPTURE_RELAXED = 2,        /* CU_STREAM_CAPTURE_MODE_RELAXED */
  CU_CAPTURE_NONE = 0            /* CU_STREAM_CAPTURE_STATUS_NONE */
};

/* All of the driver that is used. Contexts, modules, functions, streams, events and graphs are opaque pointers. */
#define RT_DRIVER_FUNCTIONS(F)                                                                                       \
  F(cuGetErrorName, (int result, const char** name))                                                                 \
  F(cuGetErrorString, (int result, const char** text))                                                               \
  F(cuDriverGetVersion, (int* version))                                                                              \
  F(cuInit, (unsigned flags))                                                                                        \
  F(cuDeviceGetCount, (int* count))                                                                                  \
  F(cuDeviceGet, (int* device, int ordinal))                                                                         \
  F(cuDeviceGetName, (char* name, int size, int device))                                                             \
  F(cuDeviceGetAttribute, (int* value, int attribute, int device))                                                   \
  F(cuDevicePrimaryCtxRetain, (void** primary, int device))                                                          \
  F(cuDevicePrimaryCtxRelease_v2, (int device))                                                                      \
  F(cuCtxPushCurrent_v2, (void* context))                                                                            \
  F(cuCtxPopCurrent_v2, (void** context))                                                                            \
  F(cuModuleLoadData, (void** module, const void* image))                                                            \
  F(cuModuleUnload, (void* module))                                                                                  \
  F(cuModuleGetFunction, (void** function, void* module, const char* symbol))                                        \
  F(cuFuncSetAttribute, (void* function, int attribute, int value))                                                  \
  F(cuMemAlloc_v2, (rt_address * address, size_t nbytes))                                                            \
  F(cuMemFree_v2, (rt_address address))                                                                              \
  F(cuMemcpyHtoD_v2, (rt_address to, const void* from, size_t nbytes))                                               \
  F(cuMemcpyHtoDAsync_v2, (rt_address to, const void* from, size_t nbytes, void* stream))                            \
  F(cuMemcpyDtoHAsync_v2, (void* to, rt_address from, size_t nbytes, void* stream))                                  \
  F(cuMemcpyDtoDAsync_v2, (rt_address to, rt_address from, size_t nbytes, void* stream))                             \
  F(cuPointerGetAttribute, (void* value, int attribute, rt_address address))                                         \
  F(cuStreamCreate, (void** stream, unsigned flags))                                                                 \
  F(cuStreamDestroy_v2, (void* stream))                                                                              \
  F(cuStreamSynchronize, (void* stream))                                                                             \
  F(cuStreamWaitEvent, (void* stream, void* event, unsigned flags))                                                  \
  F(cuStreamIsCapturing, (void* stream, int* status))                                                                \
  F(cuStreamBeginCapture_v2, (void* stream, int mode))                                                               \
  F(cuStreamEndCapture, (void* stream, void** graph))                                                                \
  F(cuGraphInstantiateWithFlags, (void** executable, void* graph, unsigned long long flags))                         \
  F(cuGraphDestroy, (void* graph))                                                                                   \
  F(cuGraphLaunch, (void* executable, void* stream))                                                                 \
  F(cuGraphExecDestroy, (void* executable))                                                                          \
  F(cuEventCreate, (void** event, unsigned flags))                                                                   \
  F(cuEventRecord, (void* event, void* stream))                                                                      \
  F(cuEventRecordWithFlags, (void* event, void* stream, unsigned flags))                                             \
  F(cuEventSynchronize, (void* event))                                                                               \
  F(cuEventElapsedTime, (float* milliseconds, void* start, void* end))                                               \
  F(cuEventDestroy_v2, (void* event))                                                                                \
  F(cuLaunchKernel, (void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,   \
                     unsigned shared_bytes, void* stream, void** parameters, void** extra))

static struct {
  int ready;
#define RT_FIELD(name, parameters) int(*name) parameters;
  RT_DRIVER_FUNCTIONS(RT_FIELD)
#undef RT_FIELD
} rt_cuda; /* written once, under rt_mutex, and read by who has a context or that mutex */

/* Opens the driver. Once it is open it stays so: it does not support being unloaded. */
static int rt_open_driver(void) {
  if (rt_cuda.ready) {
    return NNCC_OK;
  }
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    return rt_fail(NNCC_ERROR_DEVICE, "libcuda.so.1 cannot be opened: %.300s: is the NVIDIA driver installed?",
                   reason ? reason : "no reason given");
  }
  const struct {
    const char* name;
    void* place;
  } functions[] = {
#define RT_ROW(name, parameters) {#name, &rt_cuda.name},
      RT_DRIVER_FUNCTIONS(RT_ROW)
#undef RT_ROW
  };
  for (size_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    void* function = dlsym(library, functions[i].name);
    if (!function) {
      int version = 0;
      if (rt_cuda.cuDriverGetVersion) {
        rt_cuda.cuDriverGetVersion(&version);
      }
      const int code = rt_fail(NNCC_ERROR_DEVICE,
                               "libcuda.so.1, a driver for CUDA %d.%d, has no function %s: install a newer NVIDIA driver",
                               version / 1000, version % 1000 / 10, functions[i].name);
      dlclose(library);
      return code;
    }
    memcpy(functions[i].place, &function, sizeof function);
  }
  rt_cuda.ready = 1;
  return NNCC_OK;
}

/* The error for a call of the driver that did not return 0: `format` says which. */
__attribute__((format(printf, 2, 3))) static int rt_driver_failed(int result, const char* format, ...) {
  char call[300];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(call, sizeof call, format, arguments);
  va_end(arguments);
  const char *name = NULL, *text = NULL;
  if (rt_cuda.cuGetErrorName(result, &name) || !name) {
    return rt_fail(NNCC_ERROR_DEVICE, "%s failed: CUDA error %d", call, result);
  }
  if (rt_cuda.cuGetErrorString(result, &text) || !text) {
    text = "no description";
  }
  /* Kernels run long after their launch: whatever comes next reports what they did. */
  const int fault = result == CU_ILLEGAL_ADDRESS || (result >= CU_FIRST_FAULT && result <= CU_LAUNCH_FAILED);
  return rt_fail(result == CU_OUT_OF_MEMORY ? NNCC_ERROR_MEMORY : NNCC_ERROR_DEVICE, "%s failed: %s (%s)%s", call, name,
                 text, fault ? ": an earlier kernel did that; compute-sanitizer finds which" : "");
}

/* Return from this function with an error if the driver's `function` fails; what follows its arguments tells the call. */
#define RT_TRY(function, arguments, ...)                          \
  do {                                                            \
    const int rt_result = rt_cuda.function arguments;             \
    if (__builtin_expect(rt_result != 0, 0)) {                    \
      return rt_driver_failed(rt_result, #function __VA_ARGS__);  \
    }                                                             \
  } while (0)
