/* 32 floats, 0.5 1.5 2.5 ...: what `.incbin` would bring in. */
#ifdef RENAMED
#define nncc_weights second_weights
#endif
#define EIGHT(n) n + 0.5f, n + 1.5f, n + 2.5f, n + 3.5f, n + 4.5f, n + 5.5f, n + 6.5f, n + 7.5f
extern const float nncc_weights[32];
#ifndef _WIN32
__attribute__((visibility("hidden")))
#endif
__attribute__((aligned(4096))) const float nncc_weights[32] = {EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24)};
