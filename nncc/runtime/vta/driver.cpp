/* driver.cpp: the simulator, or the core in SystemVerilog (nncc/vta/rtl/run_core.cpp), behind the driver's interface. */
#include <cstring>
#include <exception>
#include <memory>
#include <new>

#include "accelerator.h"
#include "machine.hpp"

using vta::Fault;

namespace {

constexpr const char *kNames[] = {
    "cycles", "instructions", "gemm_iterations", "alu_iterations", "compute_gemm", "compute_alu", "compute_moves",
    "compute_overhead", "load_busy", "compute_busy", "store_busy", "load_wait_fetch", "compute_wait_fetch",
    "store_wait_fetch", "load_wait_compute", "compute_wait_load", "compute_wait_store", "store_wait_compute",
    "read_port_busy", "write_port_busy", "fetch_bytes",
#define X(name, number, size, depth, queue) #name "_bytes",
    VTA_MEMORIES(X)
#undef X
};
constexpr uint32_t kCount = sizeof kNames / sizeof *kNames;

const vta::Timing kDrams[] = {
#define X(name, latency, rate, burst, outstanding, mhz) \
  {#name, latency, rate && rate < VTA_BUS_BYTES ? rate : VTA_BUS_BYTES, burst, outstanding, mhz ? mhz : VTA_CLOCK_MHZ},
    VTA_DRAMS(X)
#undef X
};

thread_local std::string open_error;

/* A whole number between `least` and `most`. */
long number(const std::string &word, const std::string &text, long least, long most) {
  long value = -1;
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  if (digits && text.size() < 10) value = std::stol(text);
  if (value < least || value > most)
    vta::fail(NNCC_ACCELERATOR_ARGUMENT, "%s=%s is not between %ld and %ld", word.c_str(), text.c_str(), least, most);
  return value;
}

bool power_of_two(long value) { return (value & (value - 1)) == 0; }

}  // namespace

struct nncc_accelerator {
  vta::Timing timing;
  bool arithmetic = true, check = false;
  uint64_t seed = 0; /* of a random order; 0: the order of time */
  vta::Dram dram;
  std::unique_ptr<vta::Chip> chip;
  bool submitted = false;
  uint64_t instructions = 0, bases[NNCC_ACCELERATOR_MEMORIES] = {};
  uint32_t count = 0;
  std::vector<uint64_t> complete; /* by index: the cycle at which all before it were */
  uint64_t values[kCount] = {};
  std::string error;

