/* nncc-bench: describe, run, time and profile any library that nncc compiled. For boards without Python. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#define PSAPI_VERSION 2
#include <psapi.h>
#else
#include <dlfcn.h>
#include <sys/resource.h>
#endif

#include "clock.h"
#include "nncc.h"

static const char usage[] =
    "usage: nncc-bench LIBRARY [options]\n"
    "\n"
    "  --describe           print the library's description as JSON; runs nothing\n"
    "  --size NAME=N        size of an open dimension                            (default its highest)\n"
    "  --threads N          threads, 0 for one per processor                     (default 1)\n"
    "  --device DRIVER:URI  of a library for an accelerator: its driver, a shared library, and what that is to open\n"
    "                                                   (default what NNCC_ACCELERATOR in the environment says)\n"
    "  --input NAME=FILE    raw little-endian contents of an input; others are filled\n"
    "  --output NAME=FILE   write an output, raw, after the last run\n"
    "  --fill KIND          random, zeros or ones                                (default random)\n"
    "  --seed S             of the random fill                                   (default 0)\n"
    "  --warmup N           runs that are not timed                              (default 1)\n"
    "  --repeat N           runs that are timed                                  (default 10)\n"
    "  --profile            after these, run as often again and time each kernel call\n"
    "  --json               print one JSON object instead of a table\n";

enum { EXIT_USAGE = 2 };

typedef struct {
  const nncc_info* (*describe)(void);
  int (*create)(nncc_context**, int);
  int (*resize)(nncc_context*, const int64_t*);
  int (*input_shape)(const nncc_context*, int32_t, int64_t*);
  int (*output_shape)(const nncc_context*, int32_t, int64_t*);
  int (*run)(nncc_context*, const void* const*, void* const*);
  int (*profile)(nncc_context*, const void* const*, void* const*, double*);
  void (*destroy)(nncc_context*);
  const char* (*last_error)(void);
  /* Of libraries for accelerators only; NULL in others. */
  int (*create_on)(nncc_context**, int, const char*);
  const char* (*device_wanted)(void);
  const char* (*device)(nncc_context*);
  int (*counters)(nncc_context*, const char**, uint64_t*, int);
  int (*cycles)(nncc_context*, uint64_t*);
} library;

typedef struct {
  const char *library, *device;
  int describe, profile, json;
  int threads;
  const char* fill;
  uint64_t seed;
  long warmup, repeat;
  const char **inputs, **outputs, **sizes; /* NAME=FILE, NAME=N */
  int num_inputs, num_outputs, num_sizes;
} options;

__attribute__((format(printf, 2, 3), noreturn)) static void stop(int status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("nncc-bench: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(status);
}

/* ---- the system ---- */

static long peak_rss_kib(void) {
#if defined(_WIN32)
  PROCESS_MEMORY_COUNTERS counters;
  const int known = GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters);
  return known ? (long)(counters.PeakWorkingSetSize / 1024) : 0;
#else
  struct rusage usage_now;
  getrusage(RUSAGE_SELF, &usage_now);
#if defined(__APPLE__)
  return usage_now.ru_maxrss / 1024; /* bytes there */
#else
  return usage_now.ru_maxrss;
#endif
#endif
}

static void* take_memory(size_t nbytes) {
  void* memory = calloc(nbytes ? nbytes : 1, 1);
  if (!memory) {
    stop(1, "out of memory: %zu bytes", nbytes);
  }
  return memory;
}

/* The text of a path that ends at `end`: a bare name would be looked for among the system's libraries. */
static char* in_a_folder(const char* text, const char* end) {
  char* with_folder = take_memory(strlen(text) + 3);
  sprintf(with_folder, "%s%s", memchr(text, '/', (size_t)(end - text)) ? "" : "./", text);
  return with_folder;
}

#if defined(_WIN32)
typedef HMODULE module;
static module open_module(const char* path) {
  module opened = LoadLibraryA(path);
  if (!opened) {
    stop(1, "cannot load %s: Windows error %lu", path, (unsigned long)GetLastError());
  }
  return opened;
}
static void* find_symbol(module opened, const char* name) { return (void*)(uintptr_t)GetProcAddress(opened, name); }
#else
typedef void* module;
static module open_module(const char* path) {
  char* with_folder = in_a_folder(path, path + strlen(path));
  module opened = dlopen(with_folder, RTLD_NOW | RTLD_LOCAL);
  if (!opened) {
    stop(1, "cannot load: %s", dlerror());
  }
  free(with_folder);
  return opened;
}
static void* find_symbol(module opened, const char* name) { return dlsym(opened, name); }
#endif

