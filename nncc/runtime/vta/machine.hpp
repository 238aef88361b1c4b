/* machine.hpp: what the parts of the simulator share: errors, memory, decoded instructions, the state of the chip.
 *
 * vta_machine.h is made from the description of a machine (nncc/vta/generate.py); all sizes are constants. */
#ifndef NNCC_VTA_MACHINE_HPP
#define NNCC_VTA_MACHINE_HPP

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "vta_machine.h"

namespace vta {

/* What goes wrong; crosses no function of the driver's interface. */
struct Fault {
  int code; /* NNCC_ACCELERATOR_... */
  std::string text;
};

[[noreturn]] void fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum Queue { kLoad, kCompute, kStore, kQueues };
enum Source { kImmediate, kAcc, kInp, kPar };
constexpr const char *kQueueNames[] = {"load", "compute", "store"};
constexpr int kLanes = VTA_BLOCK;
constexpr uint8_t kPoison = 0xA5; /* what scratchpads hold before anything is written */

/* What a memory's number stands for; of the numbers that stand for none, `name` is null. */
struct MemoryFacts {
  const char *name;
  int bytes, depth, queue;
};
extern const MemoryFacts kMemories[8];

/* An operation of the ALU; of the numbers that stand for none, `name` is null. */
struct OperationFacts {
  const char *name;
  int cycles[4]; /* of an iteration, by source; 0: it takes none */
  bool overwrites;
  int immediate_bits; /* that are allowed where the immediate is no operand; 0: it is one */
  bool operand() const { return immediate_bits == 0; }
};
extern const OperationFacts kOperations[8];

struct Instruction {
  int kind, queue; /* VTA_OPCODE_... */
  bool pop_prev, pop_next, push_prev, push_next;
  bool moves;           /* LOAD and STORE that move something */
  /* LOAD, STORE */
  int memory, sram, y_size, x_size, x_stride, y_pad[2], x_pad[2], pad_value, x_step;
  uint64_t address;     /* in bytes, of the first element in DRAM */
  /* GEMM, ALU */
  int uop_begin, uop_end, outer, inner, dst[2], src[2], wgt[2];
  bool reset, overwrite;
  int operation, source, immediate;

  uint64_t iterations() const { return uint64_t(outer) * inner * (uop_end - uop_begin); }
  int columns() const { return x_pad[0] + x_size + x_pad[1]; }
  int rows() const { return y_pad[0] + y_size + y_pad[1]; }
  int span() const { return (x_size - 1) * x_step + 1; } /* elements of DRAM that a row is read from */
};

/* Memory that host and device share; addresses are the device's. */
class Dram {
 public:
  struct Piece {
    uint64_t address, size;
    uint8_t *data;
  };
  Dram() = default;
  Dram(const Dram &) = delete;
  Dram &operator=(const Dram &) = delete;
  ~Dram();
  const Piece &alloc(uint64_t size);
  bool free(uint64_t address);
  /* Where `size` bytes from `address` on lie; null if they are not within one piece. */
  uint8_t *find(uint64_t address, uint64_t size) const;
  const std::vector<Piece> &pieces() const { return pieces_; }

 private:
  std::vector<Piece> pieces_;
  uint64_t next_ = 1 << 16;
};

/* Until when a program may run. */
class Deadline {
 public:
  explicit Deadline(double seconds) : limited_(seconds > 0), end_(std::chrono::steady_clock::now()) {
    if (limited_) end_ += std::chrono::microseconds(int64_t((seconds < 1e9 ? seconds : 1e9) * 1e6));
  }
  /* Counts work; now and then looks at the clock. */
  void check(uint64_t work) {
    done_ += work;
    if (limited_ && done_ > (1 << 20)) look();
  }

