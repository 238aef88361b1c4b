/* cuda_device.c: GPUs in use, each with the library's kernels and weights, shared by the contexts on it. */

typedef struct rt_device {
  struct rt_device* next;
  int ordinal;
  int contexts; /* that use it */
  int handle;   /* the driver's CUdevice */
  void* primary;
  void* module;
  rt_address weights;
  void* functions[MODEL_KERNELS ? MODEL_KERNELS : 1];
} rt_device;

static rt_device* rt_devices; /* under rt_mutex */

/* The whole number that an environment variable holds; `*value` stays where there is none. */
static int rt_environment(const char* name, int least, int most, int* value) {
  const char* text = getenv(name);
  if (!text || !*text) {
    return NNCC_OK;
  }
  char* end = NULL;
  errno = 0;
  const long number = strtol(text, &end, 10);
  if (errno || *end || number < least || number > most) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "%s is `%.100s`; expected a whole number from %d to %d", name, text, least,
                   most);
  }
  *value = (int)number;
  return NNCC_OK;
}

/* Makes the device's primary context current, on top of what the caller has. */
static int rt_enter(const rt_device* device) {
  RT_TRY(cuCtxPushCurrent_v2, (device->primary), "");
  return NNCC_OK;
}

/* Makes current what was before rt_enter. `code`, or an error if there was none so far. */
static int rt_leave(int code) {
  void* own = NULL;
  const int result = rt_cuda.cuCtxPopCurrent_v2(&own);
  return code || !result ? code : rt_driver_failed(result, "cuCtxPopCurrent_v2");
}

/* Whether a failure to load device code is about its form, so that another form may do. */
static int rt_is_other_code(int result) {
  return result == CU_INVALID_IMAGE || result == CU_NO_BINARY_FOR_GPU || result == CU_INVALID_SOURCE ||
         result == CU_INVALID_PTX || result == CU_UNSUPPORTED_PTX_VERSION;
}

/* Loads the cubin where the GPU runs it, else the PTX. A cubin runs on its compute capability and on later ones of the
 * same major number (CUDA C++ Programming Guide, "Binary Compatibility"), PTX on all later ones. */
static int rt_load_module(rt_device* device) {
  int major = 0, minor = 0;
  char name[100] = "";
  RT_TRY(cuDeviceGetAttribute, (&major, CU_CAPABILITY_MAJOR, device->handle), " for the compute capability");
  RT_TRY(cuDeviceGetAttribute, (&minor, CU_CAPABILITY_MINOR, device->handle), " for the compute capability");
  RT_TRY(cuDeviceGetName, (name, (int)sizeof name, device->handle), "");
  const int here = 10 * major + minor, there = MODEL_ARCHITECTURE;
  const int has_ptx = NNCC_PTX[0] && !MODEL_EXACT;
  const int runs_cubin = MODEL_EXACT ? here == there : here / 10 == there / 10 && here >= there;
  if (!runs_cubin && (here < there || !has_ptx)) {
    return rt_fail(NNCC_ERROR_DEVICE,
                   "the kernels of target %.80s are for compute capability %d.%d%s; device %d, %.99s, has %d.%d: compile "
                   "for a target that it runs",
                   model_info.target, there / 10, there % 10,
                   MODEL_EXACT ? " alone" : !has_ptx ? " and later ones of the same major number" : " and later ones",
                   device->ordinal, name, major, minor);
  }
  int refused = 0;
  if (runs_cubin) {
    refused = rt_cuda.cuModuleLoadData(&device->module, NNCC_CUBIN);
    if (!refused) {
      return NNCC_OK;
    }
    if (!has_ptx || !rt_is_other_code(refused)) {
      return rt_driver_failed(refused, "cuModuleLoadData of the cubin for compute capability %d.%d", there / 10,
                              there % 10);
    }
  }
  RT_TRY(cuModuleLoadData, (&device->module, NNCC_PTX), " of the PTX for compute capability %d.%d%s", there / 10,
         there % 10, refused ? ", tried because the driver refused the cubin," : "");
  return NNCC_OK;
}

