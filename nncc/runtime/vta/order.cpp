/* order.cpp: orders that tokens allow: one chosen at random, and whether all of them give the same. */
#include <map>

#include "accelerator.h"
#include "machine.hpp"

namespace vta {

namespace {

constexpr int kParameters = VTA_MEMORY_PAR >= 0 ? VTA_MEMORY_PAR : 0; /* where there are none, none are read */

using Indices = std::vector<uint32_t>;

void split(const std::vector<Instruction> &program, Indices *queues) {
  for (uint32_t index = 0; index < program.size(); index++) queues[program[index].queue].push_back(index);
}

/* Calls `step` for each instruction in an order that tokens allow; `choose` picks one of so many queues that can. */
template <class Choose, class Step>
void walk(const std::vector<Instruction> &program, Deadline &deadline, Choose choose, Step step) {
  Indices queues[kQueues];
  split(program, queues);
  size_t at[kQueues] = {};
  Tokens tokens;
  for (size_t done = 0; done < program.size(); done++) {
    int ready[kQueues], count = 0;
    for (int queue = 0; queue < kQueues; queue++)
      if (at[queue] < queues[queue].size() && tokens.ready(program[queues[queue][at[queue]]])) ready[count++] = queue;
    if (count == 0) {
      int64_t heads[kQueues];
      for (int queue = 0; queue < kQueues; queue++)
        heads[queue] = at[queue] < queues[queue].size() ? int64_t(queues[queue][at[queue]]) : -1;
      fail_deadlock(program, heads);
    }
    const int queue = ready[choose(count)];
    const uint32_t index = queues[queue][at[queue]++];
    const Instruction &i = program[index];
    tokens.pop(i);
    step(index, i);
    tokens.push(index, i);
    deadline.check(1);
    if (i.kind == VTA_OPCODE_FINISH && done + 1 < program.size())
      fail_at(index, i, "it does not wait for all that load and store have to do");
  }
  tokens.check_none_left();
}

/* How many instructions of each queue are surely complete before one begins. */
struct Before {
  uint32_t count[kQueues] = {};
  void join(const Before &other) {
    for (int queue = 0; queue < kQueues; queue++)
      if (other.count[queue] > count[queue]) count[queue] = other.count[queue];
  }
};

/* For each instruction what is complete before it, and its position in its queue. */
void order(const std::vector<Instruction> &program, Deadline &deadline, std::vector<Before> &before,
           std::vector<uint32_t> &position) {
  before.assign(program.size(), {});
  position.assign(program.size(), 0);
  Before last[kQueues];             /* after the last instruction of a queue */
  std::vector<Before> tokens[4];    /* load to compute, compute to load, compute to store, store to compute */
  size_t taken[4] = {};
  const auto lazy = [&](int count) { return count - 1; }; /* the queue behind first: few tokens wait */
  walk(program, deadline, lazy, [&](uint32_t index, const Instruction &i) {
    Before now = last[i.queue];
    const int prev = i.queue == kCompute ? 0 : 2, next = i.queue == kCompute ? 3 : 1;
    if (i.pop_prev) now.join(tokens[prev][taken[prev]++]);
    if (i.pop_next) now.join(tokens[next][taken[next]++]);
    before[index] = now;
    position[index] = now.count[i.queue]++;
    last[i.queue] = now;
    if (i.push_prev) tokens[i.queue == kCompute ? 1 : 3].push_back(now);
    if (i.push_next) tokens[i.queue == kCompute ? 2 : 0].push_back(now);
  });
}

/* Who wrote an element last, and who has read it since, by queue; index + 1, 0 for nobody. */
struct Trace {
  uint32_t writer = 0, reader[kQueues] = {};
};

/* Finds accesses whose order is left to chance. */
class Checker {
 public:
  Checker(const std::vector<Instruction> &program, const std::vector<Before> &before,
          const std::vector<uint32_t> &position)
      : program_(program), before_(before), position_(position) {
    for (int memory = 0; memory < 8; memory++)
      if (kMemories[memory].name) chip_[memory].resize(size_t(kMemories[memory].depth));
  }

  void check(uint32_t index, const Chip &chip, const Dram &dram, Deadline &deadline);

 private:
  void read(uint32_t index, int memory, int element) {
    Trace &trace = chip_[memory][size_t(element)];
    if (!trace.writer)
      fail_at(index, program_[index], "it reads element %d of %s, which nothing has written", element,
              kMemories[memory].name);
    if (unordered(index, trace.writer)) blame(index, trace.writer, "reads", memory, element, "writes");
    trace.reader[program_[index].queue] = index + 1;
  }
  void write(uint32_t index, int memory, int element) {
    Trace &trace = chip_[memory][size_t(element)];
    if (unordered(index, trace.writer)) blame(index, trace.writer, "writes", memory, element, "writes too");
    for (uint32_t reader : trace.reader)
      if (unordered(index, reader)) blame(index, reader, "writes", memory, element, "reads");
    trace = Trace();
    trace.writer = index + 1;
  }
  /* Whether `other` (index + 1, earlier in the program) may still run when `index` begins. */
  bool unordered(uint32_t index, uint32_t other) const {
    if (!other || program_[other - 1].queue == program_[index].queue) return false;
    return before_[index].count[program_[other - 1].queue] <= position_[other - 1];
  }
  [[noreturn]] void blame(uint32_t index, uint32_t other, const char *does, int memory, int element, const char *what) {
    fail_at(index, program_[index], "it %s element %d of %s, which instruction %u of %s %s, and does not wait for that",
            does, element, kMemories[memory].name, other - 1, kQueueNames[program_[other - 1].queue], what);
  }
  void dram(uint32_t index, uint64_t address, uint64_t size, bool writes, const Dram &memory);