static library load_library(const char* path) {
  library model;
  module opened = open_module(path);
  const struct {
    const char* name;
    void* place;
  } functions[] = {{"nncc_describe", &model.describe}, {"nncc_create", &model.create},
                   {"nncc_resize", &model.resize},     {"nncc_input_shape", &model.input_shape},
                   {"nncc_output_shape", &model.output_shape},
                   {"nncc_run", &model.run},           {"nncc_profile", &model.profile},
                   {"nncc_destroy", &model.destroy},   {"nncc_last_error", &model.last_error},
                   {"nncc_create_on", &model.create_on},
                   {"nncc_device_wanted", &model.device_wanted},
                   {"nncc_device", &model.device},     {"nncc_counters", &model.counters},
                   {"nncc_cycles", &model.cycles}};
  enum { EVERY = 9 }; /* functions that all libraries have */
  for (size_t i = 0; i < sizeof functions / sizeof *functions; ++i) {
    void* symbol = find_symbol(opened, functions[i].name);
    if (!symbol && i < EVERY) {
      stop(1, "%s was not compiled by nncc: it has no function %s", path, functions[i].name);
    }
    memcpy(functions[i].place, &symbol, sizeof symbol); /* ISO C has no cast from object to function pointer */
  }
  const int version = model.describe()->abi_version;
  if (version != NNCC_ABI_VERSION) {
    stop(1, "%s speaks version %d of the interface, this program version %d", path, version, NNCC_ABI_VERSION);
  }
  return model;
}

/* ---- JSON ---- */

static void print_string(const char* text) {
  putchar('"');
  for (; *text; ++text) {
    const unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') {
      printf("\\%c", c);
    } else if (c < 0x20) {
      printf("\\u%04x", c);
    } else {
      putchar(c);
    }
  }
  putchar('"');
}

static void print_key(const char* before, const char* key) {
  fputs(before, stdout);
  print_string(key);
  fputs(": ", stdout);
}

static void print_tensors(const char* key, const nncc_tensor* tensors, int32_t count) {
  print_key(", ", key);
  for (int32_t i = 0; i < count; ++i) {
    print_key(i ? ", {" : "[{", "name");
    print_string(tensors[i].name);
    print_key(", ", "dtype");
    print_string(tensors[i].dtype);
    print_key(", ", "shape");
    for (int32_t k = 0; k < tensors[i].ndim; ++k) {
      printf("%s%" PRId64, k ? ", " : "[", tensors[i].shape[k]);
    }
    printf("%s, \"nbytes\": %zu", tensors[i].ndim ? "]" : "[]", tensors[i].nbytes);
    if (tensors[i].dims) {
      print_key(", ", "dims");
      for (int32_t k = 0; k < tensors[i].ndim; ++k) {
        printf("%s%d", k ? ", " : "[", (int)tensors[i].dims[k]);
      }
      putchar(']');
    }
    putchar('}');
  }
  fputs(count ? "]" : "[]", stdout);
}

