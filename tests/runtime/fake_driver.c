/* fake_driver.c: a driver of an accelerator that adds. Its instructions are four uint32: what to do (0: finish, 1: add),
 * and bytes from the bases of INP, WGT and OUT on; an add is OUT[i] = INP[i] + WGT[i] for 16 bytes.
 *
 * As hostile as a real one may be: device addresses are no addresses of the processor's, and what the host wrote is only
 * there for the device once it was told so, and the other way round. The words of the uri: "fail=FUNCTION" lets that
 * function fail, "hash=TEXT" is the instruction set, "blind" counts no cycles. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelerator.h"

#ifndef FAKE_ABI
#define FAKE_ABI NNCC_ACCELERATOR_ABI
#endif

enum { MOST_BLOCKS = 8, ADDS = 16 };
static const uint64_t FAR = (uint64_t)1 << 52;

struct nncc_accelerator {
  char uri[128];
  char hash[80];
  struct {
    uint8_t* host;
    uint8_t* device;
    uint64_t size;
  } blocks[MOST_BLOCKS];
  int count;
  uint32_t done;
  char error[64];
};

static char open_error[64];

static int fails(nncc_accelerator* device, const char* function) {
  char word[32];
  snprintf(word, sizeof word, "fail=%s", function);
  if (!strstr(device->uri, word)) {
    return 0;
  }
  snprintf(device->error, sizeof device->error, "told to fail in %s", function);
  return NNCC_ACCELERATOR_DEVICE;
}

static int fake_open(const char* uri, nncc_accelerator** result) {
  if (strstr(uri, "fail=open")) {
    snprintf(open_error, sizeof open_error, "there is no device `%s`", uri);
    return NNCC_ACCELERATOR_ARGUMENT;
  }
  nncc_accelerator* device = calloc(1, sizeof *device);
  snprintf(device->uri, sizeof device->uri, "%s", uri);
  const char* hash = strstr(uri, "hash=");
  snprintf(device->hash, sizeof device->hash, "%s", hash ? hash + 5 : "abcdefabcdefabcdef");
  *result = device;
  return 0;
}

static void fake_close(nncc_accelerator* device) {
  for (int i = 0; i < device->count; ++i) {
    free(device->blocks[i].host);
    free(device->blocks[i].device);
  }
  free(device);
}

static int fake_info(nncc_accelerator* device, nncc_accelerator_info* info) {
  info->isa_hash = device->hash;
  info->configuration = "adder_16";
  info->memory = "none";
  info->clock_mhz = 50;
  return fails(device, "info");
}

static int fake_alloc(nncc_accelerator* device, uint64_t size, void** host, uint64_t* address) {
  const int i = device->count++;
  device->blocks[i].host = calloc(1, size);
  device->blocks[i].device = calloc(1, size);
  device->blocks[i].size = size;
  *host = device->blocks[i].host;
  *address = (uint64_t)(uintptr_t)device->blocks[i].device + FAR;
  return fails(device, "alloc");
}

static int fake_free(nncc_accelerator* device, uint64_t address) {
  (void)device, (void)address;
  return 0;
}

/* The device's bytes at an address, and the host's. */
static uint8_t* at(nncc_accelerator* device, uint64_t address, uint64_t size, uint8_t** host) {
  for (int i = 0; i < device->count; ++i) {
    const uint64_t start = (uint64_t)(uintptr_t)device->blocks[i].device + FAR;
    if (address >= start && address + size <= start + device->blocks[i].size) {
      if (host) {
        *host = device->blocks[i].host + (address - start);
      }
      return device->blocks[i].device + (address - start);
    }
  }
  fprintf(stderr, "fake driver: nothing lies at %llx\n", (unsigned long long)address);
  abort();
}

static int fake_write(nncc_accelerator* device, uint64_t address, const void* data, uint64_t size) {
  uint8_t* host;
  uint8_t* there = at(device, address, size, &host);
  memcpy(there, data ? data : host, size);
  return fails(device, "write");
}

static int fake_read(nncc_accelerator* device, uint64_t address, void* data, uint64_t size) {
  uint8_t* host;
  uint8_t* there = at(device, address, size, &host);
  memcpy(data ? data : host, there, size);
  return fails(device, "read");
}

static int fake_submit(nncc_accelerator* device, uint64_t instructions, uint32_t count, const uint64_t bases[8]) {
  const uint32_t* words = (const uint32_t*)(void*)at(device, instructions, (uint64_t)count * 16, NULL);
  for (uint32_t n = 0; n < count && words[4 * n]; ++n) {
    const uint32_t* word = words + 4 * n;
    const uint8_t* data = at(device, bases[2] + word[1], ADDS, NULL);
    const uint8_t* weight = at(device, bases[1] + word[2], ADDS, NULL);
    uint8_t* out = at(device, bases[4] + word[3], ADDS, NULL);
    for (int i = 0; i < ADDS; ++i) {
      out[i] = (uint8_t)(data[i] + weight[i]);
    }
  }
  device->done = count;
  return fails(device, "submit");
}

static int fake_wait(nncc_accelerator* device, double seconds) {
  (void)seconds;
  return fails(device, "wait");
}

static int fake_counters(nncc_accelerator* device, const char* const** names, const uint64_t** values, uint32_t* count) {
  static const char* const known[] = {"adds", "programs"};
  static uint64_t numbers[2];
  numbers[0] = device->done - 1;
  numbers[1] = 1;
  *names = known;
  *values = numbers;
  *count = 2;
  return 0;
}

static int fake_profile(nncc_accelerator* device, const uint32_t* indices, uint32_t count, uint64_t* cycles) {
  for (uint32_t i = 0; i < count; ++i) {
    cycles[i] = (uint64_t)indices[i] * 100;
  }
  return strstr(device->uri, "blind") ? NNCC_ACCELERATOR_DEVICE : 0;
}

static const char* fake_error(nncc_accelerator* device) { return device ? device->error : open_error; }

__attribute__((visibility("default"))) const nncc_accelerator_driver_table nncc_accelerator_driver = {
    FAKE_ABI,   fake_open, fake_close,  fake_info, fake_alloc,    fake_free,    fake_write,
    fake_read, fake_submit, fake_wait, fake_counters, fake_profile, fake_error,
};
