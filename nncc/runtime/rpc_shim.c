/* rpc_shim.c: what TVM's RPC server calls in a candidate library. It follows runtime.c, or cuda.c, in model.c.
 *
 * The functions have the signature of TVM's FFI and need neither its headers nor its library: without the latter they
 * cannot raise an error, so each returns how it went, and words go into a tensor of bytes of the caller's.
 *
 *   nncc_facts(text)                                         -> bytes that the text takes, its end included
 *   nncc_measure(seconds, text, threads, seed, warmup, rounds, limit, timeout)   -> rounds done, or RPC_...
 *   nncc_run(text, threads, timeout, inputs..., outputs...)                      -> 0, or RPC_...
 *   nncc_gpu(text, timeout)                                                      -> 0, or RPC_...; of a library for GPUs
 *
 * Text of facts: a line `calls N`, then one for each tensor, `input DTYPE BYTES SIZES...` or `output ...` alike.
 * `seconds` is float64[rounds x calls], every other tensor is bytes. nncc_gpu leaves the two numbers
 * of the GPU's compute capability and its name in the text.
 *
 * Kernels run in a process of their own: the server of TVM 0.27 takes no more sessions once one of them has crashed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if !defined(_WIN32)
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/prctl.h>
#endif

enum { RPC_FAILED = -1, RPC_HUNG = -2, RPC_CRASHED = -100 /* less the signal's number */ };
enum { RPC_INT = 1, RPC_BOOL = 2, RPC_FLOAT = 3, RPC_DLTENSOR = 7, RPC_TENSOR = 70 };
enum { RPC_TEXT = 512, RPC_LEAST_ROUNDS = 3 };

/* DLTensor of DLPack and TVMFFIAny of tvm_ffi: layouts that both projects promise to keep. */
typedef struct {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} rpc_tensor;

typedef struct {
  int32_t type;
  uint32_t padding;
  union {
    int64_t integer;
    double real;
    uint8_t* object; /* of a Tensor object: a header of 24 bytes, then the DLTensor */
    rpc_tensor* tensor;
  } as;
} rpc_any;

typedef struct {
  uint8_t* data;
  size_t nbytes;
} rpc_bytes;

/* What the process with the kernels hands back: this, then seconds or outputs. */
typedef struct {
  int64_t status;
  char text[RPC_TEXT];
} rpc_answer;

typedef struct rpc_job {
  int64_t (*work)(struct rpc_job*);
  int threads;
  double timeout;
  rpc_answer* answer;
  uint8_t* payload;
  /* measure */
  uint64_t seed;
  int64_t warmup, rounds;
  double limit;
  /* run */
  const rpc_bytes* inputs;
} rpc_job;

/* ---- arguments ---- */

static int64_t rpc_integer(const rpc_any* any) {
  return any->type == RPC_FLOAT ? (int64_t)any->as.real : any->as.integer;
}

static double rpc_real(const rpc_any* any) { return any->type == RPC_FLOAT ? any->as.real : (double)any->as.integer; }

static int rpc_is_number(const rpc_any* any) {
  return any->type == RPC_INT || any->type == RPC_BOOL || any->type == RPC_FLOAT;
}

/* The memory of a tensor argument; NULL where it is none. */
static rpc_bytes rpc_memory(const rpc_any* any) {
  rpc_bytes found = {NULL, 0};
  if (any->type != RPC_DLTENSOR && any->type != RPC_TENSOR) {
    return found;
  }
  const rpc_tensor* tensor = any->type == RPC_TENSOR ? (const void*)(any->as.object + 24) : any->as.tensor;
  found.nbytes = (size_t)(tensor->bits * tensor->lanes + 7) / 8;
  for (int32_t i = 0; i < tensor->ndim; ++i) {
    found.nbytes *= (size_t)tensor->shape[i];
  }
  found.data = (uint8_t*)tensor->data + tensor->byte_offset;
  return found;
}

static int rpc_answered(rpc_any* result, int64_t status) {
  result->type = RPC_INT;
  result->padding = 0;
  result->as.integer = status;
  return 0;
}

