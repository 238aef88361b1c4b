/* What TVM's RPC server does with a candidate library, without TVM: argv[1] is the library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
  void* data;
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} DLTensor;

typedef struct {
  int32_t type_index;
  uint32_t zero_padding;
  union {
    int64_t v_int64;
    double v_float64;
    void* v_ptr;
  };
} TVMFFIAny;

typedef int (*function)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);

static function find(void* library, const char* name) {
  void* symbol = dlsym(library, name);
  function found;
  memcpy(&found, &symbol, sizeof found);
  return found;
}

static TVMFFIAny whole(int64_t value) { return (TVMFFIAny){.type_index = 1, .v_int64 = value}; }
static TVMFFIAny real(double value) { return (TVMFFIAny){.type_index = 3, .v_float64 = value}; }
static TVMFFIAny tensor(DLTensor* value) { return (TVMFFIAny){.type_index = 7, .v_ptr = value}; }

static DLTensor bytes(void* data, int64_t* count) {
  return (DLTensor){.data = data, .device = {1, 0}, .ndim = 1, .dtype = {1, 8, 1}, .shape = count};
}

int main(int argc, char** argv) {
  void* library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  char words[512] = "";
  int64_t many = sizeof words, table[] = {4, 2}, large = 128, small = 16;
  double seconds[8] = {0};
  float x[32], y[32] = {0};
  int64_t n[2] = {7, 9}, m[2] = {0};
  for (int i = 0; i < 32; ++i) {
    x[i] = (float)i;
  }
  DLTensor text = bytes(words, &many), times = {.data = seconds, .ndim = 2, .dtype = {2, 64, 1}, .shape = table};
  DLTensor in0 = bytes(x, &large), in1 = bytes(n, &small), out0 = bytes(y, &large), out1 = bytes(m, &small);
  TVMFFIAny result = {0};

  find(library, "__tvm_ffi_nncc_facts")(NULL, (TVMFFIAny[]){tensor(&text)}, 1, &result);
  printf("facts %d\n%s", (int)(result.v_int64 == (int64_t)strlen(words) + 1), words);

  const TVMFFIAny measure[] = {tensor(&times), tensor(&text), whole(2),  whole(1),
                               whole(1),       whole(4),      real(5.0), real(1.5)};
  find(library, "__tvm_ffi_nncc_measure")(NULL, measure, 8, &result);
  int positive = 0;
  for (int i = 0; i < 8; ++i) {
    positive += seconds[i] > 0;
  }
  printf("measured %d, %d times\n", (int)result.v_int64, positive);

  const TVMFFIAny run[] = {tensor(&text), whole(1),      real(1.5),     tensor(&in0),
                           tensor(&in1),  tensor(&out0), tensor(&out1)};
  find(library, "__tvm_ffi_nncc_run")(NULL, run, 7, &result);
  printf("ran %d: %g %g, %d %d; %s\n", (int)result.v_int64, (double)y[1], (double)y[31], (int)m[0], (int)m[1], words);
  return 0;
}
