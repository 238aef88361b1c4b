/* run_core.cpp: `run_timed` on the core in SystemVerilog, as Verilator compiles it, in place of the simulator's model.
 *
 * Memory answers as the model says: requests in the order of their grants, each beat behind the last one and no earlier
 * than the latency after its request; writes the latency after their last beat. Without latency both answer in the
 * cycle itself. */
#include <algorithm>
#include <cstring>
#include <deque>

#include "Vvta_core.h"
#include "accelerator.h"
#include "machine.hpp"
#include "verilated.h"

namespace vta {

const char *const kScheme = "rtl";
const bool kSimulates = false;

namespace {

struct Burst {
  int client;
  uint64_t address, beats, ready;
};

/* Registers of the core: see registers.sv. */
enum Register { kControl = 0, kCycles = 1, kCount = 3, kProgram = 4, kBurstBytes = 6, kOutstanding = 7, kBases = 8 };

class Run {
 public:
  Run(const std::vector<Instruction> &program, const Timing &timing, Dram &dram, std::vector<uint64_t> &ends)
      : program_(program), timing_(timing), dram_(dram), ends_(ends) {
    ends_.assign(program.size(), 0);
    for (size_t index = program.size(); index-- > 0;) waiting_[program[index].queue].push_back(index);
  }
  Counters run(uint64_t instructions, const uint64_t *bases, Deadline &deadline);

 private:
  void start(uint64_t instructions, const uint64_t *bases);
  void clock();
  void write(int index, uint32_t value);
  void write_wide(int index, uint64_t value);
  uint32_t read(int index);
  void cycle();
  void take_requests();
  void answer();
  void observe();
  void check_end() const;
  [[noreturn]] void fail_outside(const char *what, uint64_t address) const;