static void print_description(const library* model) {
  const nncc_info* info = model->describe();
  printf("{\"abi_version\": %d", (int)info->abi_version);
  const char* const words[][2] = {
      {"name", info->name}, {"target", info->target}, {"build", info->build}, {"compiler", info->compiler}};
  for (size_t i = 0; i < sizeof words / sizeof *words; ++i) {
    print_key(", ", words[i][0]);
    print_string(words[i][1]);
  }
  print_key(", ", "features");
  putchar('[');
  const char* separator = "";
  for (const char* word = info->features; *word;) {
    const size_t length = strcspn(word, ",");
    if (length) {
      printf("%s\"%.*s\"", separator, (int)length, word);
      separator = ", ";
    }
    word += length + (word[length] == ',');
  }
  putchar(']');
  print_tensors("inputs", info->inputs, info->num_inputs);
  print_tensors("outputs", info->outputs, info->num_outputs);
  printf(", \"arena_bytes\": %zu, \"scratch_bytes\": %zu, \"weights_bytes\": %zu", info->arena_bytes,
         info->scratch_bytes, info->weights_bytes);
  print_key(", ", "dims");
  putchar('[');
  for (int32_t i = 0; i < info->num_dims; ++i) {
    print_key(i ? ", {" : "{", "name");
    print_string(info->dims[i].name);
    printf(", \"low\": %" PRId64 ", \"high\": %" PRId64 ", \"from_data\": %s}", info->dims[i].low, info->dims[i].high,
           info->dims[i].from_data ? "true" : "false");
  }
  print_key("], ", "variants");
  putchar('[');
  for (int32_t i = 0; i < info->num_variants; ++i) {
    for (int32_t k = 0; k < info->num_dims; ++k) {
      printf("%s%" PRId64, k ? ", " : i ? ", [" : "[", info->variants[i * info->num_dims + k]);
    }
    putchar(']');
  }
  putchar(']');
  print_key(", ", "calls");
  for (int32_t i = 0; i < info->num_calls; ++i) {
    print_key(i ? ", {" : "[{", "name");
    print_string(info->call_names[i]);
    printf(", \"flops\": %.17g, \"multiplications\": %.17g", info->call_flops[i], info->call_multiplications[i]);
    printf(", \"bytes\": %.17g, \"weight_bytes\": %.17g}", info->call_bytes[i], info->call_weight_bytes[i]);
  }
  fputs(info->num_calls ? "]" : "[]", stdout);
  if (model->device_wanted) {
    print_key(", ", "accelerator");
    fputs(model->device_wanted(), stdout); /* JSON */
  }
  fputs("}\n", stdout);
}

/* ---- tensors ---- */

static uint64_t next_random(uint64_t* state) { /* splitmix64 */
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* float16 of a value in [-1, 1], rounded towards zero; below its normal range, zero. */
static uint16_t half_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const int exponent = (int)(bits >> 23 & 0xff) - 127 + 15;
  return (uint16_t)(bits >> 16 & 0x8000) | (exponent > 0 ? (uint16_t)(exponent << 10 | (bits >> 13 & 0x3ff)) : 0);
}

/* Write a value of `dtype` to `to` and return its size, or 0 where the dtype has no rule. `ones` or random:
 * floats in [-1, 1), 8-bit integers of their whole range, wider ones (which are often indices) in [0, 8). */
static size_t write_value(const char* dtype, uint8_t* to, int ones, uint64_t* state) {
  const uint64_t random = next_random(state);
  const double real = ones ? 1 : (double)(random >> 11) * 0x1p-52 - 1;
  const float single = ones ? 1 : (float)(random >> 40) * 0x1p-23f - 1;
  const uint64_t integer = ones ? 1 : random >> 61;
  uint32_t bits;
  memcpy(&bits, &single, sizeof bits);
  const struct {
    const char* dtype;
    const void* value;
    size_t size;
  } rules[] = {{"float32", &single, 4},
               {"float64", &real, 8},
               {"float16", &(uint16_t){half_of(single)}, 2},
               {"bfloat16", &(uint16_t){(uint16_t)(bits >> 16)}, 2},
               {"int8", &(uint8_t){ones ? 1 : (uint8_t)(random >> 56)}, 1},
               {"uint8", &(uint8_t){ones ? 1 : (uint8_t)(random >> 56)}, 1},
               {"bool", &(uint8_t){ones ? 1 : (uint8_t)(random >> 63)}, 1},
               {"int16", &(uint16_t){(uint16_t)integer}, 2},
               {"uint16", &(uint16_t){(uint16_t)integer}, 2},
               {"int32", &(uint32_t){(uint32_t)integer}, 4},
               {"uint32", &(uint32_t){(uint32_t)integer}, 4},
               {"int64", &integer, 8},
               {"uint64", &integer, 8}};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; ++i) {
    if (!strcmp(rules[i].dtype, dtype)) {
      memcpy(to, rules[i].value, rules[i].size);
      return rules[i].size;
    }
  }
  return 0;
}

