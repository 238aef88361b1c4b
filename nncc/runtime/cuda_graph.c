/* cuda_graph.c: the kernels of an inference, launched one by one or replayed as a CUDA graph. */

static int rt_invoke(nncc_context* context, void* stream, void** events, int captured) {
  rt_pass pass = {context, stream, events, captured, -1};
  const int code = model_invoke(&pass, context->arena, context->device->weights, context->places,
                                context->places + model_info.num_inputs);
  return code ? code : rt_begin(&pass, model_info.num_calls);
}

/* Captures the program over the places of this run, with the events if there are any. In a stream of its own, which
 * nothing waits for: else work that other threads give to the legacy default stream would break the capture. */
static int rt_capture(nncc_context* context, void** events, void** executable) {
  void *stream = NULL, *graph = NULL;
  RT_TRY(cuStreamCreate, (&stream, CU_STREAM_NON_BLOCKING), " for capture");
  int code = NNCC_OK;
  int result = rt_cuda.cuStreamBeginCapture_v2(stream, CU_CAPTURE_RELAXED);
  if (result) {
    code = rt_driver_failed(result, "cuStreamBeginCapture_v2");
  } else {
    code = rt_invoke(context, stream, events, 1);
    result = rt_cuda.cuStreamEndCapture(stream, &graph);
    if (!code && result) {
      code = rt_driver_failed(result, "cuStreamEndCapture");
    }
  }
  if (!code) {
    result = rt_cuda.cuGraphInstantiateWithFlags(executable, graph, 0);
    if (result) {
      *executable = NULL;
      code = rt_driver_failed(result, "cuGraphInstantiateWithFlags");
    }
  }
  if (graph) {
    rt_cuda.cuGraphDestroy(graph);
  }
  rt_cuda.cuStreamDestroy_v2(stream);
  return code;
}

/* The graph that is remembered for these places; if there is none, the oldest is forgotten for one without. */
static int rt_find_graph(nncc_context* context, rt_graph** found) {
  const size_t size = (size_t)rt_num_places() * sizeof(rt_address);
  rt_graph* oldest = &context->graphs[0];
  for (int i = 0; i < RT_GRAPHS; ++i) {
    rt_graph* graph = &context->graphs[i];
    if (graph->used && !memcmp(graph->places, context->places, size)) {
      *found = graph;
      return NNCC_OK;
    }
    if (graph->used < oldest->used) {
      oldest = graph;
    }
  }
  if (oldest->executable) {
    RT_TRY(cuEventSynchronize, (context->finished), " before a graph is forgotten");
    void* executable = oldest->executable;
    oldest->executable = NULL;
    oldest->used = 0;
    RT_TRY(cuGraphExecDestroy, (executable), "");
  }
  memcpy(oldest->places, context->places, size);
  oldest->used = 0;
  *found = oldest;
  return NNCC_OK;
}

/* Enqueues the kernels. Places that come for the first time are launched one by one, which also makes the driver load
 * each kernel; when they come again, a graph is worth its capture. */
static int rt_enqueue_program(nncc_context* context, void* stream) {
  int capturing = CU_CAPTURE_NONE;
  rt_graph* graph = NULL;
  if (context->use_graphs) {
    RT_TRY(cuStreamIsCapturing, (stream, &capturing), "");
  }
  if (!context->use_graphs || capturing != CU_CAPTURE_NONE) {
    return rt_invoke(context, stream, NULL, 0);
  }
  int code = rt_find_graph(context, &graph);
  if (code) {
    return code;
  }
  const int came_before = graph->used != 0;
  graph->used = ++context->runs;
  if (!came_before) {
    return rt_invoke(context, stream, NULL, 0);
  }
  if (!graph->executable) {
    code = rt_capture(context, NULL, &graph->executable);
    if (code) {
      return code;
    }
  }
  RT_TRY(cuGraphLaunch, (graph->executable, stream), "");
  return NNCC_OK;
}

/* Enqueues the kernels with events between the calls, as a graph: launched one by one, many take longer to launch than
 * to run, and the events would measure that. */
static int rt_enqueue_profile(nncc_context* context, void* stream, void** events) {
  const size_t size = (size_t)rt_num_places() * sizeof(rt_address);
  rt_graph* graph = &context->profiled;
  if (!context->use_graphs) {
    return rt_invoke(context, stream, events, 0);
  }
  if (graph->executable && memcmp(graph->places, context->places, size)) {
    void* executable = graph->executable;
    graph->executable = NULL;
    RT_TRY(cuGraphExecDestroy, (executable), "");
  }
  if (!graph->executable) {
    int code = rt_invoke(context, stream, NULL, 0); /* makes the driver load each kernel */
    code = code ? code : rt_capture(context, events, &graph->executable);
    if (code) {
      return code;
    }
    memcpy(graph->places, context->places, size);
  }
  RT_TRY(cuGraphLaunch, (graph->executable, stream), "");
  return NNCC_OK;
}