  const std::vector<Instruction> &program_;
  const Timing &timing_;
  Dram &dram_;
  std::vector<uint64_t> &ends_;
  VerilatedContext context_;
  Vvta_core core_{&context_};
  std::vector<size_t> waiting_[kQueues]; /* instructions that have not ended, the next one last */
  std::deque<Burst> reads_;
  std::deque<uint64_t> responses_; /* when writes are answered */
  Burst written_ = {};
  uint64_t now_ = 0, beat_at_ = 0, still_ = 0;
  Counters counters_ = {};
};

void Run::clock() {
  core_.clk = 1;
  core_.eval();
  core_.clk = 0;
}

void Run::write(int index, uint32_t value) {
  core_.register_write = 1;
  core_.register_address = uint8_t(index);
  core_.register_value = value;
  core_.eval();
  clock();
  core_.register_write = 0;
}

void Run::write_wide(int index, uint64_t value) {
  write(index, uint32_t(value));
  write(index + 1, uint32_t(value >> 32));
}

uint32_t Run::read(int index) {
  core_.register_address = uint8_t(index);
  core_.eval();
  return core_.register_answer;
}

void Run::start(uint64_t instructions, const uint64_t *bases) {
  core_.rst = core_.read_ready = core_.write_ready = 1;
  core_.eval();
  clock();
  core_.rst = 0;
  write(kCount, uint32_t(program_.size()));
  write_wide(kProgram, instructions);
  write(kBurstBytes, uint32_t(timing_.burst_bytes));
  write(kOutstanding, uint32_t(timing_.outstanding));
  for (int memory = 0; memory < NNCC_ACCELERATOR_MEMORIES; memory++) write_wide(kBases + 2 * memory, bases[memory]);
  write(kControl, 1);
  core_.eval();
  clock(); /* in which it sees that it is to start: from here on cycles count */
}

void Run::fail_outside(const char *what, uint64_t address) const {
  fail(NNCC_ACCELERATOR_PROGRAM, "the core %s address 0x%llx of DRAM, where there is no memory", what,
       (unsigned long long)address);
}

/* Requests and what is written depend on nothing that memory says in this cycle. */
void Run::take_requests() {
  if (core_.read_valid)
    reads_.push_back({core_.read_client, core_.read_address, core_.read_beats, now_ + uint64_t(timing_.latency)});
  if (!core_.write_valid) return;
  if (core_.write_address_valid) written_ = {0, core_.write_address, core_.write_beats, 0};
  uint8_t *bytes = written_.beats ? dram_.find(written_.address, VTA_BUS_BYTES) : nullptr;
  if (!bytes) fail_outside("writes", written_.address);
  memcpy(bytes, &core_.write_data, VTA_BUS_BYTES);
  written_.address += VTA_BUS_BYTES;
  counters_.write_beats++;
  if (--written_.beats == 0) responses_.push_back(now_ + uint64_t(timing_.latency));
}

void Run::answer() {
  core_.beat_valid = !reads_.empty() && std::max(reads_.front().ready, beat_at_) <= now_;
  if (core_.beat_valid) {
    const Burst &burst = reads_.front();
    /* The last beat of a piece of memory may be there in part only. */
    uint64_t size = VTA_BUS_BYTES;
    const uint8_t *bytes = dram_.find(burst.address, size);
    while (!bytes && size > 1) bytes = dram_.find(burst.address, size /= 2);
    if (!bytes) fail_outside("reads", burst.address);
    memcpy(&core_.beat_data, bytes, size);
    core_.beat_client = uint8_t(burst.client);
    core_.beat_last = burst.beats == 1;
  }
  core_.write_response = !responses_.empty() && responses_.front() <= now_;
  if (core_.write_response) responses_.pop_front();
}

void Run::observe() {
  const auto bit = [](int bits, int queue) { return uint64_t(bits >> queue & 1); };
  const int idle = core_.waits_for_instruction | core_.waits_for_previous | core_.waits_for_next;
  for (int queue = 0; queue < kQueues; queue++) {
    counters_.wait_fetch[queue] += bit(core_.waits_for_instruction, queue);
    counters_.wait_prev[queue] += bit(core_.waits_for_previous, queue);
    counters_.wait_next[queue] += bit(core_.waits_for_next, queue);
    counters_.busy[queue] += !bit(idle, queue);
    if (!bit(core_.retired, queue)) continue;
    ends_[waiting_[queue].back()] = now_ + 1;
    waiting_[queue].pop_back();
  }
  if (!bit(idle, kCompute) && !waiting_[kCompute].empty()) {
    const Instruction &i = program_[waiting_[kCompute].back()];
    if (core_.iterated) {
      const bool gemm = i.kind == VTA_OPCODE_GEMM;
      (gemm ? counters_.gemm_iterations : counters_.alu_iterations)++;
      (gemm ? counters_.gemm_cycles : counters_.alu_cycles) += gemm ? 1 : uint64_t(kOperations[i.operation].cycles[i.source]);
    }
    counters_.compute_moves += i.moves;
  }
  const bool moves = core_.retired || core_.iterated || idle != 7 || !reads_.empty() || !responses_.empty() ||
                     core_.read_valid || core_.beat_valid;
  still_ = moves ? 0 : still_ + 1;
}

void Run::cycle() {
  take_requests();
  answer();
  core_.eval();
  if (core_.beat_valid && core_.beat_ready) {
    counters_.read_beats++;
    beat_at_ = now_ + uint64_t(VTA_BUS_BYTES / timing_.beat_bytes);
    reads_.front().address += VTA_BUS_BYTES;
    if (--reads_.front().beats == 0) reads_.pop_front();
  }
  observe();
  clock();
  now_++;
}

/* As the simulator sees it: FINISH is the last one to end, and no token is left. */
void Run::check_end() const {
  for (const auto &waiting : waiting_)
    if (!waiting.empty())
      fail_at(uint32_t(program_.size()) - 1, program_.back(), "it does not wait for all that load and store have to do");
  Tokens left;
  for (const Instruction &i : program_) {
    (i.queue == kCompute ? left.to_load : left.to_compute_from_store) += i.push_prev;
    (i.queue == kCompute ? left.to_store : left.to_compute_from_load) += i.push_next;
    (i.queue == kCompute ? left.to_compute_from_load : left.to_store) -= i.pop_prev;
    (i.queue == kCompute ? left.to_compute_from_store : left.to_load) -= i.pop_next;
  }
  left.check_none_left();
}

Counters Run::run(uint64_t instructions, const uint64_t *bases, Deadline &deadline) {
  start(instructions, bases);
  while (core_.running) {
    cycle();
    deadline.check(256);
    if (still_ <= 64) continue;
    int64_t heads[kQueues];
    for (int queue = 0; queue < kQueues; queue++)
      heads[queue] = core_.waits_for_instruction >> queue & 1 ? -1 : int64_t(waiting_[queue].back());
    fail_deadlock(program_, heads);
  }
  static const char *const kErrors[] = {"an instruction that it does not know", "more than 255 tokens",
                                        "an index outside of a scratchpad"};
  const uint32_t status = read(kControl);
  for (int error = 0; error < 3; error++)
    if (status >> (4 + error) & 1) fail(NNCC_ACCELERATOR_PROGRAM, "the core found %s", kErrors[error]);
  check_end();
  counters_.cycles = read(kCycles) | uint64_t(read(kCycles + 1)) << 32;
  counters_.overhead = counters_.busy[kCompute] - counters_.gemm_cycles - counters_.alu_cycles - counters_.compute_moves;
  counters_.fetch_bytes = 16 * uint64_t(program_.size());
  for (const Instruction &i : program_)
    if (i.moves)
      counters_.bytes[i.memory] += uint64_t(i.y_size) * uint64_t(i.kind == VTA_OPCODE_LOAD ? i.span() : i.x_size) *
                                   uint64_t(kMemories[i.memory].bytes);
  return counters_;
}

}  // namespace

Counters run_timed(const std::vector<Instruction> &program, const Timing &timing, uint64_t instructions,
                   const uint64_t *bases, Chip *, Dram &dram, Deadline &deadline, std::vector<uint64_t> &ends) {
  if (timing.burst_bytes < 16) fail(NNCC_ACCELERATOR_ARGUMENT, "the core's bursts have 16 bytes and more");
  if (timing.outstanding > 255) fail(NNCC_ACCELERATOR_ARGUMENT, "the core has at most 255 requests in flight");
  return Run(program, timing, dram, ends).run(instructions, bases, deadline);
}

}  // namespace vta
