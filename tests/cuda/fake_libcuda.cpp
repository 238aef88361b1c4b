/* fake_libcuda.cpp: a libcuda.so.1 with no GPU behind it, which launches kernels through emulator.hpp.
 *
 * As hostile as the real one may be: what is enqueued in a stream runs as late as it can, only when something waits for
 * it; addresses of device memory are no addresses of the processor's (each has a high bit set), and device memory
 * begins as NaNs; a copy of pageable memory to the device takes its bytes at once, one from the device waits. Calls
 * without a current context, on what was destroyed, or of sizes that do not fit fail as they do in the driver.
 *
 * Environment:
 *   NNCC_FAKE_CUDA_KERNELS     library made by fake_cuda.emulated: the functions of all modules but those whose cubin is
 *                              such a library itself, as fake_nvcc.py makes it
 *   NNCC_FAKE_CUDA_LOG         file to which each call is appended, and at the end what is still alive
 *   NNCC_FAKE_CUDA_FAIL        "cuMemAlloc_v2:2" or "cuMemAlloc_v2:2:700": that call of that function fails, with
 *                              CUDA_ERROR_OUT_OF_MEMORY or the error of that number
 *   NNCC_FAKE_CUDA_DEVICES     how many there are (1)
 *   NNCC_FAKE_CUDA_CAPABILITY  of each, "9.0" (9.0)
 *   NNCC_FAKE_CUDA_MEMORY      bytes of each (no limit)
 *   NNCC_FAKE_CUDA_BLOCK_MS    milliseconds that each block of a launch takes (0)
 *   NNCC_FAKE_CUDA_REFUSES     "cubin" or "ptx": modules of this form fail with CUDA_ERROR_NO_BINARY_FOR_GPU
 */
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NO_BINARY = 209,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700,
  OUT_OF_RESOURCES = 701,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_ISOLATION = 905
};