static void fill_tensor(const nncc_tensor* tensor, uint8_t* data, const char* fill, uint64_t seed) {
  if (!strcmp(fill, "zeros")) {
    return; /* take_memory did it */
  }
  uint8_t value[8];
  for (size_t at = 0, size; at < tensor->nbytes; at += size) {
    size = write_value(tensor->dtype, value, !strcmp(fill, "ones"), &seed);
    if (!size || at + size > tensor->nbytes) {
      stop(1, "cannot fill input `%s` of dtype %s with %s; give it by --input, or use --fill zeros", tensor->name,
           tensor->dtype, fill);
    }
    memcpy(data + at, value, size);
  }
}

static void read_file(const nncc_tensor* tensor, uint8_t* data, const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) {
    stop(1, "cannot read %s: %s", path, strerror(errno));
  }
  size_t count = fread(data, 1, tensor->nbytes, file);
  for (char extra; fread(&extra, 1, 1, file) == 1;) {
    ++count;
  }
  if (ferror(file)) {
    stop(1, "cannot read %s: %s", path, strerror(errno));
  }
  fclose(file);
  if (count != tensor->nbytes) {
    stop(1, "%s has %zu bytes; input `%s` has %zu", path, count, tensor->name, tensor->nbytes);
  }
}

static void write_file(const nncc_tensor* tensor, const uint8_t* data, const char* path) {
  FILE* file = fopen(path, "wb");
  if (!file || fwrite(data, 1, tensor->nbytes, file) != tensor->nbytes || fclose(file)) {
    stop(1, "cannot write %s: %s", path, strerror(errno));
  }
}

/* The tensor that NAME=FILE names; `*path` becomes FILE. A name may itself contain `=`. */
static int32_t find_tensor(const char* role, const char* word, const nncc_tensor* tensors, int32_t count,
                           const char** path) {
  for (int32_t i = 0; i < count; ++i) {
    const size_t length = strlen(tensors[i].name);
    if (!strncmp(tensors[i].name, word, length) && word[length] == '=') {
      *path = word + length + 1;
      return i;
    }
  }
  fprintf(stderr, "nncc-bench: --%s %s: the model has no such %s; it has", role, word, role);
  for (int32_t i = 0; i < count; ++i) {
    fprintf(stderr, " `%s`", tensors[i].name);
  }
  fputc('\n', stderr);
  exit(EXIT_USAGE);
}

/* ---- the command line ---- */

static long long number(const char* option, const char* text, long long least) {
  char* end;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  if (!*text || *end || errno || value < least || value > INT32_MAX) {
    stop(EXIT_USAGE, "%s: `%s` is not a whole number of at least %lld", option, text, least);
  }
  return value;
}

/* The sizes of the open dimensions, of which the highest are the default, to the context. */
static void choose_sizes(const options* given, const library* model, nncc_context* context) {
  const nncc_info* info = model->describe();
  int64_t* sizes = take_memory((size_t)info->num_dims * sizeof *sizes);
  for (int32_t i = 0; i < info->num_dims; ++i) {
    sizes[i] = info->dims[i].high;
  }
  for (int i = 0; i < given->num_sizes; ++i) {
    const char* word = given->sizes[i];
    int32_t at = 0;
    size_t length = 0;
    for (; at < info->num_dims; ++at) {
      length = strlen(info->dims[at].name);
      if (!strncmp(info->dims[at].name, word, length) && word[length] == '=') {
        break;
      }
    }
    if (at == info->num_dims) {
      stop(EXIT_USAGE, "--size %s: the library has no such open dimension", word);
    }
    sizes[at] = number("--size", word + length + 1, 1);
  }
  if (given->num_sizes && model->resize(context, sizes)) {
    stop(1, "%s", model->last_error());
  }
  free(sizes);
}

/* A tensor at the sizes that were chosen. */
static nncc_tensor at_sizes(const nncc_tensor* tensor, int failed, const int64_t* shape) {
  nncc_tensor actual = *tensor;
  size_t most = 1, count = 1;
  for (int32_t k = 0; k < tensor->ndim; ++k) {
    most *= (size_t)tensor->shape[k];
    count *= (size_t)shape[k];
  }
  if (failed) {
    stop(1, "the shape of `%s` is not known", tensor->name);
  }
  actual.shape = shape;
  actual.nbytes = most ? tensor->nbytes / most * count : 0;
  return actual;
}