static int rpc_answered_with(rpc_any* result, int64_t status, rpc_bytes text, const char* words) {
  if (text.data && text.nbytes) {
    snprintf((char*)text.data, text.nbytes, "%s", words);
  }
  return rpc_answered(result, status);
}

static int rpc_refused(rpc_any* result, rpc_bytes text, const char* words) {
  return rpc_answered_with(result, RPC_FAILED, text, words);
}

/* ---- a process of its own ---- */

#if defined(_WIN32)
static int64_t rpc_apart(rpc_job* job, size_t payload) {
  job->payload = malloc(payload + 1);
  job->answer->status = job->payload ? job->work(job) : RPC_FAILED;
  return job->answer->status;
}
static void rpc_release(rpc_job* job, size_t payload) {
  (void)payload;
  free(job->payload);
}
#else

/* The last of the processors that this process may use, as many as there are threads: on boards with cores of two kinds
 * the fast ones are often last. */
static void rpc_pin(int threads) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (threads < 1 || sched_getaffinity(0, sizeof allowed, &allowed)) {
    return;
  }
  int surplus = CPU_COUNT(&allowed) - threads;
  for (int cpu = 0; cpu < CPU_SETSIZE && surplus > 0; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) {
      CPU_CLR(cpu, &allowed);
      --surplus;
    }
  }
  sched_setaffinity(0, sizeof allowed, &allowed);
#else
  (void)threads;
#endif
}

static void rpc_child(rpc_job* job, int keep) {
#if defined(__linux__)
  prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  for (int file = 3; file < 1024; ++file) { /* the connection, which must end when the server does */
    if (file != keep) {
      close(file);
    }
  }
  rpc_pin(job->threads);
  job->answer->status = job->work(job);
  _exit(0);
}

/* Wait until the other end of the pipe is closed; 0 if it takes longer than `timeout`. */
static int rpc_wait(int file, double timeout) {
  const double end = nncc_seconds() + timeout;
  for (;;) {
    const double left = end - nncc_seconds();
    struct pollfd waits = {.fd = file, .events = POLLIN};
    const int found = left > 0 ? poll(&waits, 1, (int)(left * 1e3) + 1) : 0;
    if (found >= 0 || errno != EINTR) {
      return found != 0;
    }
  }
}

/* Do the job in a forked process: its status, or how it ended. */
static int64_t rpc_apart(rpc_job* job, size_t payload) {
  const size_t size = sizeof(rpc_answer) + payload;
  int ends[2];
  void* shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) {
    snprintf(job->answer->text, RPC_TEXT, "no memory for %zu bytes of results", size);
    return RPC_FAILED;
  }
  rpc_answer* const own = job->answer;
  job->answer = shared;
  job->payload = (uint8_t*)shared + sizeof(rpc_answer);
  job->answer->status = RPC_FAILED;
  snprintf(job->answer->text, RPC_TEXT, "it ended its process");
  if (pipe(ends)) {
    snprintf(own->text, RPC_TEXT, "no pipe: %s", strerror(errno));
    return RPC_FAILED;
  }
  const pid_t child = fork();
  if (child == 0) {
    rpc_child(job, ends[1]);
  }
  close(ends[1]);
  int how = 0, in_time = 1;
  if (child > 0) {
    in_time = rpc_wait(ends[0], job->timeout);
    if (!in_time) {
      kill(child, SIGKILL);
    }
    while (waitpid(child, &how, 0) < 0 && errno == EINTR) {
    }
  }
  close(ends[0]);
  if (child < 0) {
    snprintf(own->text, RPC_TEXT, "no process: %s", strerror(errno));
    return RPC_FAILED;
  }
  if (!in_time) {
    return RPC_HUNG;
  }
  if (WIFSIGNALED(how)) {
    return RPC_CRASHED - WTERMSIG(how);
  }
  if (WEXITSTATUS(how)) {
    snprintf(own->text, RPC_TEXT, "it ended its process with exit status %d", WEXITSTATUS(how));
    return RPC_FAILED;
  }
  if (job->answer->status == RPC_FAILED) {
    memcpy(own->text, job->answer->text, RPC_TEXT);
    own->text[RPC_TEXT - 1] = 0;
  }
  return job->answer->status;
}

