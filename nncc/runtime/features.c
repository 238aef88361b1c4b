/* features.c: does this processor have what the kernels were compiled for? Included by runtime.c, behind rt_fail. */
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif

/* A word of /proc/cpuinfo, and where the processor or the kernel answers for it. */
typedef struct {
  const char* word;
  uint32_t place;
  uint32_t bit;
} rt_feature;

#if defined(__x86_64__) || defined(__i386__)

/* Places: cpuid leaf and subleaf, the register, and what state the operating system must save (bits of XCR0). */
#define RT_PLACE(leaf, subleaf, reg, state) \
  ((uint32_t)(leaf) | (uint32_t)(subleaf) << 8 | (uint32_t)(reg) << 12 | (uint32_t)(state) << 16)
enum { RT_EAX, RT_EBX, RT_ECX, RT_EDX };
enum { RT_YMM = 0x06, RT_ZMM = 0xe6 };

static const rt_feature rt_features[] = {
    {"sse", RT_PLACE(0x01, 0, RT_EDX, 0), 25},
    {"sse2", RT_PLACE(0x01, 0, RT_EDX, 0), 26},
    {"pni", RT_PLACE(0x01, 0, RT_ECX, 0), 0},
    {"sse3", RT_PLACE(0x01, 0, RT_ECX, 0), 0},
    {"pclmulqdq", RT_PLACE(0x01, 0, RT_ECX, 0), 1},
    {"ssse3", RT_PLACE(0x01, 0, RT_ECX, 0), 9},
    {"fma", RT_PLACE(0x01, 0, RT_ECX, RT_YMM), 12},
    {"cx16", RT_PLACE(0x01, 0, RT_ECX, 0), 13},
    {"sse4_1", RT_PLACE(0x01, 0, RT_ECX, 0), 19},
    {"sse4_2", RT_PLACE(0x01, 0, RT_ECX, 0), 20},
    {"movbe", RT_PLACE(0x01, 0, RT_ECX, 0), 22},
    {"popcnt", RT_PLACE(0x01, 0, RT_ECX, 0), 23},
    {"aes", RT_PLACE(0x01, 0, RT_ECX, 0), 25},
    {"avx", RT_PLACE(0x01, 0, RT_ECX, RT_YMM), 28},
    {"f16c", RT_PLACE(0x01, 0, RT_ECX, RT_YMM), 29},
    {"bmi1", RT_PLACE(0x07, 0, RT_EBX, 0), 3},
    {"avx2", RT_PLACE(0x07, 0, RT_EBX, RT_YMM), 5},
    {"bmi2", RT_PLACE(0x07, 0, RT_EBX, 0), 8},
    {"avx512f", RT_PLACE(0x07, 0, RT_EBX, RT_ZMM), 16},
    {"avx512dq", RT_PLACE(0x07, 0, RT_EBX, RT_ZMM), 17},
    {"avx512ifma", RT_PLACE(0x07, 0, RT_EBX, RT_ZMM), 21},
    {"avx512cd", RT_PLACE(0x07, 0, RT_EBX, RT_ZMM), 28},
    {"avx512bw", RT_PLACE(0x07, 0, RT_EBX, RT_ZMM), 30},
    {"avx512vl", RT_PLACE(0x07, 0, RT_EBX, RT_ZMM), 31},
    {"avx512vbmi", RT_PLACE(0x07, 0, RT_ECX, RT_ZMM), 1},
    {"avx512_vbmi2", RT_PLACE(0x07, 0, RT_ECX, RT_ZMM), 6},
    {"gfni", RT_PLACE(0x07, 0, RT_ECX, 0), 8},
    {"vaes", RT_PLACE(0x07, 0, RT_ECX, RT_YMM), 9},
    {"vpclmulqdq", RT_PLACE(0x07, 0, RT_ECX, RT_YMM), 10},
    {"avx512_vnni", RT_PLACE(0x07, 0, RT_ECX, RT_ZMM), 11},
    {"avx512_bitalg", RT_PLACE(0x07, 0, RT_ECX, RT_ZMM), 12},
    {"avx512_vpopcntdq", RT_PLACE(0x07, 0, RT_ECX, RT_ZMM), 14},
    {"avx512_fp16", RT_PLACE(0x07, 0, RT_EDX, RT_ZMM), 23},
    {"avx_vnni", RT_PLACE(0x07, 1, RT_EAX, RT_YMM), 4},
    {"avx512_bf16", RT_PLACE(0x07, 1, RT_EAX, RT_ZMM), 5},
    {"avx_ifma", RT_PLACE(0x07, 1, RT_EAX, RT_YMM), 23},
    {"avx_vnni_int8", RT_PLACE(0x07, 1, RT_EDX, RT_YMM), 4},
    {"avx_vnni_int16", RT_PLACE(0x07, 1, RT_EDX, RT_YMM), 10},
    {"lahf_lm", RT_PLACE(0x81, 0, RT_ECX, 0), 0},
    {"abm", RT_PLACE(0x81, 0, RT_ECX, 0), 5},
    {"lzcnt", RT_PLACE(0x81, 0, RT_ECX, 0), 5},
};

