/* interface.c: what the runtimes of all libraries share: the text of errors, and what is said and checked alike. */
#include <stdarg.h>
#include <stdio.h>

#ifdef NNCC_STATIC_PREFIX /* nncc.h declares the plain names only */
NNCC_API const nncc_info* NNCC_FN(describe)(void);
NNCC_API int NNCC_FN(create)(nncc_context** context, int num_threads);
NNCC_API int NNCC_FN(run)(nncc_context* context, const void* const* inputs, void* const* outputs);
NNCC_API int NNCC_FN(profile)(nncc_context* context, const void* const* inputs, void* const* outputs, double* seconds);
NNCC_API void NNCC_FN(destroy)(nncc_context* context);
NNCC_API const char* NNCC_FN(last_error)(void);
#ifdef NNCC_ACCELERATOR
NNCC_API int NNCC_FN(create_on)(nncc_context** context, int num_threads, const char* device);
NNCC_API const char* NNCC_FN(device_wanted)(void);
NNCC_API const char* NNCC_FN(device)(nncc_context* context);
NNCC_API int NNCC_FN(counters)(nncc_context* context, const char** names, uint64_t* values, int most);
NNCC_API int NNCC_FN(cycles)(nncc_context* context, uint64_t* cycles);
#endif
#endif

#ifdef NNCC_TARGET
/* A loader that cannot load this file, because it is for another machine, searches it for these bytes. */
__attribute__((used)) static const char rt_target_mark[] = "nncc-target:" NNCC_TARGET;
#endif

static _Thread_local char rt_error[512];

__attribute__((format(printf, 2, 3))) static int rt_fail(int code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(rt_error, sizeof rt_error, format, arguments);
  va_end(arguments);
  return code;
}

NNCC_API const nncc_info* NNCC_FN(describe)(void) { return &model_info; }

NNCC_API const char* NNCC_FN(last_error)(void) { return rt_error; }

/* Whether every pointer is there; else an error text that names the first that is not. */
static int rt_check_pointers(const char* role, const void* const* pointers, const nncc_tensor* tensors, int32_t count) {
  if (!pointers && count > 0) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the array of %s pointers is NULL", role);
  }
  for (int32_t i = 0; i < count; ++i) {
    if (!pointers[i]) {
      return rt_fail(NNCC_ERROR_ARGUMENT, "the pointer for %s %d, `%s`, is NULL", role, (int)i, tensors[i].name);
    }
  }
  return NNCC_OK;
}

/* Whether the context and every pointer are there. */
static int rt_check_arguments(const nncc_context* context, const void* const* inputs, void* const* outputs) {
  if (!context) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the context is NULL");
  }
  const int code = rt_check_pointers("input", inputs, model_info.inputs, model_info.num_inputs);
  return code ? code
              : rt_check_pointers("output", (const void* const*)outputs, model_info.outputs, model_info.num_outputs);
}