static void rpc_release(rpc_job* job, size_t payload) {
  if (job->payload) {
    munmap(job->payload - sizeof(rpc_answer), sizeof(rpc_answer) + payload);
  }
}
#endif

/* ---- in that process ---- */

static int64_t rpc_fail(rpc_job* job, const char* words) {
  snprintf(job->answer->text, RPC_TEXT, "%s", words);
  return RPC_FAILED;
}

/* float32: nearly the standard normal distribution, a sum of four uniform values; all else zeros. */
static void rpc_fill(const nncc_tensor* tensor, uint8_t* data, uint64_t state) {
  if (strcmp(tensor->dtype, "float32")) {
    memset(data, 0, tensor->nbytes);
    return;
  }
  for (size_t at = 0; at + 4 <= tensor->nbytes; at += 4) {
    uint64_t z = (state += 0x9e3779b97f4a7c15u); /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    const float sum = (float)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48));
    const float value = (sum * 0x1p-16f - 2.0f) * 1.7320508f;
    memcpy(data + at, &value, sizeof value);
  }
}

/* A place for each tensor, aligned to 64 bytes; NULL where there is no memory. Lives as the process does. */
static void** rpc_places(const nncc_tensor* tensors, int32_t count) {
  void** places = malloc(((size_t)count + 1) * sizeof *places);
  for (int32_t i = 0; places && i < count; ++i) {
    uint8_t* memory = malloc(tensors[i].nbytes + 64);
    if (!memory) {
      return NULL;
    }
    places[i] = memory + (64 - (uintptr_t)memory % 64) % 64;
  }
  return places;
}

/* A context, and memory for all inputs and outputs; rpc_fail where there is none. */
static int64_t rpc_open(rpc_job* job, nncc_context** context, void*** inputs, void*** outputs) {
  if (NNCC_FN(create)(context, job->threads)) {
    return rpc_fail(job, NNCC_FN(last_error)());
  }
  *inputs = rpc_places(model_info.inputs, model_info.num_inputs);
  *outputs = rpc_places(model_info.outputs, model_info.num_outputs);
  return *inputs && *outputs ? 0 : rpc_fail(job, "no memory for inputs and outputs");
}

static int64_t rpc_rounds(rpc_job* job) {
  nncc_context* context;
  void **inputs, **outputs;
  if (rpc_open(job, &context, &inputs, &outputs)) {
    return RPC_FAILED;
  }
  for (int32_t i = 0; i < model_info.num_inputs; ++i) {
    rpc_fill(&model_info.inputs[i], inputs[i], job->seed + ((uint64_t)i << 32));
  }
  double* seconds = (double*)(void*)job->payload;
  const int64_t least = job->rounds < RPC_LEAST_ROUNDS ? job->rounds : RPC_LEAST_ROUNDS;
  double end = 0;
  int64_t round = -job->warmup;
  for (; round < job->rounds && (round < least || nncc_seconds() < end); ++round) {
    if (round == 0) {
      end = nncc_seconds() + job->limit;
    }
    double* row = seconds + (round > 0 ? round : 0) * model_info.num_calls;
    memset(row, 0, (size_t)model_info.num_calls * sizeof *row);
    if (NNCC_FN(profile)(context, (const void* const*)inputs, outputs, row)) {
      return rpc_fail(job, NNCC_FN(last_error)());
    }
  }
  NNCC_FN(destroy)(context);
  return round;
}