static options parse(int argc, char** argv) {
  options given = {.threads = 1, .fill = "random", .warmup = 1, .repeat = 10};
  given.inputs = take_memory((size_t)argc * sizeof *given.inputs);
  given.outputs = take_memory((size_t)argc * sizeof *given.outputs);
  given.sizes = take_memory((size_t)argc * sizeof *given.sizes);
  for (int i = 1; i < argc; ++i) {
    const char* word = argv[i];
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
      fputs(usage, stdout);
      exit(0);
    } else if (!strcmp(word, "--describe")) {
      given.describe = 1;
    } else if (!strcmp(word, "--profile")) {
      given.profile = 1;
    } else if (!strcmp(word, "--json")) {
      given.json = 1;
    } else if (word[0] != '-') {
      if (given.library) {
        stop(EXIT_USAGE, "one library at a time: %s and %s", given.library, word);
      }
      given.library = word;
    } else {
      const char* const with_value[] = {"--threads", "--input",  "--output", "--fill",
                                        "--seed",    "--size",   "--device", "--warmup",
                                        "--repeat"};
      size_t known = 0;
      while (known < sizeof with_value / sizeof *with_value && strcmp(word, with_value[known])) {
        ++known;
      }
      if (known == sizeof with_value / sizeof *with_value) {
        stop(EXIT_USAGE, "%s is no option; see --help", word);
      }
      if (++i == argc) {
        stop(EXIT_USAGE, "%s wants a value", word);
      }
      switch (known) {
        case 0: given.threads = (int)number(word, argv[i], 0); break;
        case 1: given.inputs[given.num_inputs++] = argv[i]; break;
        case 2: given.outputs[given.num_outputs++] = argv[i]; break;
        case 3: given.fill = argv[i]; break;
        case 4: given.seed = (uint64_t)number(word, argv[i], 0); break;
        case 5: given.sizes[given.num_sizes++] = argv[i]; break;
        case 6: given.device = argv[i]; break;
        case 7: given.warmup = (long)number(word, argv[i], 0); break;
        default: given.repeat = (long)number(word, argv[i], 1); break;
      }
    }
  }
  if (!given.library) {
    fputs(usage, stderr);
    exit(EXIT_USAGE);
  }
  if (strcmp(given.fill, "random") && strcmp(given.fill, "zeros") && strcmp(given.fill, "ones")) {
    stop(EXIT_USAGE, "--fill: `%s` is none of random, zeros, ones", given.fill);
  }
  return given;
}

/* A context on the device that was asked for; the seconds until it was there. */
static double create(const options* given, const library* model, nncc_context** context) {
  const char* device = given->device;
  if (device && !model->create_on) {
    stop(EXIT_USAGE, "--device: %s is for %s, which has no accelerator", given->library, model->describe()->target);
  }
  if (device && !*device) {
    stop(EXIT_USAGE, "--device wants a driver, a shared library: PATH, or PATH:URI");
  }
  char* driver = device ? in_a_folder(device, device + strcspn(device, ":")) : NULL;
  const double before = nncc_seconds();
  if (driver ? model->create_on(context, given->threads, driver) : model->create(context, given->threads)) {
    stop(1, "%s", model->last_error());
  }
  free(driver);
  return nncc_seconds() - before;
}

