/* fake_accelerated.c: a model for the accelerator of fake_driver.c, as the compiler would write it: y = x + 2 w + v, in
 * two programs, the first one of two layers. */
#define NNCC_ACCELERATOR
#include "internal.h"

static const int64_t shape[] = {16};
static const nncc_tensor inputs[] = {{"x", "uint8", 1, shape, 16, NULL}};
static const nncc_tensor outputs[] = {{"y", "uint8", 1, shape, 16, NULL}};
static const char* const call_names[] = {"copy", "add_w", "add_w", "host", "add_v", "copy"};
static const double nothing[6];

static const nncc_info model_info = {
    .abi_version = NNCC_ABI_VERSION,
    .num_inputs = 1,
    .num_outputs = 1,
    .num_calls = 6,
    .name = "adder",
    .target = "adder",
    .build = "0",
    .compiler = "by hand",
    .features = "",
    .inputs = inputs,
    .outputs = outputs,
    .call_names = call_names,
    .call_flops = nothing,
    .call_multiplications = nothing,
    .call_bytes = nothing,
    .call_weight_bytes = nothing,
    .arena_bytes = 64,
    .weights_bytes = 32,
};

#define NNCC_CALLS 6
static const nncc_machine model_machine = {
    .isa_hash = "abcdefabcdefabcdef",
    .configuration = "adder_16",
    .json = "{\"configuration\": \"adder_16\"}",
    .programs_at = 4096,
    .programs_bytes = 5 * 16,
};
static const uint32_t program_0_ends[] = {1, 3}, program_1_ends[] = {1};
static const nncc_program model_programs[] = {
    {0, 0, 3, 1, 2, program_0_ends},
    {48, 0, 2, 4, 1, program_1_ends},
};

static int32_t model_invoke(uint8_t* arena, const uint8_t* weights, const int64_t* dims, const void* const* in,
                            void* const* out, double* seconds) {
  (void)weights, (void)dims;
  NNCC_COPY(0, arena + 0, in[0], 16);
  NNCC_SUBMIT(0);
  NNCC_COPY(3, arena + 48, arena + 32, 16);
  NNCC_SUBMIT(1);
  NNCC_COPY(5, out[0], arena + 16, 16);
  return 0;
}

_Alignas(64) const uint8_t NNCC_WEIGHTS[32] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, [16] = 100};
_Alignas(64) const uint8_t NNCC_PROGRAMS[5 * 16] = {
    [0] = 1, [4] = 0, [8] = 0, [12] = 16,    /* arena + 16 = arena + 0 + w */
    [16] = 1, [20] = 16, [24] = 0, [28] = 32, /* arena + 32 = arena + 16 + w */
    [48] = 1, [52] = 48, [56] = 16, [60] = 16, /* arena + 16 = arena + 48 + v */
};

#include "runtime.c"