const std::map<int, std::pair<const char*, const char*>> ERRORS = {
    {INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {NOT_INITIALIZED, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
    {NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {NO_BINARY, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {OUT_OF_RESOURCES, {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"}},
    {LAUNCH_FAILED, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
    {CAPTURE_UNSUPPORTED,
     {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {CAPTURE_ISOLATION,
     {"CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"}},
};

using Address = unsigned long long;
constexpr Address TAG = 1ull << 62; /* no pointer of a process has it */
constexpr unsigned STATIC_SHARED = 48 << 10, MOST_SHARED = 227 << 10;

using Work = std::function<void()>;
struct Graph {
  std::vector<Work> works;
};
struct Stream {
  unsigned flags = 0;
  std::vector<Work> queue;
  std::shared_ptr<Graph> capture;
};
struct Event {
  bool timing = true;
  Stream* stream = nullptr; /* where it was recorded and has not passed yet */
  double passed = 0;
};
struct Module {
  void* kernels;
  std::map<std::string, void*> functions;
};
struct Function {
  std::string name;
  int parameters;
  void* kernels;
  unsigned most_shared = STATIC_SHARED;
};
struct Context {
  int device;
};
struct Memory {
  size_t size;
  int device;
  bool managed;
  unsigned char* bytes;
};

struct Fake {
  std::recursive_mutex mutex;
  bool ready = false;
  int sticky = SUCCESS; /* the error of a kernel: all later calls fail with it */
  std::map<int, std::unique_ptr<Context>> primaries;
  std::map<int, int> retained;
  std::set<Stream*> streams;
  std::set<Event*> events;
  std::set<Module*> modules;
  std::set<Function*> functions;
  std::set<Graph*> graphs;
  std::map<void*, std::shared_ptr<Graph>> executables;
  std::map<Address, Memory> memories;
  std::map<Address, size_t> pinned;
  std::map<std::string, int> calls;
  Stream legacy;
  double clock = 0; /* milliseconds */
  size_t used = 0;
  void* kernels = nullptr;
  FILE* log = nullptr;
  Fake() {
    if (const char* path = getenv("NNCC_FAKE_CUDA_LOG")) log = fopen(path, "a");
  }
  ~Fake() {
    if (log) {
      fprintf(log, "alive: %s\n", alive().c_str());
      fclose(log);
    }
  }
  std::string alive() const {
    std::string text;
    const auto count = [&](size_t number, const char* what) {
      if (number) text += (text.empty() ? "" : ", ") + std::to_string(number) + " " + what;
    };
    size_t contexts = 0;
    for (auto& one : retained) contexts += (size_t)one.second;
    count(memories.size(), "allocations");
    count(pinned.size(), "pinned allocations");
    count(modules.size(), "modules");
    count(streams.size(), "streams");
    count(events.size(), "events");
    count(graphs.size(), "graphs");
    count(executables.size(), "executable graphs");
    count(contexts, "contexts");
    return text.empty() ? "nothing" : text;
  }
};

Fake& fake() {
  static Fake one;
  return one;
}
thread_local std::vector<Context*> current;

/* One call of the API: counts and logs it, and makes it fail where that is asked for. */
struct Call {
  std::unique_lock<std::recursive_mutex> lock;
  const char* name;
  std::string arguments;
  int forced = SUCCESS;
  Call(const char* name, bool needs_context, const char* format = "", ...) : lock(fake().mutex), name(name) {
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    arguments = text;
    const int number = ++fake().calls[name];
    if (const char* fail = getenv("NNCC_FAKE_CUDA_FAIL")) {
      const char* colon = strchr(fail, ':');
      if (colon && std::string(fail, colon) == name && atoi(colon + 1) == number) {
        const char* error = strchr(colon + 1, ':');
        forced = error ? atoi(error + 1) : (int)OUT_OF_MEMORY;
      }
    }
    if (!forced && !fake().ready) forced = NOT_INITIALIZED;
    if (!forced && fake().sticky) forced = fake().sticky;
    if (!forced && needs_context && current.empty()) forced = INVALID_CONTEXT;
  }
  int end(int result) {
    if (fake().log) {
      fprintf(fake().log, "%s(%s)%s%s\n", name, arguments.c_str(), result ? " = " : "",
              result ? std::to_string(result).c_str() : "");
      fflush(fake().log);
    }
    return result;
  }
};

#define BEGIN(...)             \
  Call call(__func__, __VA_ARGS__); \
  if (call.forced) return call.end(call.forced)
#define CHECK(condition, error) \
  if (!(condition)) return call.end(error)

int number_of(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text ? atoi(text) : otherwise;
}

/* ---- memory ---- */

const Memory* memory_at(Address address, size_t size = 1) {
  auto next = fake().memories.upper_bound(address);
  if (next == fake().memories.begin()) return nullptr;
  --next;
  return address - next->first + size <= next->second.size ? &next->second : nullptr;
}

unsigned char* bytes_at(Address address) { return reinterpret_cast<unsigned char*>(address & ~TAG); }

bool is_pinned(const void* pointer) {
  const Address address = (Address)(uintptr_t)pointer;
  for (auto& one : fake().pinned) {
    if (address >= one.first && address < one.first + one.second) return true;
  }
  return false;
}

/* ---- streams ---- */

void drain(Stream* stream) {
  std::vector<Work> works;
  works.swap(stream->queue);
  for (Work& work : works) {
    if (!fake().sticky) work();
  }
}

void drain_all() {
  drain(&fake().legacy);
  for (Stream* stream : fake().streams) drain(stream);
}

Stream* stream_of(void* handle) {
  if (!handle || handle == (void*)1 || handle == (void*)2) return &fake().legacy;
  Stream* stream = static_cast<Stream*>(handle);
  return fake().streams.count(stream) ? stream : nullptr;
}

/* What comes to the legacy stream waits for all blocking streams, and they for it. */
void enqueue(Stream* stream, Work work) {
  if (stream->capture) {
    stream->capture->works.push_back(std::move(work));
    return;
  }
  if (stream == &fake().legacy) {
    for (Stream* other : fake().streams) {
      if (!(other->flags & 1)) drain(other);
    }
  } else if (!(stream->flags & 1)) {
    drain(&fake().legacy);
  }
  stream->queue.push_back(std::move(work));
}

}  // namespace

/* ---- for tests ---- */

/* What is alive, such as "2 allocations, 1 streams"; and the calls that this thread has not popped its contexts of. */
EXPORT const char* fake_cuda_alive() {
  static std::string text;
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  text = fake().alive();
  if (!current.empty()) text += ", " + std::to_string(current.size()) + " current";
  return text.c_str();
}
/* A new beginning: calls are counted from 0, and no kernel has failed. */
EXPORT void fake_cuda_reset() {
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  fake().calls.clear();
  fake().sticky = SUCCESS;
}
/* How often a function was called. */
EXPORT int fake_cuda_calls(const char* name) {
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  return fake().calls[name];
}

/* ---- errors, devices, contexts ---- */

EXPORT int cuGetErrorName(int error, const char** name) {
  auto found = ERRORS.find(error);
  *name = found == ERRORS.end() ? nullptr : found->second.first;
  return *name ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuGetErrorString(int error, const char** text) {
  auto found = ERRORS.find(error);
  *text = found == ERRORS.end() ? nullptr : found->second.second;
  return *text ? SUCCESS : INVALID_VALUE;
}
#ifndef FAKE_OLD_DRIVER
EXPORT int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
#else
EXPORT int cuDriverGetVersion(int* version) { return *version = 11020, SUCCESS; }
#endif
EXPORT int cuInit(unsigned) {
  fake().ready = true;
  Call call(__func__, false);
  if (call.forced) {
    fake().ready = false;
    return call.end(call.forced);
  }
  fake().ready = number_of("NNCC_FAKE_CUDA_DEVICES", 1) > 0;
  return call.end(fake().ready ? SUCCESS : NO_DEVICE);
}
EXPORT int cuDeviceGetCount(int* count) {
  BEGIN(false);
  *count = number_of("NNCC_FAKE_CUDA_DEVICES", 1);
  return call.end(SUCCESS);
}
EXPORT int cuDeviceGet(int* device, int ordinal) {
  BEGIN(false, "%d", ordinal);
  CHECK(ordinal >= 0 && ordinal < number_of("NNCC_FAKE_CUDA_DEVICES", 1), INVALID_DEVICE);
  *device = 10 + ordinal; /* which need not be the ordinal */
  return call.end(SUCCESS);
}
EXPORT int cuDeviceGetName(char* name, int size, int device) {
  BEGIN(false, "%d", device);
  snprintf(name, (size_t)size, "Fake %d", device - 10);
  return call.end(SUCCESS);
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
  BEGIN(false, "%d, %d", attribute, device);
  int major = 9, minor = 0;
  if (const char* text = getenv("NNCC_FAKE_CUDA_CAPABILITY")) sscanf(text, "%d.%d", &major, &minor);
  CHECK(attribute == 75 || attribute == 76, INVALID_VALUE);
  *value = attribute == 75 ? major : minor;
  return call.end(SUCCESS);
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int device) {
  BEGIN(false, "%d", device);
  auto& primary = fake().primaries[device];
  if (!primary) primary.reset(new Context{device - 10});
  ++fake().retained[device];
  *context = primary.get();
  return call.end(SUCCESS);
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
  BEGIN(false, "%d", device);
  CHECK(fake().retained[device] > 0, INVALID_CONTEXT);
  --fake().retained[device];
  return call.end(SUCCESS);
}
EXPORT int cuCtxPushCurrent_v2(void* context) {
  BEGIN(false);
  CHECK(context && fake().retained[static_cast<Context*>(context)->device + 10], INVALID_CONTEXT);
  current.push_back(static_cast<Context*>(context));
  return call.end(SUCCESS);
}
EXPORT int cuCtxPopCurrent_v2(void** context) {
  Call call(__func__, true);
  if (!current.empty()) {
    *context = current.back();
    current.pop_back();
  }
  return call.end(call.forced);
}
EXPORT int cuCtxGetCurrent(void** context) {
  BEGIN(false);
  *context = current.empty() ? nullptr : current.back();
  return call.end(SUCCESS);
}

/* ---- modules ---- */

/* The library that a cubin is, where it is one for this machine; NULL where it is none. */
static void* library_of(const void* image) {
  Elf64_Ehdr here, head;
  FILE* self = fopen("/proc/self/exe", "rb");
  const bool known = self && fread(&here, sizeof here, 1, self) == 1;
  if (self) fclose(self);
  memcpy(&head, image, 20);
  if (!known || head.e_machine != here.e_machine) return nullptr;
  memcpy(&head, image, sizeof head);
  char path[] = "/tmp/nncc-fake-cubin-XXXXXX"; /* a name of its own: dlopen knows libraries by their names */
  const int file = mkstemp(path);
  const size_t size = head.e_shoff + (size_t)head.e_shnum * head.e_shentsize;
  void* library = nullptr;
  if (file >= 0 && write(file, image, size) == (ssize_t)size) {
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fprintf(stderr, "fake libcuda: %s\n", dlerror());
  }
  if (file >= 0) {
    unlink(path);
    close(file);
  }
  return library;
}

EXPORT int cuModuleLoadData(void** module, const void* image) {
  const bool cubin = !memcmp(image, "\177ELF", 4), ptx = !!strstr(cubin ? "" : (const char*)image, ".version");
  BEGIN(true, "%s", cubin ? "cubin" : "ptx");
  CHECK(cubin || ptx, INVALID_IMAGE);
  const char* refuses = getenv("NNCC_FAKE_CUDA_REFUSES");
  CHECK(!refuses || !strstr(refuses, cubin ? "cubin" : "ptx"), NO_BINARY);
  void* own = cubin ? library_of(image) : nullptr;
  const char* path = getenv("NNCC_FAKE_CUDA_KERNELS");
  if (!own && !fake().kernels && path) {
    fake().kernels = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!fake().kernels) fprintf(stderr, "fake libcuda: %s\n", dlerror());
  }
  CHECK(own || fake().kernels, INVALID_IMAGE);
  Module* made = new Module{own ? own : fake().kernels, {}};
  fake().modules.insert(made);
  *module = made;
  return call.end(SUCCESS);
}
EXPORT int cuModuleUnload(void* handle) {
  BEGIN(true);
  Module* module = static_cast<Module*>(handle);
  CHECK(fake().modules.count(module), INVALID_HANDLE);
  drain_all();
  for (auto& one : module->functions) {
    fake().functions.erase(static_cast<Function*>(one.second));
    delete static_cast<Function*>(one.second);
  }
  fake().modules.erase(module);
  delete module;
  return call.end(SUCCESS);
}
EXPORT int cuModuleGetFunction(void** function, void* handle, const char* symbol) {
  BEGIN(true, "%s", symbol);
  Module* module = static_cast<Module*>(handle);
  CHECK(fake().modules.count(module), INVALID_HANDLE);
  auto count = reinterpret_cast<int (*)(const char*)>(dlsym(module->kernels, "emulated_parameters"));
  CHECK(count && count(symbol) >= 0, NOT_FOUND);
  void*& made = module->functions[symbol];
  if (!made) {
    Function* one = new Function{symbol, count(symbol), module->kernels};
    fake().functions.insert(one);
    made = one;
  }
  *function = made;
  return call.end(SUCCESS);
}
EXPORT int cuFuncSetAttribute(void* handle, int attribute, int value) {
  BEGIN(true, "%d, %d", attribute, value);
  Function* function = static_cast<Function*>(handle);
  CHECK(fake().functions.count(function), INVALID_HANDLE);
  CHECK(attribute == 8 && value >= 0 && value <= (int)MOST_SHARED, INVALID_VALUE);
  function->most_shared = (unsigned)value;
  return call.end(SUCCESS);
}

/* ---- memory ---- */

static int allocate(Address* address, size_t size, bool managed) {
  const char* limit = getenv("NNCC_FAKE_CUDA_MEMORY");
  if (!size) return INVALID_VALUE;
  if (limit && fake().used + size > strtoull(limit, nullptr, 10)) return OUT_OF_MEMORY;
  unsigned char* bytes = static_cast<unsigned char*>(aligned_alloc(256, (size + 255) & ~(size_t)255));
  if (!bytes) return OUT_OF_MEMORY;
  memset(bytes, 0xff, size);
  fake().used += size;
  *address = (Address)(uintptr_t)bytes | (managed ? 0 : TAG);
  fake().memories[*address] = {size, current.back()->device, managed, bytes};
  return SUCCESS;
}
EXPORT int cuMemAlloc_v2(Address* address, size_t size) {
  BEGIN(true, "%zu", size);
  return call.end(allocate(address, size, false));
}
EXPORT int cuMemAllocManaged(Address* address, size_t size, unsigned flags) {
  BEGIN(true, "%zu, %u", size, flags);
  return call.end(allocate(address, size, true));
}
EXPORT int cuMemFree_v2(Address address) {
  BEGIN(true);
  auto found = fake().memories.find(address);
  CHECK(found != fake().memories.end(), INVALID_VALUE);
  drain_all();
  fake().used -= found->second.size;
  free(found->second.bytes);
  fake().memories.erase(found);
  return call.end(fake().sticky);
}
EXPORT int cuMemAllocHost_v2(void** pointer, size_t size) {
  BEGIN(true, "%zu", size);
  *pointer = malloc(size);
  fake().pinned[(Address)(uintptr_t)*pointer] = size;
  return call.end(SUCCESS);
}
EXPORT int cuMemFreeHost(void* pointer) {
  BEGIN(true);
  CHECK(fake().pinned.erase((Address)(uintptr_t)pointer), INVALID_VALUE);
  drain_all();
  free(pointer);
  return call.end(SUCCESS);
}
EXPORT int cuPointerGetAttribute(void* value, int attribute, Address address) {
  BEGIN(true, "%d", attribute);
  const Memory* memory = memory_at(address);
  const bool pinned = !memory && is_pinned((void*)(uintptr_t)address);
  CHECK(memory || pinned, INVALID_VALUE);
  switch (attribute) {
    case 2: *static_cast<unsigned*>(value) = pinned ? 1 : 2; break;
    case 8: *static_cast<unsigned*>(value) = memory && memory->managed; break;
    case 9: *static_cast<int*>(value) = memory ? memory->device : 0; break;
    default: return call.end(INVALID_VALUE);
  }
  return call.end(SUCCESS);
}
EXPORT int cuMemcpyHtoD_v2(Address to, const void* from, size_t size) {
  BEGIN(true, "%zu", size);
  CHECK(memory_at(to, size), INVALID_VALUE);
  drain_all();
  memcpy(bytes_at(to), from, size);
  return call.end(fake().sticky);
}
EXPORT int cuMemcpyDtoH_v2(void* to, Address from, size_t size) {
  BEGIN(true, "%zu", size);
  CHECK(memory_at(from, size), INVALID_VALUE);
  drain_all();
  memcpy(to, bytes_at(from), size);
  return call.end(fake().sticky);
}
EXPORT int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t size, void* handle) {
  BEGIN(true, "%zu", size);
  Stream* stream = stream_of(handle);
  CHECK(stream, INVALID_HANDLE);
  CHECK(memory_at(to, size), INVALID_VALUE);
  if (is_pinned(from)) {
    enqueue(stream, [=] { memcpy(bytes_at(to), from, size); });
    return call.end(SUCCESS);
  }
  CHECK(!stream->capture, CAPTURE_UNSUPPORTED);
  auto bytes = std::make_shared<std::vector<unsigned char>>((const unsigned char*)from, (const unsigned char*)from + size);
  enqueue(stream, [=] { memcpy(bytes_at(to), bytes->data(), size); });
  return call.end(SUCCESS);
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t size, void* handle) {
  BEGIN(true, "%zu", size);
  Stream* stream = stream_of(handle);
  CHECK(stream, INVALID_HANDLE);
  CHECK(memory_at(from, size), INVALID_VALUE);
  CHECK(!stream->capture || is_pinned(to), CAPTURE_UNSUPPORTED);
  enqueue(stream, [=] { memcpy(to, bytes_at(from), size); });
  if (!is_pinned(to)) drain(stream);
  return call.end(fake().sticky);
}
EXPORT int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, void* handle) {
  BEGIN(true, "%zu", size);
  Stream* stream = stream_of(handle);
  CHECK(stream, INVALID_HANDLE);
  CHECK(memory_at(to, size) && memory_at(from, size), INVALID_VALUE);
  enqueue(stream, [=] {
    if (!memory_at(to, size) || !memory_at(from, size)) {
      fprintf(stderr, "fake libcuda: a copy of memory that is no longer there\n");
      fake().sticky = ILLEGAL_ADDRESS;
      return;
    }
    memcpy(bytes_at(to), bytes_at(from), size);
  });
  return call.end(SUCCESS);
}

/* ---- streams and events ---- */

EXPORT int cuStreamCreate(void** stream, unsigned flags) {
  BEGIN(true, "%u", flags);
  Stream* made = new Stream;
  made->flags = flags;
  fake().streams.insert(made);
  *stream = made;
  return call.end(SUCCESS);
}
EXPORT int cuStreamDestroy_v2(void* handle) {
  BEGIN(true);
  Stream* stream = static_cast<Stream*>(handle);
  CHECK(fake().streams.count(stream), INVALID_HANDLE);
  drain(stream);
  for (Event* event : fake().events) {
    if (event->stream == stream) event->stream = nullptr;
  }
  fake().streams.erase(stream);
  delete stream;
  return call.end(SUCCESS);
}
EXPORT int cuStreamSynchronize(void* handle) {
  BEGIN(true);
  Stream* stream = stream_of(handle);
  CHECK(stream, INVALID_HANDLE);
  CHECK(!stream->capture, CAPTURE_UNSUPPORTED);
  drain(stream);
  return call.end(fake().sticky);
}
EXPORT int cuEventCreate(void** event, unsigned flags) {
  BEGIN(true, "%u", flags);
  Event* made = new Event;
  made->timing = !(flags & 2);
  fake().events.insert(made);
  *event = made;
  return call.end(SUCCESS);
}
EXPORT int cuEventDestroy_v2(void* handle) {
  BEGIN(true);
  Event* event = static_cast<Event*>(handle);
  CHECK(fake().events.count(event), INVALID_HANDLE);
  if (event->stream) drain(event->stream);
  fake().events.erase(event);
  delete event;
  return call.end(SUCCESS);
}
EXPORT int cuEventRecord(void* handle, void* stream_handle) {
  BEGIN(true);
  Event* event = static_cast<Event*>(handle);
  Stream* stream = stream_of(stream_handle);
  CHECK(stream && fake().events.count(event), INVALID_HANDLE);
  CHECK(!stream->capture, CAPTURE_UNSUPPORTED);
  event->stream = stream;
  enqueue(stream, [=] {
    event->passed = ++fake().clock;
    event->stream = nullptr;
  });
  return call.end(SUCCESS);
}
EXPORT int cuEventRecordWithFlags(void* handle, void* stream_handle, unsigned flags) {
  BEGIN(true, "%u", flags);
  Event* event = static_cast<Event*>(handle);
  Stream* stream = stream_of(stream_handle);
  CHECK(stream && fake().events.count(event), INVALID_HANDLE);
  CHECK(stream->capture && flags == 1, INVALID_VALUE);
  stream->capture->works.push_back([=] { event->passed = ++fake().clock; });
  return call.end(SUCCESS);
}
EXPORT int cuEventSynchronize(void* handle) {
  BEGIN(true);
  Event* event = static_cast<Event*>(handle);
  CHECK(fake().events.count(event), INVALID_HANDLE);
  if (event->stream) drain(event->stream);
  return call.end(fake().sticky);
}
/* A thousandth of a second for each event that passed in between; and what the blocks of launches took. */
EXPORT int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
  BEGIN(true);
  Event *from = static_cast<Event*>(start), *to = static_cast<Event*>(end);
  CHECK(fake().events.count(from) && fake().events.count(to) && from->timing && to->timing, INVALID_HANDLE);
  CHECK(from->passed && to->passed && !to->stream, INVALID_HANDLE);
  *milliseconds = (float)(to->passed - from->passed);
  return call.end(SUCCESS);
}
EXPORT int cuStreamWaitEvent(void* handle, void* event_handle, unsigned) {
  BEGIN(true);
  Stream* stream = stream_of(handle);
  Event* event = static_cast<Event*>(event_handle);
  CHECK(stream && fake().events.count(event), INVALID_HANDLE);
  CHECK(!stream->capture, CAPTURE_ISOLATION);
  Stream* other = event->stream;
  if (other && other != stream) {
    enqueue(stream, [=] {
      if (event->stream == other) drain(other);
    });
  }
  return call.end(SUCCESS);
}

/* ---- graphs ---- */

EXPORT int cuStreamIsCapturing(void* handle, int* status) {
  BEGIN(true);
  Stream* stream = stream_of(handle);
  CHECK(stream, INVALID_HANDLE);
  *status = stream->capture ? 1 : 0;
  return call.end(SUCCESS);
}
EXPORT int cuStreamBeginCapture_v2(void* handle, int mode) {
  BEGIN(true, "%d", mode);
  Stream* stream = stream_of(handle);
  CHECK(stream, INVALID_HANDLE);
  CHECK(stream != &fake().legacy && !stream->capture, CAPTURE_UNSUPPORTED);
  stream->capture = std::make_shared<Graph>();
  return call.end(SUCCESS);
}
EXPORT int cuStreamEndCapture(void* handle, void** graph) {
  Call call(__func__, true);
  Stream* stream = stream_of(handle);
  if (!call.forced && !(stream && stream->capture)) call.forced = INVALID_HANDLE;
  if (!call.forced) {
    Graph* made = new Graph(*stream->capture);
    fake().graphs.insert(made);
    *graph = made;
  }
  if (stream) stream->capture = nullptr;
  return call.end(call.forced);
}
#ifndef FAKE_OLD_DRIVER
EXPORT int cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long) {
  BEGIN(true);
  Graph* graph = static_cast<Graph*>(handle);
  CHECK(fake().graphs.count(graph), INVALID_HANDLE);
  auto made = std::make_shared<Graph>(*graph);
  *executable = made.get();
  fake().executables[made.get()] = made;
  return call.end(SUCCESS);
}
#endif
EXPORT int cuGraphDestroy(void* handle) {
  BEGIN(true);
  CHECK(fake().graphs.erase(static_cast<Graph*>(handle)), INVALID_HANDLE);
  delete static_cast<Graph*>(handle);
  return call.end(SUCCESS);
}
EXPORT int cuGraphLaunch(void* executable, void* handle) {
  BEGIN(true);
  Stream* stream = stream_of(handle);
  auto found = fake().executables.find(executable);
  CHECK(stream && found != fake().executables.end(), INVALID_HANDLE);
  auto graph = found->second;
  enqueue(stream, [=] {
    for (const Work& work : graph->works) {
      if (!fake().sticky) work();
    }
  });
  return call.end(SUCCESS);
}
EXPORT int cuGraphExecDestroy(void* executable) {
  BEGIN(true);
  CHECK(fake().executables.erase(executable), INVALID_HANDLE);
  return call.end(SUCCESS);
}

/* ---- launches ---- */

EXPORT int cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, void* stream_handle, void** parameters, void** extra) {
  std::lock_guard<std::recursive_mutex> lock(fake().mutex);
  Function* function = static_cast<Function*>(handle);
  const bool known = fake().functions.count(function);
  BEGIN(true, "%s, %ux%ux%u, %ux%ux%u, %u", known ? function->name.c_str() : "?", gx, gy, gz, bx, by, bz, shared);
  Stream* stream = stream_of(stream_handle);
  CHECK(known && stream, INVALID_HANDLE);
  CHECK(gx && gy && gz && bx && by && bz && gx < 1u << 31 && gy <= 65535 && gz <= 65535 && !extra, INVALID_VALUE);
  CHECK(bx <= 1024 && by <= 1024 && bz <= 64 && bx * by * bz <= 1024, INVALID_VALUE);
  CHECK(shared <= function->most_shared, INVALID_VALUE);
  std::vector<Address> arguments;
  for (int i = 0; i < function->parameters; ++i) arguments.push_back(*static_cast<Address*>(parameters[i]));
  const std::string name = function->name;
  void* const kernels = function->kernels;
  enqueue(stream, [=] {
    if (const char* each = getenv("NNCC_FAKE_CUDA_BLOCK_MS")) fake().clock += atof(each) * gx * gy * gz;
    std::vector<void*> pointers, addresses;
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (!memory_at(arguments[i])) {
        fprintf(stderr, "fake libcuda: kernel `%s`: parameter %zu, %#llx, is in no allocation\n", name.c_str(), i,
                arguments[i]);
        fake().sticky = ILLEGAL_ADDRESS;
        return;
      }
      pointers.push_back(bytes_at(arguments[i]));
    }
    for (void*& pointer : pointers) addresses.push_back(&pointer);
    addresses.push_back(nullptr);
    auto run = reinterpret_cast<int (*)(const char*, const unsigned*, const unsigned*, size_t, void**, char*, size_t)>(
        dlsym(kernels, "emulated_launch"));
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    char error[1000] = "";
    if (!run || run(name.c_str(), grid, block, shared, addresses.data(), error, sizeof error)) {
      fprintf(stderr, "fake libcuda: %s\n", error);
      fake().sticky = LAUNCH_FAILED;
    }
  });
  return call.end(SUCCESS);
}
