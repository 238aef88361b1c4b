/* accelerator.c: the accelerator of a context, behind the driver's interface, accelerator.h. Included by runtime.c where
 * model.c defines NNCC_ACCELERATOR; see internal.h for what it defines besides.
 *
 * Arena and constants lie in memory that the driver allocates, so that host kernels and the accelerator work on the same
 * bytes. The constants are the weights, and behind them the programs. */
#include <dlfcn.h>

#include "accelerator.h"

enum { RT_MOST_COUNTERS = 128, RT_COUNTER_NAME = 48, RT_PROGRAM_SECONDS = 600 };
enum { RT_UOP, RT_WGT, RT_INP, RT_ACC, RT_OUT, RT_ACC8, RT_PAR }; /* numbers of memories */

typedef struct {
  void* library;
  const nncc_accelerator_driver_table* driver;
  nncc_accelerator* device;
  uint8_t* arena; /* for the host */
  uint64_t arena_address, constants_address;
  uint32_t clock_mhz;
  char about[256]; /* what nncc_device says */
  /* Of the last inference. */
  int cycles_known;
  uint64_t cycles[NNCC_CALLS];
  uint32_t num_counters;
  char names[RT_MOST_COUNTERS][RT_COUNTER_NAME];
  uint64_t counters[RT_MOST_COUNTERS];
} rt_accelerator;

/* A call of the driver that failed, with the driver's own words. */
static int rt_driver_fail(const rt_accelerator* at, const char* what) {
  const char* reason = at->driver->error(at->device);
  return rt_fail(NNCC_ERROR_DEVICE, "the accelerator's driver failed to %s: %s", what,
                 reason && *reason ? reason : "it gave no reason");
}

static void rt_close_accelerator(rt_accelerator* at) {
  if (at->device) {
    at->driver->close(at->device);
  }
  if (at->library) {
    dlclose(at->library);
  }
  at->device = NULL;
  at->library = NULL;
}

/* Load the driver of `text`, its path, then a colon and what it is to open. */
static int rt_load_driver(rt_accelerator* at, const char* text) {
  const char* colon = strchr(text, ':');
  const char* uri = colon ? colon + 1 : "";
  char path[4096];
  const size_t length = colon ? (size_t)(colon - text) : strlen(text);
  if (length >= sizeof path) {
    return rt_fail(NNCC_ERROR_DEVICE, "the path of the accelerator's driver has %llu characters, more than %d",
                   (unsigned long long)length, (int)sizeof path - 1);
  }
  memcpy(path, text, length);
  path[length] = 0;
  at->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!at->library) {
    return rt_fail(NNCC_ERROR_DEVICE, "the accelerator's driver cannot be loaded: %.400s", dlerror());
  }
  at->driver = dlsym(at->library, NNCC_ACCELERATOR_SYMBOL);
  if (!at->driver) {
    return rt_fail(NNCC_ERROR_DEVICE, "`%.300s` is no driver of an accelerator: it has no " NNCC_ACCELERATOR_SYMBOL,
                   path);
  }
  if (at->driver->abi != NNCC_ACCELERATOR_ABI) {
    return rt_fail(NNCC_ERROR_DEVICE, "the driver `%.300s` speaks version %u of the interface, this library version %d",
                   path, (unsigned)at->driver->abi, NNCC_ACCELERATOR_ABI);
  }
  if (at->driver->open(uri, &at->device)) {
    at->device = NULL;
    char what[128];
    snprintf(what, sizeof what, "open `%.100s`", uri);
    return rt_driver_fail(at, what);
  }
  return NNCC_OK;
}

/* Whether the device takes this library's programs. */
static int rt_check_device(rt_accelerator* at) {
  nncc_accelerator_info info = {0};
  if (at->driver->info(at->device, &info)) {
    return rt_driver_fail(at, "describe the device");
  }
  if (!info.isa_hash || strcmp(info.isa_hash, model_machine.isa_hash) != 0) {
    return rt_fail(NNCC_ERROR_DEVICE, "the programs of this library are for %s (%.12s), the device is %s (%.12s)",
                   model_machine.configuration, model_machine.isa_hash,
                   info.configuration ? info.configuration : "unknown", info.isa_hash ? info.isa_hash : "no hash");
  }
  at->clock_mhz = info.clock_mhz ? info.clock_mhz : 1;
  snprintf(at->about, sizeof at->about, "%s, %u MHz, memory %s", model_machine.configuration, (unsigned)at->clock_mhz,
           info.memory ? info.memory : "unknown");
  return NNCC_OK;
}