static int rt_present(const rt_feature* feature) {
  const uint32_t leaf = feature->place & 0xff, subleaf = feature->place >> 8 & 0xf;
  const uint32_t reg = feature->place >> 12 & 0xf;
  uint32_t state = feature->place >> 16;
  uint32_t answer[4];
  if (state) {
    uint32_t saved, high;
    if (!__get_cpuid_count(1, 0, &answer[0], &answer[1], &answer[2], &answer[3]) || !(answer[RT_ECX] >> 27 & 1)) {
      return 0; /* no OSXSAVE: the operating system saves none of it */
    }
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    (void)high;
#if defined(__APPLE__)
    state &= RT_YMM; /* Darwin turns the zmm state on when a thread first uses it */
#endif
    if ((saved & state) != state) {
      return 0;
    }
  }
  if (!__get_cpuid_count(leaf & 0x80 ? 0x80000000u + (leaf & 0x7f) : leaf, subleaf, &answer[0], &answer[1], &answer[2],
                         &answer[3])) {
    return 0;
  }
  return (int)(answer[reg] >> feature->bit & 1);
}

#else

/* Places: the auxiliary vector's AT_HWCAP (16) and AT_HWCAP2 (26). */
enum { RT_HWCAP = 16, RT_HWCAP2 = 26 };

static const rt_feature rt_features[] = {
#if defined(__aarch64__)
    {"fp", RT_HWCAP, 0},
    {"asimd", RT_HWCAP, 1},
    {"aes", RT_HWCAP, 3},
    {"pmull", RT_HWCAP, 4},
    {"sha1", RT_HWCAP, 5},
    {"sha2", RT_HWCAP, 6},
    {"crc32", RT_HWCAP, 7},
    {"atomics", RT_HWCAP, 8},
    {"fphp", RT_HWCAP, 9},
    {"asimdhp", RT_HWCAP, 10},
    {"asimdrdm", RT_HWCAP, 12},
    {"jscvt", RT_HWCAP, 13},
    {"fcma", RT_HWCAP, 14},
    {"lrcpc", RT_HWCAP, 15},
    {"dcpop", RT_HWCAP, 16},
    {"asimddp", RT_HWCAP, 20},
    {"sve", RT_HWCAP, 22},
    {"asimdfhm", RT_HWCAP, 23},
    {"sve2", RT_HWCAP2, 1},
    {"svei8mm", RT_HWCAP2, 9},
    {"svebf16", RT_HWCAP2, 12},
    {"i8mm", RT_HWCAP2, 13},
    {"bf16", RT_HWCAP2, 14},
    {"sme", RT_HWCAP2, 23},
#elif defined(__arm__)
    {"half", RT_HWCAP, 1},
    {"thumb", RT_HWCAP, 2},
    {"vfp", RT_HWCAP, 6},
    {"edsp", RT_HWCAP, 7},
    {"neon", RT_HWCAP, 12},
    {"vfpv3", RT_HWCAP, 13},
    {"vfpv3d16", RT_HWCAP, 14},
    {"vfpv4", RT_HWCAP, 16},
    {"idiva", RT_HWCAP, 17},
    {"idivt", RT_HWCAP, 18},
    {"vfpd32", RT_HWCAP, 19},
    {"fphp", RT_HWCAP, 22},
    {"asimdhp", RT_HWCAP, 23},
    {"asimddp", RT_HWCAP, 24},
    {"asimdfhm", RT_HWCAP, 25},
    {"i8mm", RT_HWCAP, 27},
    {"crc32", RT_HWCAP2, 4},
#elif defined(__riscv)
    {"i", RT_HWCAP, 'i' - 'a'},
    {"m", RT_HWCAP, 'm' - 'a'},
    {"a", RT_HWCAP, 'a' - 'a'},
    {"f", RT_HWCAP, 'f' - 'a'},
    {"d", RT_HWCAP, 'd' - 'a'},
    {"c", RT_HWCAP, 'c' - 'a'},
    {"v", RT_HWCAP, 'v' - 'a'},
#else
    {"", 0, 0},
#endif
};

static int rt_present(const rt_feature* feature) {
#if defined(__linux__)
  return (int)(getauxval(feature->place) >> feature->bit & 1);
#else
  return feature != NULL; /* nobody to ask: believe whoever chose the target */
#endif
}

#endif

/* Refuse a processor on which the kernels would die of SIGILL. The runtime itself needs only the baseline. */
static int rt_check_processor(void) {
  char missing[256] = "", unknown[256] = "";
  for (const char* word = model_info.features; *word;) {
    const size_t length = strcspn(word, ",");
    const rt_feature* feature = NULL;
    for (size_t i = 0; i < sizeof rt_features / sizeof *rt_features; ++i) {
      if (strlen(rt_features[i].word) == length && !memcmp(rt_features[i].word, word, length)) {
        feature = &rt_features[i];
      }
    }
    if (length && (!feature || !rt_present(feature))) {
      char* list = feature ? missing : unknown;
      const size_t used = strlen(list);
      snprintf(list + used, sizeof missing - used, "%s%.*s", used ? ", " : "", (int)length, word);
    }
    word += length + (word[length] == ',');
  }
  if (*unknown) {
    return rt_fail(NNCC_ERROR_CPU,
                   "the kernels of target %s need %s, of which this library cannot tell whether a processor has it",
                   model_info.target, unknown);
  }
  if (*missing) {
    return rt_fail(NNCC_ERROR_CPU,
                   "this processor lacks %s, which the kernels of target %s need; "
                   "compile for a target that does without, or for native on this machine",
                   missing, model_info.target);
  }
  return NNCC_OK;
}
