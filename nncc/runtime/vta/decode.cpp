/* decode.cpp: from 128 bits to instructions, and all that can be checked before one runs. */
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "accelerator.h"
#include "machine.hpp"

namespace vta {

namespace {

constexpr int load = kLoad, compute = kCompute, none = -1;

template <class Row>
struct Table {
  Row row[8];
};

constexpr Table<MemoryFacts> memories() {
  Table<MemoryFacts> table = {};
#define X(name, number, bytes, depth, queue) table.row[number] = {#name, bytes, depth, queue};
  VTA_MEMORIES(X)
#undef X
  return table;
}

constexpr Table<OperationFacts> operations() {
  Table<OperationFacts> table = {};
#define X(name, number, immediate, acc, inp, par, overwrites, bits) \
  table.row[number] = {#name, {immediate, acc, inp, par}, overwrites != 0, bits};
  VTA_OPERATIONS(X)
#undef X
  return table;
}

const char *kind_name(int kind) {
  switch (kind) {
    case VTA_OPCODE_LOAD: return "load";
    case VTA_OPCODE_STORE: return "store";
    case VTA_OPCODE_GEMM: return "gemm";
    case VTA_OPCODE_ALU: return "alu";
    default: return "finish";
  }
}

std::string formatted(const char *format, va_list arguments) {
  char text[512];
  vsnprintf(text, sizeof text, format, arguments);
  return text;
}

/* The fields that LOAD and STORE share. */
#define MOVE(KIND)                                                                                              \
  i.memory = VTA_##KIND##_MEMORY(w), i.sram = VTA_##KIND##_SRAM(w), i.y_size = VTA_##KIND##_Y_SIZE(w),          \
  i.x_size = VTA_##KIND##_X_SIZE(w), i.x_stride = VTA_##KIND##_X_STRIDE(w), dram = VTA_##KIND##_DRAM(w),        \
  i.y_pad[0] = VTA_##KIND##_Y_PAD_0(w), i.y_pad[1] = VTA_##KIND##_Y_PAD_1(w), i.x_pad[0] = VTA_##KIND##_X_PAD_0(w), \
  i.x_pad[1] = VTA_##KIND##_X_PAD_1(w)
/* The fields that GEMM and ALU share. */
#define LOOPS(KIND)                                                                                           \
  i.uop_begin = VTA_##KIND##_UOP_BGN(w), i.uop_end = VTA_##KIND##_UOP_END(w), i.outer = VTA_##KIND##_ITER_OUT(w), \
  i.inner = VTA_##KIND##_ITER_IN(w), i.dst[0] = VTA_##KIND##_DST_OUT(w), i.dst[1] = VTA_##KIND##_DST_IN(w),   \
  i.src[0] = VTA_##KIND##_SRC_OUT(w), i.src[1] = VTA_##KIND##_SRC_IN(w), i.overwrite = VTA_##KIND##_OVERWRITE(w)

void check_used(uint32_t index, const Instruction &i, const uint64_t *w, uint64_t lower, uint64_t upper) {
  const uint64_t wrong[2] = {w[0] & ~lower, w[1] & ~upper};
  for (int half = 0; half < 2; half++)
    if (wrong[half]) fail_at(index, i, "bit %d is set, which is no field's", 64 * half + __builtin_ctzll(wrong[half]));
}

void check_move(uint32_t index, Instruction &i, const Dram &dram, int64_t element, const uint64_t *bases) {
  const MemoryFacts &memory = kMemories[i.memory];
  const bool loads = i.kind == VTA_OPCODE_LOAD;
  if (!memory.name || (loads ? memory.queue == none : i.memory != VTA_MEMORY_OUT))
    fail_at(index, i, "it cannot %s memory %d", loads ? "fill" : "read", i.memory);
  i.queue = loads ? memory.queue : int(kStore);
  i.moves = i.x_size > 0;
  if (!i.moves) return;
  if (!loads && (i.y_pad[0] | i.y_pad[1] | i.x_pad[0] | i.x_pad[1])) fail_at(index, i, "it has padding");
  if (i.pad_value && i.memory != VTA_MEMORY_INP) fail_at(index, i, "only INP has another padding than 0");
  const int64_t end = i.sram + int64_t(i.rows()) * i.columns();
  if (end > memory.depth)
    fail_at(index, i, "it reaches to element %lld of %s, which has %d", (long long)end, memory.name, memory.depth);
  i.address = bases[i.memory] + uint64_t(element) * memory.bytes;
  if (i.y_size == 0) return;
  const uint64_t size = (uint64_t(i.y_size - 1) * i.x_stride + i.span()) * memory.bytes;
  if (!dram.find(i.address, size))
    fail_at(index, i, "bytes 0x%llx to 0x%llx of DRAM are not all within one piece of memory",
            (unsigned long long)i.address, (unsigned long long)(i.address + size));
}

void check_loops_form(uint32_t index, const Instruction &i) {
  if (i.uop_end > VTA_DEPTH_UOP)
    fail_at(index, i, "it reads micro-operations up to %d, of %d", i.uop_end, VTA_DEPTH_UOP);
  if (i.uop_end < i.uop_begin) fail_at(index, i, "its micro-operations end at %d, before %d", i.uop_end, i.uop_begin);
}

void check_alu(uint32_t index, Instruction &i, bool use_immediate, bool from_inp) {
  const OperationFacts &operation = kOperations[i.operation];
  if (!operation.name) fail_at(index, i, "there is no operation %d", i.operation);
  if (use_immediate && from_inp) fail_at(index, i, "it has both an immediate and a source");
  i.source = use_immediate ? kImmediate : from_inp ? kInp : operation.cycles[kPar] ? kPar : kAcc;
  static const char *const names[] = {"immediate", "source in ACC", "source in INP", "source in PAR"};
  if (!operation.cycles[i.source]) fail_at(index, i, "%s takes no %s", operation.name, names[i.source]);
  if (i.overwrite && !operation.overwrites) fail_at(index, i, "%s cannot overwrite", operation.name);
  if (!operation.operand() && (i.immediate & 0xFFFF & ~operation.immediate_bits))
    fail_at(index, i, "%s takes no immediate 0x%x", operation.name, i.immediate & 0xFFFF);
}

Instruction decode_one(const Dram &dram, uint32_t index, const uint64_t *w, const uint64_t *bases) {
  Instruction i = {};
  int64_t dram_element = 0;
  i.kind = VTA_LOAD_OPCODE(w);
  i.pop_prev = VTA_LOAD_POP_PREV(w), i.pop_next = VTA_LOAD_POP_NEXT(w);
  i.push_prev = VTA_LOAD_PUSH_PREV(w), i.push_next = VTA_LOAD_PUSH_NEXT(w);
  i.queue = kCompute;
  i.x_step = 1;
  switch (i.kind) {
    case VTA_OPCODE_LOAD: {
      auto &dram = dram_element;
      MOVE(LOAD);
      i.pad_value = VTA_LOAD_PAD_VALUE(w), i.x_step = VTA_LOAD_X_SKIP(w) + 1;
      check_used(index, i, w, VTA_LOAD_USED_LOWER, VTA_LOAD_USED_UPPER);
      break;
    }
    case VTA_OPCODE_STORE: {
      auto &dram = dram_element;
      MOVE(STORE);
      check_used(index, i, w, VTA_STORE_USED_LOWER, VTA_STORE_USED_UPPER);
      break;
    }
    case VTA_OPCODE_GEMM:
      LOOPS(GEMM);
      i.wgt[0] = VTA_GEMM_WGT_OUT(w), i.wgt[1] = VTA_GEMM_WGT_IN(w), i.reset = VTA_GEMM_RESET(w);
      check_used(index, i, w, VTA_GEMM_USED_LOWER, VTA_GEMM_USED_UPPER);
      check_loops_form(index, i);
      if (i.reset && i.overwrite) fail_at(index, i, "it both resets and overwrites");
      break;
    case VTA_OPCODE_ALU:
      LOOPS(ALU);
      i.operation = VTA_ALU_ALU_OP(w), i.immediate = VTA_ALU_IMM(w);
      check_used(index, i, w, VTA_ALU_USED_LOWER, VTA_ALU_USED_UPPER);
      check_loops_form(index, i);
      check_alu(index, i, VTA_ALU_USE_IMM(w), VTA_ALU_FROM_INP(w));
      break;
    case VTA_OPCODE_FINISH:
      check_used(index, i, w, VTA_FINISH_USED_LOWER, VTA_FINISH_USED_UPPER);
      if (i.push_prev || i.push_next) fail_at(index, i, "nobody waits for tokens of the end");
      break;
    default:
      fail(NNCC_ACCELERATOR_PROGRAM, "instruction %u: no instruction has the opcode %d", index, i.kind);
  }
  if (i.kind == VTA_OPCODE_LOAD || i.kind == VTA_OPCODE_STORE) check_move(index, i, dram, dram_element, bases);
  if (i.queue == kLoad && (i.pop_prev || i.push_prev)) fail_at(index, i, "there is no queue before load");
  if (i.queue == kStore && (i.pop_next || i.push_next)) fail_at(index, i, "there is no queue behind store");
  return i;
}

}  // namespace

const MemoryFacts kMemories[8] = {memories().row[0], memories().row[1], memories().row[2], memories().row[3],
                                  memories().row[4], memories().row[5], memories().row[6], memories().row[7]};
const OperationFacts kOperations[8] = {operations().row[0], operations().row[1], operations().row[2],
                                       operations().row[3], operations().row[4], operations().row[5],
                                       operations().row[6], operations().row[7]};

void fail(int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Fault fault = {code, formatted(format, arguments)};
  va_end(arguments);
  throw fault;
}

void fail_at(uint32_t index, const Instruction &instruction, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = formatted(format, arguments);
  va_end(arguments);
  fail(NNCC_ACCELERATOR_PROGRAM, "instruction %u (%s): %s", index, kind_name(instruction.kind), text.c_str());
}

std::vector<Instruction> decode(const Dram &dram, uint64_t instructions, uint32_t count, const uint64_t *bases) {
  if (count == 0) fail(NNCC_ACCELERATOR_PROGRAM, "the program is empty");
  for (int memory = 0; memory < 8; memory++)
    if (bases[memory] >> 48) fail(NNCC_ACCELERATOR_ARGUMENT, "base address %d is beyond the device's memory", memory);
  const uint8_t *words = dram.find(instructions, uint64_t(count) * 16);
  if (!words || instructions % 16)
    fail(NNCC_ACCELERATOR_ARGUMENT, "%u instructions at 0x%llx are not within one piece of memory, aligned to 16 bytes",
         count, (unsigned long long)instructions);
  std::vector<Instruction> program;
  program.reserve(count);
  for (uint32_t index = 0; index < count; index++) {
    uint64_t w[2];
    memcpy(w, words + 16 * size_t(index), 16);
    program.push_back(decode_one(dram, index, w, bases));
    const bool finish = program.back().kind == VTA_OPCODE_FINISH;
    if (finish && index + 1 < count) fail_at(index, program.back(), "instructions follow");
    if (!finish && index + 1 == count) fail_at(index, program.back(), "the program ends without FINISH");
  }
  return program;
}

bool Tokens::ready(const Instruction &i) const {
  if (i.pop_prev && !(i.queue == kCompute ? to_compute_from_load : to_store)) return false;
  return !i.pop_next || (i.queue == kCompute ? to_compute_from_store : to_load);
}

void Tokens::pop(const Instruction &i) {
  if (i.pop_prev) (i.queue == kCompute ? to_compute_from_load : to_store)--;
  if (i.pop_next) (i.queue == kCompute ? to_compute_from_store : to_load)--;
}

void Tokens::push(uint32_t index, const Instruction &i) {
  int most = 0;
  if (i.push_prev) most = ++(i.queue == kCompute ? to_load : to_compute_from_store);
  if (most > 255) fail_at(index, i, "more than 255 tokens wait for the queue before");
  most = 0;
  if (i.push_next) most = ++(i.queue == kCompute ? to_store : to_compute_from_load);
  if (most > 255) fail_at(index, i, "more than 255 tokens wait for the queue behind");
}

void Tokens::check_none_left() const {
  const struct { int count; const char *from, *to; } all[] = {
      {to_compute_from_load, "load", "compute"}, {to_load, "compute", "load"},
      {to_store, "compute", "store"}, {to_compute_from_store, "store", "compute"}};
  for (const auto &each : all)
    if (each.count)
      fail(NNCC_ACCELERATOR_PROGRAM, "%d token%s of %s for %s are left at the end", each.count,
           each.count == 1 ? "" : "s", each.from, each.to);
}

void fail_deadlock(const std::vector<Instruction> &program, const int64_t *heads) {
  std::string text = "deadlock: ";
  for (int queue = 0; queue < kQueues; queue++) {
    if (queue) text += "; ";
    text += kQueueNames[queue];
    if (heads[queue] < 0) {
      text += " is empty";
      continue;
    }
    const Instruction &i = program[size_t(heads[queue])];
    text += " waits at instruction " + std::to_string(heads[queue]) + " (" + kind_name(i.kind) + ")";
    if (i.pop_prev || i.pop_next) text += " for a token of ";
    if (i.pop_prev) text += kQueueNames[queue - 1];
    if (i.pop_prev && i.pop_next) text += " or ";
    if (i.pop_next) text += kQueueNames[queue + 1];
  }
  fail(NNCC_ACCELERATOR_PROGRAM, "%s", text.c_str());
}

}  // namespace vta