static int rt_fill_device(rt_device* device) {
  int code = rt_load_module(device);
  if (code) {
    return code;
  }
  for (int i = 0; i < MODEL_KERNELS; ++i) {
    const rt_kernel* kernel = &model_kernels[i];
    RT_TRY(cuModuleGetFunction, (&device->functions[i], device->module, kernel->symbol), " of `%.100s`",
           kernel->symbol);
    if (kernel->shared_bytes) { /* without asking, a kernel has 48 KiB together with what it declares itself */
      RT_TRY(cuFuncSetAttribute,
             (device->functions[i], CU_FUNCTION_MAX_DYNAMIC_SHARED, (int)kernel->shared_bytes),
             " of `%.100s` to %u bytes of shared memory", kernel->symbol, kernel->shared_bytes);
    }
  }
  if (model_info.weights_bytes) {
    RT_TRY(cuMemAlloc_v2, (&device->weights, model_info.weights_bytes), " for %zu bytes of weights",
           model_info.weights_bytes);
    RT_TRY(cuMemcpyHtoD_v2, (device->weights, NNCC_WEIGHTS, model_info.weights_bytes), " of %zu bytes of weights",
           model_info.weights_bytes);
  }
  return NNCC_OK;
}

static void rt_empty_device(rt_device* device) {
  if (device->weights) {
    rt_cuda.cuMemFree_v2(device->weights);
  }
  if (device->module) {
    rt_cuda.cuModuleUnload(device->module);
  }
}

/* With rt_mutex held: one context less uses the device. The last one takes everything with it. The error text stays. */
static void rt_release_device(rt_device* device) {
  char reason[sizeof rt_error];
  if (--device->contexts) {
    return;
  }
  for (rt_device** place = &rt_devices; *place; place = &(*place)->next) {
    if (*place == device) {
      *place = device->next;
      break;
    }
  }
  memcpy(reason, rt_error, sizeof reason);
  if (rt_enter(device) == NNCC_OK) {
    rt_empty_device(device);
    rt_leave(NNCC_OK);
  }
  rt_cuda.cuDevicePrimaryCtxRelease_v2(device->handle);
  free(device);
  memcpy(rt_error, reason, sizeof reason);
}

/* With rt_mutex held: the GPU of this number, for one context more. */
static int rt_acquire_device(int ordinal, rt_device** result) {
  int code = rt_open_driver(), count = 0, handle = 0;
  if (code) {
    return code;
  }
  for (rt_device* device = rt_devices; device; device = device->next) {
    if (device->ordinal == ordinal) {
      ++device->contexts;
      *result = device;
      return NNCC_OK;
    }
  }
  RT_TRY(cuInit, (0), "");
  RT_TRY(cuDeviceGetCount, (&count), "");
  if (ordinal >= count) {
    return rt_fail(NNCC_ERROR_DEVICE, "there is no CUDA device %d, for there %s %d; NNCC_CUDA_DEVICE says which to use",
                   ordinal, count == 1 ? "is" : "are", count);
  }
  RT_TRY(cuDeviceGet, (&handle, ordinal), " of number %d", ordinal);
  rt_device* device = calloc(1, sizeof *device);
  if (!device) {
    return rt_fail(NNCC_ERROR_MEMORY, "no memory for the description of a device");
  }
  device->ordinal = ordinal;
  device->handle = handle;
  const int retained = rt_cuda.cuDevicePrimaryCtxRetain(&device->primary, handle);
  if (retained) {
    free(device);
    return rt_driver_failed(retained, "cuDevicePrimaryCtxRetain of device %d", ordinal);
  }
  device->contexts = 1;
  device->next = rt_devices;
  rt_devices = device;
  code = rt_enter(device);
  if (!code) {
    code = rt_leave(rt_fill_device(device));
  }
  if (code) {
    rt_release_device(device);
    return code;
  }
  *result = device;
  return NNCC_OK;
}
