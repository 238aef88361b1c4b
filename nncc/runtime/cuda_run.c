/* cuda_run.c: inferences. Inputs and outputs that are in the memory of the processor, or that a kernel cannot read in
 * vectors where they are, go through the staging memory; the others are used in place. */

/* What the driver says of the caller's pointer, with `on_device` for memory that kernels on this device can use: device
 * memory of its own, or managed. */
static int rt_look_at(const nncc_context* context, rt_transfer* t) {
  const rt_address address = (rt_address)(uintptr_t)t->pointer;
  unsigned kind = 0, managed = 0;
  int ordinal = 0;
  const int unknown = rt_cuda.cuPointerGetAttribute(&kind, CU_POINTER_MEMORY_TYPE, address);
  t->on_device = 0;
  if (unknown == CU_INVALID_VALUE) {
    return NNCC_OK; /* the driver has never heard of it: plain memory of the processor */
  }
  if (unknown) {
    return rt_driver_failed(unknown, "cuPointerGetAttribute of the pointer for %s %d, `%.100s`,", t->role, t->number,
                            t->tensor->name);
  }
  RT_TRY(cuPointerGetAttribute, (&managed, CU_POINTER_IS_MANAGED, address), " of the pointer for %s %d, `%.100s`,",
         t->role, t->number, t->tensor->name);
  t->on_device = managed || kind == CU_MEMORY_DEVICE;
  if (managed || kind != CU_MEMORY_DEVICE) {
    return NNCC_OK;
  }
  RT_TRY(cuPointerGetAttribute, (&ordinal, CU_POINTER_DEVICE_ORDINAL, address), " of the pointer for %s %d, `%.100s`,",
         t->role, t->number, t->tensor->name);
  return ordinal == context->device->ordinal
             ? NNCC_OK
             : rt_fail(NNCC_ERROR_ARGUMENT,
                       "the pointer for %s %d, `%.100s`, is memory of CUDA device %d; this context is on device %d",
                       t->role, t->number, t->tensor->name, ordinal, context->device->ordinal);
}

/* Decides for each input and output where the kernels find it. With `device_only`, the processor's memory is refused. */
static int rt_place_all(nncc_context* context, const void* const* inputs, void* const* outputs, int device_only) {
  size_t offset = 0;
  for (int i = 0; i < rt_num_places(); ++i) {
    const int is_input = i < model_info.num_inputs, number = is_input ? i : i - model_info.num_inputs;
    void* pointer = is_input ? (void*)(uintptr_t)inputs[number] : outputs[number];
    rt_transfer* t = &context->transfers[i];
    *t = (rt_transfer){is_input ? "input" : "output", number, rt_tensor(i), pointer, 0};
    const int code = rt_look_at(context, t);
    if (code) {
      return code;
    }
    if (device_only && !t->on_device) {
      return rt_fail(NNCC_ERROR_ARGUMENT,
                     "the pointer for %s %d, `%.100s`, is memory of the processor; nncc_run_on takes device memory",
                     t->role, number, t->tensor->name);
    }
    const int in_place = t->on_device && (uintptr_t)pointer % RT_VECTOR == 0;
    context->places[i] = in_place ? (rt_address)(uintptr_t)pointer : context->staging + offset;
    offset += rt_rounded(t->tensor->nbytes);
  }
  return NNCC_OK;
}

/* Copies one input to its place, or one output from there, if the kernels do not use it where it is. */
static int rt_transfer_one(const nncc_context* context, int index, void* stream) {
  const rt_transfer* t = &context->transfers[index];
  const rt_address place = context->places[index], address = (rt_address)(uintptr_t)t->pointer;
  const size_t nbytes = t->tensor->nbytes;
  const int is_input = index < model_info.num_inputs;
  if (place == address || !nbytes) {
    return NNCC_OK;
  }
  if (t->on_device) {
    RT_TRY(cuMemcpyDtoDAsync_v2, (is_input ? place : address, is_input ? address : place, nbytes, stream),
           " of %zu bytes of %s %d, `%.100s`,", nbytes, t->role, t->number, t->tensor->name);
  } else if (is_input) {
    RT_TRY(cuMemcpyHtoDAsync_v2, (place, t->pointer, nbytes, stream), " of %zu bytes of %s %d, `%.100s`,", nbytes,
           t->role, t->number, t->tensor->name);
  } else {
    RT_TRY(cuMemcpyDtoHAsync_v2, (t->pointer, place, nbytes, stream), " of %zu bytes of %s %d, `%.100s`,", nbytes,
           t->role, t->number, t->tensor->name);
  }
  return NNCC_OK;
}