/* Open the device, and put the constants where it reads them. */
static int rt_open_accelerator(rt_accelerator* at, const char* text) {
  if (!text || !*text) {
    text = getenv("NNCC_ACCELERATOR");
  }
  if (!text || !*text) {
    return rt_fail(NNCC_ERROR_DEVICE,
                   "this library computes on an accelerator (%s), and nobody said which: NNCC_ACCELERATOR in the "
                   "environment names its driver, a path, then a colon and what to open; `nncc run --device sim` "
                   "simulates one",
                   model_machine.configuration);
  }
  int failed = rt_load_driver(at, text);
  failed = failed ? failed : rt_check_device(at);
  if (failed) {
    return failed;
  }
  const uint64_t programs_at = model_machine.programs_at;
  void* host = NULL;
  if (at->driver->alloc(at->device, model_info.arena_bytes ? model_info.arena_bytes : 1, &host, &at->arena_address)) {
    return rt_driver_fail(at, "allocate the arena");
  }
  at->arena = host;
  if (at->driver->alloc(at->device, programs_at + model_machine.programs_bytes, &host, &at->constants_address)) {
    return rt_driver_fail(at, "allocate the constants");
  }
  if ((model_info.weights_bytes &&
       at->driver->write(at->device, at->constants_address, NNCC_WEIGHTS, model_info.weights_bytes)) ||
      at->driver->write(at->device, at->constants_address + programs_at, NNCC_PROGRAMS, model_machine.programs_bytes)) {
    return rt_driver_fail(at, "write the constants");
  }
  return NNCC_OK;
}

/* Add the counters of a program to those of the inference. */
static void rt_count(rt_accelerator* at) {
  const char* const* names = NULL;
  const uint64_t* values = NULL;
  uint32_t count = 0;
  if (at->driver->counters(at->device, &names, &values, &count)) {
    return; /* some devices have none */
  }
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t place = 0;
    while (place < at->num_counters && strncmp(at->names[place], names[i], RT_COUNTER_NAME - 1) != 0) {
      ++place;
    }
    if (place == RT_MOST_COUNTERS) {
      continue;
    }
    if (place == at->num_counters) {
      snprintf(at->names[place], RT_COUNTER_NAME, "%s", names[i]);
      at->counters[place] = 0;
      ++at->num_counters;
    }
    at->counters[place] += values[i];
  }
}

/* Note the cycles of each layer of a program: from when all before it was complete until it was so itself. */
static void rt_note_cycles(rt_accelerator* at, const nncc_program* program, double* seconds) {
  uint64_t complete[NNCC_CALLS + 1];
  if (at->driver->profile(at->device, program->ends, program->num_layers, complete)) {
    at->cycles_known = 0; /* not every device can tell */
    return;
  }
  uint64_t before = 0;
  for (uint32_t i = 0; i < program->num_layers; ++i) {
    const uint64_t cycles = complete[i] > before ? complete[i] - before : 0;
    at->cycles[program->first_call + i] += cycles;
    if (seconds) {
      seconds[program->first_call + i] += (double)cycles * 1e-6 / at->clock_mhz;
    }
    before = complete[i] > before ? complete[i] : before;
  }
}

static rt_accelerator* rt_accelerator_here(void);

/* Run a program from its start to its end: 0, or the number of its first call plus 1. */
static int32_t rt_submit(uint32_t number, double* seconds) {
  rt_accelerator* at = rt_accelerator_here();
  const nncc_program* program = &model_programs[number];
  const uint64_t constants = at->constants_address, programs = constants + model_machine.programs_at;
  uint64_t bases[NNCC_ACCELERATOR_MEMORIES] = {0};
  bases[RT_UOP] = programs + program->uops_at;
  bases[RT_WGT] = bases[RT_ACC] = bases[RT_PAR] = constants;
  bases[RT_INP] = bases[RT_OUT] = bases[RT_ACC8] = at->arena_address;
  if (at->driver->write(at->device, at->arena_address, NULL, model_info.arena_bytes) ||
      at->driver->submit(at->device, programs + program->instructions_at, program->num_instructions, bases) ||
      at->driver->wait(at->device, RT_PROGRAM_SECONDS) ||
      at->driver->read(at->device, at->arena_address, NULL, model_info.arena_bytes)) {
    rt_driver_fail(at, "run a program");
    return (int32_t)program->first_call + 1;
  }
  rt_count(at);
  rt_note_cycles(at, program, seconds);
  return 0;
}

/* Forget what was counted in the inference before. */
static void rt_begin_inference(rt_accelerator* at) {
  at->cycles_known = 1;
  at->num_counters = 0;
  memset(at->cycles, 0, sizeof at->cycles);
}