static int64_t rpc_once(rpc_job* job) {
  nncc_context* context;
  void **inputs, **outputs;
  if (rpc_open(job, &context, &inputs, &outputs)) {
    return RPC_FAILED;
  }
  for (int32_t i = 0; i < model_info.num_inputs; ++i) {
    memcpy(inputs[i], job->inputs[i].data, job->inputs[i].nbytes);
  }
  if (NNCC_FN(run)(context, (const void* const*)inputs, outputs)) {
    return rpc_fail(job, NNCC_FN(last_error)());
  }
  uint8_t* to = job->payload;
  for (int32_t i = 0; i < model_info.num_outputs; ++i) {
    memcpy(to, outputs[i], model_info.outputs[i].nbytes);
    to += model_info.outputs[i].nbytes;
  }
  NNCC_FN(destroy)(context);
  return 0;
}

#ifdef RT_DRIVER_FUNCTIONS /* of cuda_driver.c */
static int64_t rpc_name(rpc_job* job) {
  nncc_context* context;
  if (NNCC_FN(create)(&context, job->threads)) {
    return rpc_fail(job, NNCC_FN(last_error)());
  }
  const int device = context->device->handle;
  int major = 0, minor = 0;
  char name[RPC_TEXT / 2] = "";
  const int failed = rt_cuda.cuDeviceGetName(name, (int)sizeof name, device) ||
                     rt_cuda.cuDeviceGetAttribute(&major, CU_CAPABILITY_MAJOR, device) ||
                     rt_cuda.cuDeviceGetAttribute(&minor, CU_CAPABILITY_MINOR, device);
  NNCC_FN(destroy)(context);
  snprintf((char*)job->payload, RPC_TEXT, "%d %d %s", major, minor, name);
  return failed ? rpc_fail(job, "the driver does not describe its GPU") : 0;
}
#endif

/* ---- what the server calls ---- */

/* Append to a text of which only `room` bytes are kept; `*used` counts them all. */
__attribute__((format(printf, 3, 4))) static void rpc_append(rpc_bytes text, size_t* used, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char* to = *used < text.nbytes ? (char*)text.data + *used : NULL;
  const int size = vsnprintf(to, to ? text.nbytes - *used : 0, format, arguments);
  va_end(arguments);
  *used += size > 0 ? (size_t)size : 0;
}

static void rpc_append_tensors(rpc_bytes text, size_t* used, const char* role, const nncc_tensor* tensors, int count) {
  for (int i = 0; i < count; ++i) {
    rpc_append(text, used, "%s %s %zu", role, tensors[i].dtype, tensors[i].nbytes);
    for (int32_t k = 0; k < tensors[i].ndim; ++k) {
      rpc_append(text, used, " %" PRId64, tensors[i].shape[k]);
    }
    rpc_append(text, used, "\n");
  }
}

NNCC_API int __tvm_ffi_nncc_facts(void* handle, const rpc_any* args, int32_t num_args, rpc_any* result) {
  (void)handle;
  const rpc_bytes text = num_args == 1 ? rpc_memory(&args[0]) : (rpc_bytes){NULL, 0};
  if (!text.data) {
    return rpc_answered(result, RPC_FAILED);
  }
  size_t used = 0;
  rpc_append(text, &used, "calls %d\n", (int)model_info.num_calls);
  rpc_append_tensors(text, &used, "input", model_info.inputs, model_info.num_inputs);
  rpc_append_tensors(text, &used, "output", model_info.outputs, model_info.num_outputs);
  return rpc_answered(result, (int64_t)used + 1);
}

NNCC_API int __tvm_ffi_nncc_measure(void* handle, const rpc_any* args, int32_t num_args, rpc_any* result) {
  (void)handle;
  const rpc_bytes nothing = {NULL, 0};
  const rpc_bytes seconds = num_args == 8 ? rpc_memory(&args[0]) : nothing;
  const rpc_bytes text = num_args == 8 ? rpc_memory(&args[1]) : nothing;
  int fits = seconds.data && text.data;
  for (int32_t i = 2; fits && i < 8; ++i) {
    fits = rpc_is_number(&args[i]);
  }
  if (!fits) {
    return rpc_refused(result, text, "nncc_measure wants two tensors and six numbers");
  }
  rpc_answer answer = {0};
  rpc_job job = {
      .work = rpc_rounds,
      .threads = (int)rpc_integer(&args[2]),
      .seed = (uint64_t)rpc_integer(&args[3]),
      .warmup = rpc_integer(&args[4]),
      .rounds = rpc_integer(&args[5]),
      .limit = rpc_real(&args[6]),
      .timeout = rpc_real(&args[7]),
      .answer = &answer,
  };
  const size_t row = (size_t)model_info.num_calls * sizeof(double);
  if (job.warmup < 0 || job.rounds < 1 || seconds.nbytes != (size_t)job.rounds * row) {
    return rpc_refused(result, text, "the tensor for the seconds is not float64[rounds x calls]");
  }
  const int64_t status = rpc_apart(&job, seconds.nbytes);
  if (status > 0) {
    memcpy(seconds.data, job.payload, (size_t)status * row);
  }
  rpc_release(&job, seconds.nbytes);
  return rpc_answered_with(result, status, text, answer.text);
}