  explicit nncc_accelerator(const char *uri);
  void set(const std::string &word, const std::string &text);
  void run(double seconds);
  void tell(const vta::Counters &counters);
};

namespace {

/* What `body` does, as a code; what it throws, as text. */
template <class Body>
int guarded(std::string &error, Body body) {
  try {
    body();
    return NNCC_ACCELERATOR_OK;
  } catch (const Fault &fault) {
    error = fault.text;
    return fault.code;
  } catch (const std::bad_alloc &) {
    error = "there is no memory left";
    return NNCC_ACCELERATOR_MEMORY;
  } catch (const std::exception &other) {
    error = other.what();
    return NNCC_ACCELERATOR_DEVICE;
  }
}

void check_range(const nncc_accelerator *device, uint64_t address, uint64_t size) {
  if (!device->dram.find(address, size))
    vta::fail(NNCC_ACCELERATOR_ARGUMENT, "%llu bytes at 0x%llx are not within one piece of memory",
              (unsigned long long)size, (unsigned long long)address);
}

int sim_open(const char *uri, nncc_accelerator **device) {
  return guarded(open_error, [&] { *device = new nncc_accelerator(uri ? uri : ""); });
}

void sim_close(nncc_accelerator *device) { delete device; }

int sim_info(nncc_accelerator *device, nncc_accelerator_info *info) {
  *info = {VTA_ISA_HASH, VTA_CONFIGURATION, device->timing.name.c_str(), uint32_t(device->timing.clock_mhz)};
  return NNCC_ACCELERATOR_OK;
}

int sim_alloc(nncc_accelerator *device, uint64_t size, void **host, uint64_t *address) {
  return guarded(device->error, [&] {
    const vta::Dram::Piece &piece = device->dram.alloc(size);
    *host = piece.data, *address = piece.address;
  });
}

int sim_free(nncc_accelerator *device, uint64_t address) {
  return guarded(device->error, [&] {
    if (!device->dram.free(address))
      vta::fail(NNCC_ACCELERATOR_ARGUMENT, "no memory begins at 0x%llx", (unsigned long long)address);
  });
}

int sim_write(nncc_accelerator *device, uint64_t address, const void *data, uint64_t size) {
  return guarded(device->error, [&] {
    check_range(device, address, size);
    if (data && size) memmove(device->dram.find(address, size), data, size);
  });
}

int sim_read(nncc_accelerator *device, uint64_t address, void *data, uint64_t size) {
  return guarded(device->error, [&] {
    check_range(device, address, size);
    if (data && size) memmove(data, device->dram.find(address, size), size);
  });
}

int sim_submit(nncc_accelerator *device, uint64_t instructions, uint32_t count, const uint64_t *bases) {
  device->instructions = instructions, device->count = count, device->submitted = true;
  memcpy(device->bases, bases, sizeof device->bases);
  return NNCC_ACCELERATOR_OK;
}

int sim_wait(nncc_accelerator *device, double seconds) {
  return guarded(device->error, [&] {
    if (!device->submitted) vta::fail(NNCC_ACCELERATOR_ARGUMENT, "no program was submitted");
    device->submitted = false;
    device->run(seconds);
  });
}

int sim_counters(nncc_accelerator *device, const char *const **names, const uint64_t **values, uint32_t *count) {
  *names = kNames, *values = device->values, *count = kCount;
  return NNCC_ACCELERATOR_OK;
}

int sim_profile(nncc_accelerator *device, const uint32_t *indices, uint32_t count, uint64_t *cycles) {
  return guarded(device->error, [&] {
    if (device->complete.empty()) vta::fail(NNCC_ACCELERATOR_ARGUMENT, "no program has run by the cycle");
    for (uint32_t at = 0; at < count; at++) {
      if (indices[at] >= device->complete.size())
        vta::fail(NNCC_ACCELERATOR_ARGUMENT, "the program has no instruction %u", indices[at]);
      cycles[at] = device->complete[indices[at]];
    }
  });
}

const char *sim_error(nncc_accelerator *device) { return device ? device->error.c_str() : open_error.c_str(); }

}  // namespace

nncc_accelerator::nncc_accelerator(const char *uri) {
  for (const vta::Timing &each : kDrams)
    if (each.name == VTA_MEMORY) timing = each;
  std::string words = uri;
  if (words.compare(0, 3, vta::kScheme) != 0 || (words.size() > 3 && words[3] != ':'))
    vta::fail(NNCC_ACCELERATOR_ARGUMENT, "this driver opens `%s` and `%s:OPTION=VALUE,...`, not `%s`", vta::kScheme,
              vta::kScheme, uri);
  words = words.size() > 3 ? words.substr(4) : "";
  while (!words.empty()) {
    const size_t comma = words.find(','), equals = words.find('=');
    const std::string word = words.substr(0, comma);
    if (equals == std::string::npos || equals > word.size())
      vta::fail(NNCC_ACCELERATOR_ARGUMENT, "`%s` is no option: an option is NAME=VALUE", word.c_str());
    set(word.substr(0, equals), word.substr(equals + 1));
    words = comma == std::string::npos ? "" : words.substr(comma + 1);
  }
  if (seed && check) vta::fail(NNCC_ACCELERATOR_ARGUMENT, "check=on looks at all orders: seed has no meaning with it");
  if (!arithmetic && (seed || check))
    vta::fail(NNCC_ACCELERATOR_ARGUMENT, "arithmetic=off only tells cycles: it goes with neither seed nor check");
}

void nncc_accelerator::set(const std::string &word, const std::string &text) {
  const auto flag = [&] {
    if (text != "on" && text != "off")
      vta::fail(NNCC_ACCELERATOR_ARGUMENT, "%s is on or off, not `%s`", word.c_str(), text.c_str());
    return text == "on";
  };
  if (word == "memory") {
    for (const vta::Timing &each : kDrams)
      if (each.name == text) {
        timing = each;
        return;
      }
    std::string known;
    for (const vta::Timing &each : kDrams) known += (known.empty() ? "" : ", ") + each.name;
    vta::fail(NNCC_ACCELERATOR_ARGUMENT, "there is no memory `%s`; known: %s", text.c_str(), known.c_str());
  } else if (word == "latency") {
    timing.latency = int(number(word, text, 0, 1000000));
  } else if (word == "burst") {
    timing.burst_bytes = int(number(word, text, 4, 4096));
    if (!power_of_two(timing.burst_bytes))
      vta::fail(NNCC_ACCELERATOR_ARGUMENT, "burst=%s is no power of two", text.c_str());
  } else if (word == "outstanding") {
    timing.outstanding = int(number(word, text, 1, 4096));
  } else if (vta::kSimulates && word == "seed") {
    seed = uint64_t(number(word, text, 1, 999999999));
  } else if (vta::kSimulates && word == "arithmetic") {
    arithmetic = flag();
  } else if (vta::kSimulates && word == "check") {
    check = flag();
  } else {
    vta::fail(NNCC_ACCELERATOR_ARGUMENT,
              "`%s` has no option `%s`; known: memory, latency, burst, outstanding%s", vta::kScheme, word.c_str(),
              vta::kSimulates ? ", seed, arithmetic, check" : "");
  }
  if (word == "latency" || word == "burst" || word == "outstanding") timing.name += "," + word + "=" + text;
}

void nncc_accelerator::run(double seconds) {
  complete.clear();
  memset(values, 0, sizeof values);
  vta::Deadline deadline(seconds);
  const std::vector<vta::Instruction> program = vta::decode(dram, instructions, count, bases);
  if (arithmetic && vta::kSimulates && !chip) chip.reset(new vta::Chip());
  if (chip) chip->poison();
  if (check) return vta::run_checked(program, *chip, dram, deadline);
  if (seed) return vta::run_interleaved(program, seed, *chip, dram, deadline);
  std::vector<uint64_t> ends;
  tell(vta::run_timed(program, timing, instructions, bases, arithmetic ? chip.get() : nullptr, dram, deadline, ends));
  uint64_t latest = 0;
  complete.reserve(ends.size() + 1);
  complete.push_back(0);
  for (uint64_t end : ends) complete.push_back(latest = end > latest ? end : latest);
}

void nncc_accelerator::tell(const vta::Counters &c) {
  const uint64_t told[] = {
      c.cycles, count, c.gemm_iterations, c.alu_iterations, c.gemm_cycles, c.alu_cycles, c.compute_moves, c.overhead,
      c.busy[vta::kLoad], c.busy[vta::kCompute], c.busy[vta::kStore], c.wait_fetch[vta::kLoad],
      c.wait_fetch[vta::kCompute], c.wait_fetch[vta::kStore], c.wait_next[vta::kLoad], c.wait_prev[vta::kCompute],
      c.wait_next[vta::kCompute], c.wait_prev[vta::kStore], c.read_beats, c.write_beats, c.fetch_bytes,
#define X(name, number, size, depth, queue) c.bytes[number],
      VTA_MEMORIES(X)
#undef X
  };
  static_assert(sizeof told == sizeof values, "a value for each name");
  memcpy(values, told, sizeof told);
}

#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT const nncc_accelerator_driver_table nncc_accelerator_driver = {
    NNCC_ACCELERATOR_ABI, sim_open, sim_close, sim_info, sim_alloc, sim_free, sim_write,
    sim_read, sim_submit, sim_wait, sim_counters, sim_profile, sim_error};
