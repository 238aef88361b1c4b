/* far_driver.c: a driver as that of a board whose memory is its own: what the host writes, the device sees only after
 * `write`, and the other way round only after `read`. Behind it another driver computes: the uri is its path, a colon, and
 * what that is to open. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelerator.h"

enum { MOST_BLOCKS = 8 };

struct nncc_accelerator {
  void* library;
  const nncc_accelerator_driver_table* near;
  nncc_accelerator* device;
  struct {
    uint8_t *host, *device;
    uint64_t address, size;
  } blocks[MOST_BLOCKS];
  int count;
  char error[256];
};

static char open_error[256];

static int far_open(const char* uri, nncc_accelerator** result) {
  const char* colon = strchr(uri, ':');
  char path[1024];
  if (!colon || (size_t)(colon - uri) >= sizeof path) {
    snprintf(open_error, sizeof open_error, "`%.200s` names no driver", uri);
    return NNCC_ACCELERATOR_ARGUMENT;
  }
  snprintf(path, sizeof path, "%.*s", (int)(colon - uri), uri);
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const nncc_accelerator_driver_table* near = library ? dlsym(library, NNCC_ACCELERATOR_SYMBOL) : NULL;
  if (!near || near->abi != NNCC_ACCELERATOR_ABI) {
    snprintf(open_error, sizeof open_error, "%.200s is no driver", path);
    return NNCC_ACCELERATOR_ARGUMENT;
  }
  nncc_accelerator* at = calloc(1, sizeof *at);
  if (!at) {
    return NNCC_ACCELERATOR_MEMORY;
  }
  at->library = library;
  at->near = near;
  const int failed = near->open(colon + 1, &at->device);
  if (failed) {
    snprintf(open_error, sizeof open_error, "%s", near->error(NULL));
    free(at);
    return failed;
  }
  *result = at;
  return 0;
}

static void far_close(nncc_accelerator* at) {
  if (!at) {
    return;
  }
  for (int i = 0; i < at->count; ++i) {
    free(at->blocks[i].host);
  }
  at->near->close(at->device);
  dlclose(at->library);
  free(at);
}

/* A code of the driver behind, whose words are ours. */
static int passed_on(nncc_accelerator* at, int code) {
  if (code) {
    snprintf(at->error, sizeof at->error, "%s", at->near->error(at->device));
  }
  return code;
}

static int far_info(nncc_accelerator* at, nncc_accelerator_info* info) {
  return passed_on(at, at->near->info(at->device, info));
}

static int far_alloc(nncc_accelerator* at, uint64_t size, void** host, uint64_t* address) {
  if (at->count == MOST_BLOCKS) {
    snprintf(at->error, sizeof at->error, "it has %d pieces of memory", MOST_BLOCKS);
    return NNCC_ACCELERATOR_MEMORY;
  }
  void* device;
  const int failed = at->near->alloc(at->device, size, &device, address);
  if (failed) {
    return passed_on(at, failed);
  }
  uint8_t* mine = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
  memset(mine, 0, size);
  at->blocks[at->count].host = mine;
  at->blocks[at->count].device = device;
  at->blocks[at->count].address = *address;
  at->blocks[at->count++].size = size;
  *host = mine;
  return 0;
}

static int far_free(nncc_accelerator* at, uint64_t address) { return passed_on(at, at->near->free(at->device, address)); }

/* Copy between what the host sees and what the device sees. */
static int moved(nncc_accelerator* at, uint64_t address, const void* from, void* to, uint64_t size, int to_device) {
  for (int i = 0; i < at->count; ++i) {
    const uint64_t offset = address - at->blocks[i].address;
    if (address >= at->blocks[i].address && offset + size <= at->blocks[i].size) {
      if (to_device) {
        memcpy(at->blocks[i].device + offset, from ? from : at->blocks[i].host + offset, size);
      } else {
        memcpy(to ? to : at->blocks[i].host + offset, at->blocks[i].device + offset, size);
      }
      return 0;
    }
  }
  snprintf(at->error, sizeof at->error, "nothing lies at %llx", (unsigned long long)address);
  return NNCC_ACCELERATOR_ARGUMENT;
}

static int far_write(nncc_accelerator* at, uint64_t address, const void* data, uint64_t size) {
  return moved(at, address, data, NULL, size, 1);
}

static int far_read(nncc_accelerator* at, uint64_t address, void* data, uint64_t size) {
  return moved(at, address, NULL, data, size, 0);
}

static int far_submit(nncc_accelerator* at, uint64_t instructions, uint32_t count, const uint64_t bases[8]) {
  return passed_on(at, at->near->submit(at->device, instructions, count, bases));
}

static int far_wait(nncc_accelerator* at, double seconds) {
  return passed_on(at, at->near->wait(at->device, seconds));
}

static int far_counters(nncc_accelerator* at, const char* const** names, const uint64_t** values, uint32_t* count) {
  return passed_on(at, at->near->counters(at->device, names, values, count));
}

static int far_profile(nncc_accelerator* at, const uint32_t* indices, uint32_t count, uint64_t* cycles) {
  return passed_on(at, at->near->profile(at->device, indices, count, cycles));
}

static const char* far_error(nncc_accelerator* at) { return at ? at->error : open_error; }

const nncc_accelerator_driver_table nncc_accelerator_driver = {
    NNCC_ACCELERATOR_ABI, far_open,   far_close, far_info,     far_alloc,   far_free,  far_write,
    far_read,             far_submit, far_wait,  far_counters, far_profile, far_error,
};