static int compare(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

/* ---- the report ---- */

typedef struct {
  double load, create;   /* seconds */
  double* times;         /* seconds of each timed run */
  const double* profile; /* seconds of each call, summed over `repeat` runs; NULL without --profile */
  const nncc_tensor* outputs; /* at the sizes chosen */
  const char* device;         /* NULL: there is no accelerator */
  uint64_t* cycles;           /* of each call in the last run; NULL where the device does not count them */
  const char** counters;      /* its names and values, over the last run */
  uint64_t* values;
  int num_counters;
} measurement;

enum { MOST_COUNTERS = 128 };

/* What the accelerator has counted in the last run. */
static void ask_device(const library* model, nncc_context* context, measurement* found) {
  if (!model->device) {
    return;
  }
  found->device = model->device(context);
  found->counters = take_memory(MOST_COUNTERS * sizeof *found->counters);
  found->values = take_memory(MOST_COUNTERS * sizeof *found->values);
  found->num_counters = model->counters(context, found->counters, found->values, MOST_COUNTERS);
  found->cycles = take_memory((size_t)model->describe()->num_calls * sizeof *found->cycles);
  if (model->cycles(context, found->cycles)) {
    free(found->cycles);
    found->cycles = NULL;
  }
}

/* What `--profile` tells besides times. */
static void print_counters(const options* given, const measurement* found) {
  if (given->json) {
    print_key(", ", "counters");
  }
  for (int i = 0; i < found->num_counters; ++i) {
    if (given->json) {
      print_key(i ? ", " : "{", found->counters[i]);
      printf("%" PRIu64, found->values[i]);
    } else {
      printf("%s%12" PRIu64 "  %s\n", i ? "" : "\n", found->values[i], found->counters[i]);
    }
  }
  if (given->json) {
    fputs(found->num_counters ? "}" : "{}", stdout);
  }
}

static void print_report(const options* given, const nncc_info* info, const measurement* found) {
  const size_t repeat = (size_t)given->repeat;
  double sum = 0;
  if (given->json) {
    print_key("{", "name");
    print_string(info->name);
    print_key(", ", "target");
    print_string(info->target);
    print_key(", ", "build");
    print_string(info->build);
    if (found->device) {
      print_key(", ", "device");
      print_string(found->device);
    }
    printf(", \"threads\": %d, \"warmup\": %ld, \"repeat\": %ld", given->threads, given->warmup, given->repeat);
    print_key(", ", "shapes");
    for (int32_t i = 0; i < info->num_outputs; ++i) {
      fputs(i ? ", [" : "[[", stdout);
      for (int32_t k = 0; k < found->outputs[i].ndim; ++k) {
        printf("%s%" PRId64, k ? ", " : "", found->outputs[i].shape[k]);
      }
      putchar(']');
    }
    fputs(info->num_outputs ? "]" : "[]", stdout);
    print_key(", ", "times_ms");
    for (size_t i = 0; i < repeat; ++i) {
      printf("%s%.6f", i ? ", " : "[", found->times[i] * 1e3);
    }
    putchar(']');
  }
  qsort(found->times, repeat, sizeof *found->times, compare);
  for (size_t i = 0; i < repeat; ++i) {
    sum += found->times[i];
  }
  const double middle = (found->times[(repeat - 1) / 2] + found->times[repeat / 2]) / 2;
  const struct {
    const char* key;
    double milliseconds;
  } rows[] = {{"min_ms", found->times[0] * 1e3},
              {"p50_ms", middle * 1e3},
              {"p90_ms", found->times[(repeat * 9 + 9) / 10 - 1] * 1e3}, /* nearest rank */
              {"mean_ms", sum / (double)repeat * 1e3},
              {"load_ms", found->load * 1e3},
              {"create_ms", found->create * 1e3}};
  if (!given->json) {
    printf("%s for %s, %d thread%s, %ld runs\n", info->name, info->target, given->threads,
           given->threads == 1 ? "" : "s", given->repeat);
    if (found->device) {
      printf("accelerator: %s\n", found->device);
    }
  }
  for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
    printf(given->json ? ", \"%s\": %.6f" : "%-14s %12.3f\n", rows[i].key, rows[i].milliseconds);
  }
  printf(given->json ? ", \"%s\": %ld" : "%-14s %12ld\n", "peak_rss_kib", peak_rss_kib());
  if (found->profile) {
    double total = 0;
    for (int32_t i = 0; i < info->num_calls; ++i) {
      total += found->profile[i];
    }
    if (given->json) {
      print_key(", ", "calls");
      putchar('[');
    } else {
      printf("\n%12s %7s %9s %9s%s  call\n", "mean us", "share", "GFLOP/s", "GB/s", found->cycles ? "       cycles" : "");
    }
    for (int32_t i = 0; i < info->num_calls; ++i) {
      const double mean = found->profile[i] / (double)repeat;
      const double share = total > 0 ? found->profile[i] / total : 0;
      const double gflops = mean > 0 ? info->call_flops[i] / mean * 1e-9 : 0;
      const double gbps = mean > 0 ? info->call_bytes[i] / mean * 1e-9 : 0;
      if (given->json) {
        print_key(i ? ", {" : "{", "name");
        print_string(info->call_names[i]);
        printf(", \"mean_us\": %.4f, \"share\": %.6f, \"gflops\": %.4f, \"gbps\": %.4f", mean * 1e6, share, gflops,
               gbps);
        if (found->cycles) {
          printf(", \"cycles\": %" PRIu64, found->cycles[i]);
        }
        putchar('}');
      } else {
        printf("%12.2f %6.1f%% ", mean * 1e6, share * 100);
        if (info->call_flops[i] > 0) {
          printf("%9.2f", gflops);
        } else {
          printf("%9s", "-");
        }
        printf(" %9.2f", gbps);
        if (found->cycles) {
          printf(" %12" PRIu64, found->cycles[i]);
        }
        printf("  %3d %s\n", (int)i, info->call_names[i]);
      }
    }
    fputs(given->json ? "]" : "", stdout);
    if (found->device) {
      print_counters(given, found);
    }
  }
  fputs(given->json ? "}\n" : "", stdout);
}