NNCC_API int __tvm_ffi_nncc_run(void* handle, const rpc_any* args, int32_t num_args, rpc_any* result) {
  (void)handle;
  enum { FIRST = 3 };
  const int32_t tensors = model_info.num_inputs + model_info.num_outputs;
  const rpc_bytes text = num_args > 0 ? rpc_memory(&args[0]) : (rpc_bytes){NULL, 0};
  if (num_args != FIRST + tensors || !rpc_is_number(&args[1]) || !rpc_is_number(&args[2])) {
    return rpc_refused(result, text, "nncc_run wants a text, threads, a timeout, and every input and output");
  }
  rpc_bytes* memory = malloc(((size_t)tensors + 1) * sizeof *memory);
  if (!memory) {
    return rpc_refused(result, text, "no memory");
  }
  size_t payload = 0;
  for (int32_t i = 0; i < tensors; ++i) {
    const int is_input = i < model_info.num_inputs;
    const size_t size = is_input ? model_info.inputs[i].nbytes : model_info.outputs[i - model_info.num_inputs].nbytes;
    memory[i] = rpc_memory(&args[FIRST + i]);
    if (memory[i].nbytes != size) {
      char words[RPC_TEXT];
      snprintf(words, sizeof words, "%s %d has %zu bytes, expected %zu", is_input ? "input" : "output",
               (int)(is_input ? i : i - model_info.num_inputs), memory[i].nbytes, size);
      free(memory);
      return rpc_refused(result, text, words);
    }
    payload += is_input ? 0 : size;
  }
  rpc_answer answer = {0};
  rpc_job job = {
      .work = rpc_once,
      .threads = (int)rpc_integer(&args[1]),
      .timeout = rpc_real(&args[2]),
      .answer = &answer,
      .inputs = memory,
  };
  const int64_t status = rpc_apart(&job, payload);
  const uint8_t* from = job.payload;
  for (int32_t i = model_info.num_inputs; status == 0 && i < tensors; ++i) {
    memcpy(memory[i].data, from, memory[i].nbytes);
    from += memory[i].nbytes;
  }
  rpc_release(&job, payload);
  free(memory);
  return rpc_answered_with(result, status, text, answer.text);
}

#ifdef RT_DRIVER_FUNCTIONS
NNCC_API int __tvm_ffi_nncc_gpu(void* handle, const rpc_any* args, int32_t num_args, rpc_any* result) {
  (void)handle;
  const rpc_bytes text = num_args == 2 ? rpc_memory(&args[0]) : (rpc_bytes){NULL, 0};
  if (!text.data || !rpc_is_number(&args[1])) {
    return rpc_refused(result, text, "nncc_gpu wants a text and a timeout");
  }
  rpc_answer answer = {0};
  rpc_job job = {.work = rpc_name, .timeout = rpc_real(&args[1]), .answer = &answer};
  const int64_t status = rpc_apart(&job, RPC_TEXT);
  if (status == 0) {
    snprintf(answer.text, RPC_TEXT, "%.*s", RPC_TEXT - 1, (const char*)job.payload);
  }
  rpc_release(&job, RPC_TEXT);
  return rpc_answered_with(result, status, text, answer.text);
}
#endif
