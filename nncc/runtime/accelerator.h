/* accelerator.h: what a driver of the accelerator offers, C99 and C++: the simulator, a board, an RTL simulation alike.
 *
 * A driver is a shared library that exports one table of functions, `nncc_accelerator_driver`. Functions return 0, or
 * an error whose text `error` gives. A device belongs to one thread at a time; several may be open at once. */
#ifndef NNCC_ACCELERATOR_H
#define NNCC_ACCELERATOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NNCC_ACCELERATOR_ABI 1
#define NNCC_ACCELERATOR_SYMBOL "nncc_accelerator_driver"
#define NNCC_ACCELERATOR_MEMORIES 8 /* base addresses that a program is given: one for each number of a memory */

enum {
  NNCC_ACCELERATOR_OK = 0,
  NNCC_ACCELERATOR_ARGUMENT = 1, /* a word of the uri, an address or a size that is wrong */
  NNCC_ACCELERATOR_MEMORY = 2,   /* no memory is left */
  NNCC_ACCELERATOR_PROGRAM = 3,  /* the program is at fault: no instruction, a deadlock, an access out of bounds */
  NNCC_ACCELERATOR_TIMEOUT = 4,  /* it ran for too long and was stopped */
  NNCC_ACCELERATOR_DEVICE = 5    /* the device failed */
};

typedef struct nncc_accelerator nncc_accelerator; /* an open device */

typedef struct {
  const char *isa_hash;      /* 64 hexadecimal digits: programs for another one are not to be submitted */
  const char *configuration; /* the same for people: "nv1_16x16_inp32_..." */
  const char *memory;        /* the DRAM that cycles are told for: "pynq" */
  uint32_t clock_mhz;
} nncc_accelerator_info;

typedef struct {
  uint32_t abi; /* NNCC_ACCELERATOR_ABI; the rest is only as it stands here where this is the same */
  /* Opens what `uri` names: "sim:memory=pynq", options after commas. An error leaves *device alone; its text is that
   * of error(NULL). */
  int (*open)(const char *uri, nncc_accelerator **device);
  void (*close)(nncc_accelerator *device); /* frees its memory too; NULL is nothing */
  int (*info)(nncc_accelerator *device, nncc_accelerator_info *info); /* texts live as long as the device */
  /* Memory that both sides see, aligned to 4096 bytes, zeroed: its host pointer and its address for the device. */
  int (*alloc)(nncc_accelerator *device, uint64_t size, void **host, uint64_t *address);
  int (*free)(nncc_accelerator *device, uint64_t address);
  /* Makes `size` bytes from `data` on visible to the device at `address`. `data` may be the host pointer to the same
   * bytes, or NULL for that: what was written there is then only made visible (caches are flushed). */
  int (*write)(nncc_accelerator *device, uint64_t address, const void *data, uint64_t size);
  /* The way back: makes what the device wrote visible at `data`, or at the host pointer. */
  int (*read)(nncc_accelerator *device, uint64_t address, void *data, uint64_t size);
  /* Starts `count` instructions of 16 bytes at `instructions`, the last one FINISH. `bases` are addresses in bytes by
   * number of a memory: those of LOAD and STORE are relative to them. One program at a time. */
  int (*submit)(nncc_accelerator *device, uint64_t instructions, uint32_t count,
                const uint64_t bases[NNCC_ACCELERATOR_MEMORIES]);
  /* Waits until the program has finished, but at most `seconds`; 0: for ever. */
  int (*wait)(nncc_accelerator *device, double seconds);
  /* Of the last program: names and values, both alive until the next call with `device`. */
  int (*counters)(nncc_accelerator *device, const char *const **names, const uint64_t **values, uint32_t *count);
  /* Of the last program: for each index of an instruction (`count` is one too) the cycle at which all before it were
   * complete. NNCC_ACCELERATOR_DEVICE where the device cannot tell. */
  int (*profile)(nncc_accelerator *device, const uint32_t *indices, uint32_t count, uint64_t *cycles);
  /* The text of the last call that failed; NULL: of the last open of this thread. */
  const char *(*error)(nncc_accelerator *device);
} nncc_accelerator_driver_table;

/* What a driver exports. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const nncc_accelerator_driver_table nncc_accelerator_driver;

#ifdef __cplusplus
}
#endif

#endif