 private:
  void look();
  bool limited_;
  std::chrono::steady_clock::time_point end_;
  uint64_t done_ = 0;
};

/* A program with all that can be checked before it runs; addresses are resolved. Throws Fault. */
std::vector<Instruction> decode(const Dram &dram, uint64_t instructions, uint32_t count, const uint64_t *bases);

[[noreturn]] void fail_at(uint32_t index, const Instruction &instruction, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The scratchpads, and what instructions do to them and to DRAM. */
class Chip {
 public:
  Chip();
  void poison();
  void execute(uint32_t index, const Instruction &instruction, Dram &dram, Deadline &deadline);
  /* Throws Fault if the loops reach beyond a memory. */
  void check_loops(uint32_t index, const Instruction &instruction) const;
  const uint32_t *uops() const { return uop_.data(); }

 private:
  struct Parameters {
    int32_t bias[kLanes];
    float scale[kLanes];
  };
  void load(const Instruction &instruction, const Dram &dram);
  void store(const Instruction &instruction, Dram &dram) const;
  void gemm(const Instruction &instruction, Deadline &deadline);
  void alu(const Instruction &instruction, Deadline &deadline);
  void transpose(int begin, int end);
  template <class Body>
  void loops(const Instruction &instruction, Deadline &deadline, Body body) const;
  template <class Value>
  void alu_all(const Instruction &instruction, Deadline &deadline, Value value);

  struct alignas(4 * kLanes) Vector32 { int32_t lane[kLanes]; }; /* without gaps: loads fill them as bytes */
  struct Vector8 { int8_t lane[kLanes]; };
  struct Matrix { int8_t row[kLanes][kLanes]; };
  struct alignas(64) Columns { int16_t column[kLanes][kLanes]; }; /* [input][output] */
  std::vector<Vector32> acc_;
  std::vector<Vector8> inp_, out_;
  std::vector<Matrix> wgt_;
  std::vector<Columns> columns_; /* the same weights, as products want them */
  std::vector<Parameters> par_;
  std::vector<uint32_t> uop_;
};

/* Tokens between neighbours: four queues of at most 255. */
struct Tokens {
  int to_compute_from_load = 0, to_load = 0, to_store = 0, to_compute_from_store = 0;
  bool ready(const Instruction &instruction) const;
  void pop(const Instruction &instruction);
  void push(uint32_t index, const Instruction &instruction);
  void check_none_left() const;
};

/* "compute waits at instruction 3 (gemm) for a token of load; ..." for queues whose heads are given; -1: is empty. */
[[noreturn]] void fail_deadlock(const std::vector<Instruction> &program, const int64_t *heads);

/* How DRAM answers, in cycles. */
struct Timing {
  std::string name;
  int latency, beat_bytes, burst_bytes, outstanding, clock_mhz;
};

struct Counters {
  uint64_t cycles, gemm_iterations, alu_iterations, gemm_cycles, alu_cycles, compute_moves, overhead;
  uint64_t busy[kQueues], wait_fetch[kQueues], wait_prev[kQueues], wait_next[kQueues];
  uint64_t read_beats, write_beats, fetch_bytes, bytes[8]; /* moved, by number of a memory */
};

/* What a device's uri begins with: "sim", or "rtl" where the core in SystemVerilog stands in place of timing.cpp. */
extern const char *const kScheme;
/* Whether there is a chip to execute on, in other orders too; else all that runs is the core. */
extern const bool kSimulates;

/* Executes in the order in which instructions end by the cycle; `chip` may be null: then only time passes.
 * `ends` becomes the cycle at which each instruction ended. */
Counters run_timed(const std::vector<Instruction> &program, const Timing &timing, uint64_t instructions,
                   const uint64_t *bases, Chip *chip, Dram &dram, Deadline &deadline, std::vector<uint64_t> &ends);

/* Executes in an order that tokens allow, chosen at random. */
void run_interleaved(const std::vector<Instruction> &program, uint64_t seed, Chip &chip, Dram &dram,
                     Deadline &deadline);

/* Executes in program order, and throws Fault where tokens do not make sure of it: where an instruction touches what
 * one of another queue writes, or writes what one reads, and may come before it; and where one reads what none has
 * written. */
void run_checked(const std::vector<Instruction> &program, Chip &chip, Dram &dram, Deadline &deadline);

}  // namespace vta

#endif
