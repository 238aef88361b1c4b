/* cuda_bf16.h for the emulator: with float16. */
#pragma once
#include "cuda_fp16.h"