  static constexpr uint64_t kCell = kLanes < 16 ? kLanes : 16; /* bytes of DRAM that count as one */
  const std::vector<Instruction> &program_;
  const std::vector<Before> &before_;
  const std::vector<uint32_t> &position_;
  std::vector<Trace> chip_[8];
  std::map<uint64_t, std::vector<Trace>> dram_; /* by the address of a piece */
};

void Checker::dram(uint32_t index, uint64_t address, uint64_t size, bool writes, const Dram &memory) {
  for (const Dram::Piece &piece : memory.pieces()) {
    if (address < piece.address || address - piece.address >= piece.size) continue;
    std::vector<Trace> &cells = dram_[piece.address];
    if (cells.empty()) cells.resize(size_t((piece.size + kCell - 1) / kCell));
    const uint64_t first = (address - piece.address) / kCell, end = (address - piece.address + size - 1) / kCell;
    for (uint64_t cell = first; cell <= end; cell++) {
      Trace &trace = cells[size_t(cell)];
      const auto complain = [&](uint32_t other, const char *what) {
        fail_at(index, program_[index],
                "it %s byte 0x%llx of DRAM, which instruction %u of %s %s, and does not wait for that",
                writes ? "writes" : "reads", (unsigned long long)(piece.address + cell * kCell), other - 1,
                kQueueNames[program_[other - 1].queue], what);
      };
      if (unordered(index, trace.writer)) complain(trace.writer, "writes");
      if (!writes) {
        trace.reader[program_[index].queue] = index + 1;
        continue;
      }
      for (uint32_t reader : trace.reader)
        if (unordered(index, reader)) complain(reader, "reads");
      trace = Trace();
      trace.writer = index + 1;
    }
  }
}

void Checker::check(uint32_t index, const Chip &chip, const Dram &memory, Deadline &deadline) {
  const Instruction &i = program_[index];
  if (i.kind == VTA_OPCODE_LOAD || i.kind == VTA_OPCODE_STORE) {
    if (!i.moves) return;
    const bool loads = i.kind == VTA_OPCODE_LOAD;
    const uint64_t bytes = uint64_t(kMemories[i.memory].bytes);
    for (int y = 0; y < i.y_size; y++)
      dram(index, i.address + uint64_t(y) * i.x_stride * bytes, uint64_t(loads ? i.span() : i.x_size) * bytes, !loads,
           memory);
    const int held = i.memory == VTA_MEMORY_ACC8 ? int(VTA_MEMORY_ACC) : i.memory;
    for (int element = i.sram; element < i.sram + i.rows() * i.columns(); element++)
      loads ? write(index, held, element) : read(index, held, element);
    return;
  }
  if (i.kind == VTA_OPCODE_FINISH || i.iterations() == 0) return;
  for (int at = i.uop_begin; at < i.uop_end; at++) read(index, VTA_MEMORY_UOP, at);
  chip.check_loops(index, i);
  const bool gemm = i.kind == VTA_OPCODE_GEMM, product = gemm && !i.reset;
  const int source = i.source == kInp ? VTA_MEMORY_INP : i.source == kPar ? kParameters : VTA_MEMORY_ACC;
  for (int outer = 0; outer < i.outer; outer++)
    for (int inner = 0; inner < i.inner; inner++) {
      for (int at = i.uop_begin; at < i.uop_end; at++) {
        const uint32_t uop = chip.uops()[at];
        const int dst = VTA_UOP_DST(uop) + outer * i.dst[0] + inner * i.dst[1];
        const int src = VTA_UOP_SRC(uop) + outer * i.src[0] + inner * i.src[1];
        const int wgt = VTA_UOP_WGT(uop) + outer * i.wgt[0] + inner * i.wgt[1];
        if (product) read(index, VTA_MEMORY_INP, src);
        if (!gemm && i.source != kImmediate) read(index, source, src);
        if (product || (!gemm && i.operation == VTA_ALU_MAC)) read(index, VTA_MEMORY_WGT, wgt);
        if (!gemm && i.operation == VTA_ALU_QADD) read(index, kParameters, wgt);
        if (!i.reset && !i.overwrite) read(index, VTA_MEMORY_ACC, dst);
        write(index, VTA_MEMORY_ACC, dst);
        if (!i.reset) write(index, VTA_MEMORY_OUT, dst);
      }
      deadline.check(1 + uint64_t(i.uop_end - i.uop_begin));
    }
}

}  // namespace

void run_interleaved(const std::vector<Instruction> &program, uint64_t seed, Chip &chip, Dram &dram,
                     Deadline &deadline) {
  uint64_t state = seed;
  const auto choose = [&](int count) { /* splitmix64 */
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return int((z ^ z >> 31) % unsigned(count));
  };
  walk(program, deadline, choose,
       [&](uint32_t index, const Instruction &i) { chip.execute(index, i, dram, deadline); });
}

void run_checked(const std::vector<Instruction> &program, Chip &chip, Dram &dram, Deadline &deadline) {
  std::vector<Before> before;
  std::vector<uint32_t> position;
  order(program, deadline, before, position);
  Checker checker(program, before, position);
  Indices queues[kQueues];
  split(program, queues);
  for (uint32_t index = 0; index < program.size(); index++) {
    const Instruction &i = program[index];
    checker.check(index, chip, dram, deadline);
    chip.execute(index, i, dram, deadline);
    if (i.kind != VTA_OPCODE_FINISH) continue;
    for (int queue : {int(kLoad), int(kStore)})
      if (before[index].count[queue] < queues[queue].size())
        fail_at(index, i, "it does not wait for instruction %u, of %s", queues[queue][before[index].count[queue]],
                kQueueNames[queue]);
  }
}

}  // namespace vta