/* Enqueues one inference, its pointers looked at already. */
static int rt_enqueue(nncc_context* context, void* stream, void** events) {
  const int inputs = model_info.num_inputs;
  int code = NNCC_OK;
  for (int i = 0; i < inputs && !code; ++i) {
    code = rt_transfer_one(context, i, stream);
  }
  if (!code) {
    code = events ? rt_enqueue_profile(context, stream, events) : rt_enqueue_program(context, stream);
  }
  for (int i = inputs; i < rt_num_places() && !code; ++i) {
    code = rt_transfer_one(context, i, stream);
  }
  return code;
}

static int rt_start_run(nncc_context* context, const void* const* inputs, void* const* outputs) {
  int code = rt_check_arguments(context, inputs, outputs);
  if (code) {
    return code;
  }
  if (atomic_exchange_explicit(&context->running, 1, memory_order_acquire)) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "this context is running in another thread; make one context for each thread");
  }
  code = rt_enter(context->device);
  if (code) {
    atomic_store_explicit(&context->running, 0, memory_order_release);
  }
  return code;
}

static int rt_end_run(nncc_context* context, int code) {
  code = rt_leave(code);
  atomic_store_explicit(&context->running, 0, memory_order_release);
  if (!code) {
    rt_error[0] = 0;
  }
  return code;
}

/* Runs in `stream` only once what nncc_run_on enqueued elsewhere has passed: both use the arena. */
static int rt_wait_for_earlier(const nncc_context* context, void* stream) {
  if (context->enqueued) {
    RT_TRY(cuStreamWaitEvent, (stream, context->finished, 0), " for the run before");
  }
  return NNCC_OK;
}

static int rt_wait_for_stream(nncc_context* context) {
  RT_TRY(cuStreamSynchronize, (context->stream), " at the end of the inference");
  context->enqueued = 0;
  return NNCC_OK;
}

/* In the context's own stream, and to the end. */
static int rt_run_through(nncc_context* context, const void* const* inputs, void* const* outputs, void** events) {
  int code = rt_place_all(context, inputs, outputs, 0);
  code = code ? code : rt_wait_for_earlier(context, context->stream);
  if (code) {
    return code;
  }
  code = rt_enqueue(context, context->stream, events);
  if (code) { /* what was enqueued uses the caller's memory */
    rt_cuda.cuStreamSynchronize(context->stream);
    return code;
  }
  return rt_wait_for_stream(context);
}

static int rt_run_in(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream) {
  int capturing = CU_CAPTURE_NONE;
  int code = rt_place_all(context, inputs, outputs, 1);
  if (code) {
    return code;
  }
  RT_TRY(cuStreamIsCapturing, (stream, &capturing), " of the caller's stream");
  if (capturing != CU_CAPTURE_NONE) { /* which may not depend on what is outside, nor that on it */
    return rt_enqueue(context, stream, NULL);
  }
  code = rt_wait_for_earlier(context, stream);
  if (code) {
    return code;
  }
  code = rt_enqueue(context, stream, NULL);
  const int result = rt_cuda.cuEventRecord(context->finished, stream);
  context->enqueued = 1;
  return code || !result ? code : rt_driver_failed(result, "cuEventRecord behind the inference");
}

static int rt_profile(nncc_context* context, const void* const* inputs, void* const* outputs, double* seconds) {
  void** events = context->events;
  for (int i = 0; i <= model_info.num_calls; ++i) {
    if (!events[i]) {
      RT_TRY(cuEventCreate, (&events[i], 0), " for call %d", i);
    }
  }
  const int code = rt_run_through(context, inputs, outputs, events);
  for (int i = 0; i < model_info.num_calls && !code; ++i) {
    float milliseconds = 0;
    RT_TRY(cuEventElapsedTime, (&milliseconds, events[i], events[i + 1]), " of call %d", i);
    seconds[i] += 1e-3 * (double)milliseconds;
  }
  return code;
}

NNCC_API int NNCC_FN(run)(nncc_context* context, const void* const* inputs, void* const* outputs) {
  const int code = rt_start_run(context, inputs, outputs);
  return code ? code : rt_end_run(context, rt_run_through(context, inputs, outputs, NULL));
}

NNCC_API int NNCC_FN(run_on)(nncc_context* context, const void* const* inputs, void* const* outputs, void* stream) {
  const int code = rt_start_run(context, inputs, outputs);
  return code ? code : rt_end_run(context, rt_run_in(context, inputs, outputs, stream));
}

NNCC_API int NNCC_FN(profile)(nncc_context* context, const void* const* inputs, void* const* outputs, double* seconds) {
  if (!seconds && model_info.num_calls > 0) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the array for the seconds of each call is NULL");
  }
  const int code = rt_start_run(context, inputs, outputs);
  return code ? code : rt_end_run(context, rt_profile(context, inputs, outputs, seconds));
}
