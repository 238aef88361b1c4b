/* dims.c: the sizes of open dimensions, and the shapes that follow from them. Included by runtime.c and cuda.c, behind
 * the context's definition. Where NNCC_DIMS is defined, model.c has `model_variant` and `model_shape`. */

#ifdef NNCC_STATIC_PREFIX
NNCC_API int NNCC_FN(resize)(nncc_context* context, const int64_t* sizes);
NNCC_API int NNCC_FN(input_shape)(const nncc_context* context, int32_t input, int64_t* shape);
NNCC_API int NNCC_FN(output_shape)(const nncc_context* context, int32_t output, int64_t* shape);
#endif

#ifdef NNCC_DIMS
/* The highest sizes, or those of the last variant. */
static void rt_first_sizes(int64_t* sizes) {
  for (int i = 0; i < NNCC_DIMS; ++i) {
    sizes[i] = model_info.dims[i].high;
  }
  if (model_variant(sizes) < 0) {
    memcpy(sizes, model_info.variants + (size_t)(model_info.num_variants - 1) * NNCC_DIMS, NNCC_DIMS * sizeof *sizes);
  }
}
#endif

NNCC_API int NNCC_FN(resize)(nncc_context* context, const int64_t* sizes) {
  if (!context) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the context is NULL");
  }
#ifdef NNCC_DIMS
  if (!sizes) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the array of sizes is NULL");
  }
  for (int i = 0; i < NNCC_DIMS; ++i) {
    const nncc_dim* dim = &model_info.dims[i];
    if (dim->from_data) {
      continue;
    }
    if (sizes[i] < dim->low || sizes[i] > dim->high) {
      return rt_fail(NNCC_ERROR_ARGUMENT, "the size %lld of `%.200s` is outside of its range, %lld to %lld",
                     (long long)sizes[i], dim->name, (long long)dim->low, (long long)dim->high);
    }
  }
  if (model_variant(sizes) < 0) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "this library was compiled for some sizes only, and %lld of `%.200s`%s is none",
                   (long long)sizes[0], model_info.dims[0].name, NNCC_DIMS > 1 ? " with the others" : "");
  }
  if (atomic_exchange_explicit(&context->running, 1, memory_order_acquire)) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "this context is running in another thread; make one context for each thread");
  }
  for (int i = 0; i < NNCC_DIMS; ++i) {
    context->sizes[i] = model_info.dims[i].from_data ? model_info.dims[i].high : sizes[i];
  }
  atomic_store_explicit(&context->running, 0, memory_order_release);
#else
  (void)sizes;
#endif
  rt_error[0] = 0;
  return NNCC_OK;
}

static int rt_tensor_shape(const nncc_context* context, int is_output, int32_t number, int64_t* shape) {
  const int32_t count = is_output ? model_info.num_outputs : model_info.num_inputs;
  if (!context || !shape) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "the %s is NULL", context ? "place for the shape" : "context");
  }
  if (number < 0 || number >= count) {
    return rt_fail(NNCC_ERROR_ARGUMENT, "there is no %s %d; there are %d", is_output ? "output" : "input", (int)number,
                   (int)count);
  }
  const nncc_tensor* tensor = (is_output ? model_info.outputs : model_info.inputs) + number;
  for (int32_t axis = 0; axis < tensor->ndim; ++axis) {
    shape[axis] = tensor->shape[axis];
  }
#ifdef NNCC_DIMS
  model_shape(is_output, number, context->sizes, shape);
#endif
  rt_error[0] = 0;
  return NNCC_OK;
}

NNCC_API int NNCC_FN(input_shape)(const nncc_context* context, int32_t input, int64_t* shape) {
  return rt_tensor_shape(context, 0, input, shape);
}

NNCC_API int NNCC_FN(output_shape)(const nncc_context* context, int32_t output, int64_t* shape) {
  return rt_tensor_shape(context, 1, output, shape);
}