int main(int argc, char** argv) {
  const options given = parse(argc, argv);
  const double before_load = nncc_seconds();
  const library model = load_library(given.library);
  measurement found = {.load = nncc_seconds() - before_load};
  const nncc_info* info = model.describe();
  if (given.describe) {
    print_description(&model);
    return 0;
  }

  const char** input_files = take_memory((size_t)info->num_inputs * sizeof *input_files);
  const char** output_files = take_memory((size_t)info->num_outputs * sizeof *output_files);
  for (int i = 0; i < given.num_inputs; ++i) {
    const char* path;
    const int32_t at = find_tensor("input", given.inputs[i], info->inputs, info->num_inputs, &path);
    input_files[at] = path;
  }
  for (int i = 0; i < given.num_outputs; ++i) {
    const char* path;
    const int32_t at = find_tensor("output", given.outputs[i], info->outputs, info->num_outputs, &path);
    output_files[at] = path;
  }

  nncc_context* context;
  found.create = create(&given, &model, &context);
  choose_sizes(&given, &model, context);
  void** inputs = take_memory((size_t)info->num_inputs * sizeof *inputs);
  void** outputs = take_memory((size_t)info->num_outputs * sizeof *outputs);
  for (int32_t i = 0; i < info->num_inputs; ++i) {
    int64_t* shape = take_memory((size_t)info->inputs[i].ndim * sizeof *shape);
    const int failed = model.input_shape(context, i, shape);
    const nncc_tensor tensor = at_sizes(&info->inputs[i], failed, shape);
    inputs[i] = take_memory(tensor.nbytes);
    if (input_files[i]) {
      read_file(&tensor, inputs[i], input_files[i]);
    } else {
      fill_tensor(&tensor, inputs[i], given.fill, given.seed + ((uint64_t)i << 32));
    }
  }
  nncc_tensor* made = take_memory((size_t)info->num_outputs * sizeof *made);
  for (int32_t i = 0; i < info->num_outputs; ++i) {
    int64_t* shape = take_memory((size_t)info->outputs[i].ndim * sizeof *shape);
    const int failed = model.output_shape(context, i, shape);
    made[i] = at_sizes(&info->outputs[i], failed, shape);
    outputs[i] = take_memory(made[i].nbytes);
  }
  found.outputs = made;

  found.times = take_memory((size_t)given.repeat * sizeof *found.times);
  for (long i = -given.warmup; i < given.repeat; ++i) {
    const double start = nncc_seconds();
    const int failed = model.run(context, (const void* const*)inputs, outputs);
    const double end = nncc_seconds();
    if (failed) {
      stop(1, "%s", model.last_error());
    }
    if (i >= 0) {
      found.times[i] = end - start;
    }
  }
  if (given.profile) {
    double* seconds = take_memory((size_t)info->num_calls * sizeof *seconds);
    for (long i = 0; i < given.repeat; ++i) {
      if (model.profile(context, (const void* const*)inputs, outputs, seconds)) {
        stop(1, "%s", model.last_error());
      }
    }
    found.profile = seconds;
  }
  ask_device(&model, context, &found);
  for (int32_t i = 0; i < info->num_outputs; ++i) { /* the runs have said what they selected */
    int64_t* shape = take_memory((size_t)info->outputs[i].ndim * sizeof *shape);
    const int failed = model.output_shape(context, i, shape);
    made[i] = at_sizes(&info->outputs[i], failed, shape);
    if (output_files[i]) {
      write_file(&made[i], outputs[i], output_files[i]);
    }
  }
  print_report(&given, info, &found);
  model.destroy(context);
  return 0;
}
