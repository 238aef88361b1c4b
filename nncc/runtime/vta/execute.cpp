/* execute.cpp: what instructions do to the scratchpads and to DRAM. */
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "accelerator.h"
#include "machine.hpp"

namespace vta {

namespace {

int32_t wrapped(int64_t value) { return int32_t(uint32_t(uint64_t(value))); }

/* To the right for b >= 0, else to the left; by 31 and 32 at most. */
int32_t shifted(int32_t a, int32_t b) {
  if (b >= 0) return a >> (b < 31 ? b : 31);
  return b > -32 ? int32_t(uint32_t(a) << -b) : 0;
}

/* To the nearest integer, ties to even, within bounds; NaN gives the lower one. */
int32_t rounded(float v, float low, float high) {
  v = v > low ? v : low;
  v = v < high ? v : high;
  return int32_t(std::nearbyint(v));
}

/* The largest index that loops reach from `first` on. */
int64_t last(int64_t first, const int *stride, const Instruction &i) {
  return first + int64_t(i.outer - 1) * stride[0] + int64_t(i.inner - 1) * stride[1];
}

}  // namespace

Dram::~Dram() {
  for (Piece &piece : pieces_) std::free(piece.data);
}

const Dram::Piece &Dram::alloc(uint64_t size) {
  const uint64_t whole = (size + 4095) / 4096 * 4096;
  void *data = nullptr;
  if (size == 0 || size > (uint64_t(1) << 40) || posix_memalign(&data, 4096, whole)) data = nullptr;
  if (!data) fail(NNCC_ACCELERATOR_MEMORY, "there is no memory for %llu bytes", (unsigned long long)size);
  memset(data, 0, whole);
  pieces_.push_back({next_, size, static_cast<uint8_t *>(data)});
  next_ += whole + 4096; /* a page between two that belongs to neither */
  return pieces_.back();
}

bool Dram::free(uint64_t address) {
  for (size_t at = 0; at < pieces_.size(); at++)
    if (pieces_[at].address == address) {
      std::free(pieces_[at].data);
      pieces_.erase(pieces_.begin() + long(at));
      return true;
    }
  return false;
}

uint8_t *Dram::find(uint64_t address, uint64_t size) const {
  for (const Piece &piece : pieces_) {
    if (address < piece.address || address - piece.address > piece.size) continue;
    const uint64_t offset = address - piece.address;
    return size <= piece.size - offset ? piece.data + offset : nullptr;
  }
  return nullptr;
}

void Deadline::look() {
  done_ = 0;
  if (std::chrono::steady_clock::now() > end_) fail(NNCC_ACCELERATOR_TIMEOUT, "the program did not finish in time");
}

Chip::Chip()
    : acc_(VTA_DEPTH_ACC), inp_(VTA_DEPTH_INP), out_(VTA_DEPTH_OUT), wgt_(VTA_DEPTH_WGT), columns_(VTA_DEPTH_WGT),
      par_(VTA_DEPTH_PAR), uop_(VTA_DEPTH_UOP) {
  poison();
}

void Chip::poison() {
  const auto fill = [](auto &memory) {
    memset(static_cast<void *>(memory.data()), kPoison, memory.size() * sizeof memory[0]);
  };
  fill(acc_), fill(inp_), fill(out_), fill(wgt_), fill(par_), fill(uop_);
  transpose(0, VTA_DEPTH_WGT);
}

void Chip::transpose(int begin, int end) {
  for (int element = begin; element < end; element++)
    for (int input = 0; input < kLanes; input++)
      for (int output = 0; output < kLanes; output++)
        columns_[element].column[input][output] = wgt_[element].row[output][input];
}

void Chip::check_loops(uint32_t index, const Instruction &i) const {
  if (i.iterations() == 0) return;
  const bool gemm = i.kind == VTA_OPCODE_GEMM;
  const bool product = gemm && !i.reset, reads = product || (!gemm && i.source != kImmediate);
  const int memory = gemm || i.source == kInp ? VTA_MEMORY_INP : i.source == kPar ? VTA_MEMORY_PAR : VTA_MEMORY_ACC;
  const bool weights = product || (!gemm && i.operation == VTA_ALU_MAC), sums = !gemm && i.operation == VTA_ALU_QADD;
  const int parameters = weights ? VTA_MEMORY_WGT : VTA_MEMORY_PAR;
  for (int at = i.uop_begin; at < i.uop_end; at++) {
    const uint32_t uop = uop_[at];
    const struct { bool used; int64_t end; int memory; const char *what; } all[] = {
        {true, last(VTA_UOP_DST(uop), i.dst, i), VTA_MEMORY_ACC, "writes"},
        {reads, last(VTA_UOP_SRC(uop), i.src, i), memory, "reads"},
        {weights || sums, last(VTA_UOP_WGT(uop), i.wgt, i), parameters, "reads"}};
    for (const auto &each : all)
      if (each.used && each.end >= kMemories[each.memory].depth)
        fail_at(index, i, "micro-operation %d %s element %lld of %s, which has %d", at, each.what, (long long)each.end,
                kMemories[each.memory].name, kMemories[each.memory].depth);
  }
}

void Chip::execute(uint32_t index, const Instruction &i, Dram &dram, Deadline &deadline) {
  switch (i.kind) {
    case VTA_OPCODE_LOAD:
      if (i.moves) load(i, dram);
      break;
    case VTA_OPCODE_STORE:
      if (i.moves) store(i, dram);
      break;
    case VTA_OPCODE_GEMM:
      check_loops(index, i);
      gemm(i, deadline);
      break;
    case VTA_OPCODE_ALU:
      check_loops(index, i);
      alu(i, deadline);
      break;
    default: break;
  }
  deadline.check(1 + (i.moves ? uint64_t(i.rows()) * i.columns() : 0));
}

void Chip::load(const Instruction &i, const Dram &dram) {
  const size_t bytes = size_t(kMemories[i.memory].bytes);
  const size_t step = bytes * size_t(i.x_step), stride = bytes * size_t(i.x_stride);
  uint8_t *memory = nullptr;
  if (i.memory == VTA_MEMORY_INP) memory = reinterpret_cast<uint8_t *>(inp_.data());
  if (i.memory == VTA_MEMORY_WGT) memory = reinterpret_cast<uint8_t *>(wgt_.data());
  if (i.memory == VTA_MEMORY_ACC) memory = reinterpret_cast<uint8_t *>(acc_.data());
  if (i.memory == VTA_MEMORY_PAR) memory = reinterpret_cast<uint8_t *>(par_.data());
  if (i.memory == VTA_MEMORY_UOP) memory = reinterpret_cast<uint8_t *>(uop_.data());
  const uint8_t *from = dram.find(i.address, 0);
  for (int y = 0; y < i.rows(); y++) {
    const int row = y - i.y_pad[0];
    const bool inside = row >= 0 && row < i.y_size;
    for (int x = 0; x < i.columns();) {
      const int element = i.sram + y * i.columns() + x, column = x - i.x_pad[0];
      const bool data = inside && column >= 0 && column < i.x_size;
      /* A whole row at once where its elements lie side by side. */
      const int count = data && i.x_step == 1 ? i.x_size : 1;
      const uint8_t *source = data ? from + size_t(row) * stride + size_t(column) * step : nullptr;
      if (i.memory == VTA_MEMORY_ACC8) {
        for (int lane = 0; lane < kLanes * count; lane++)
          acc_[element + lane / kLanes].lane[lane % kLanes] = data ? int8_t(source[lane]) : 0;
      } else if (data) {
        memcpy(memory + size_t(element) * bytes, source, bytes * size_t(count));
      } else {
        memset(memory + size_t(element) * bytes, i.pad_value, bytes);
      }
      x += count;
    }
  }
  if (i.memory == VTA_MEMORY_WGT) transpose(i.sram, i.sram + i.rows() * i.columns());
}

void Chip::store(const Instruction &i, Dram &dram) const {
  if (i.y_size == 0) return;
  uint8_t *to = dram.find(i.address, 0);
  for (int y = 0; y < i.y_size; y++)
    memcpy(to + size_t(y) * i.x_stride * kLanes, &out_[i.sram + y * i.x_size], size_t(i.x_size) * kLanes);
}

template <class Body>
void Chip::loops(const Instruction &i, Deadline &deadline, Body body) const {
  for (int outer = 0; outer < i.outer; outer++)
    for (int inner = 0; inner < i.inner; inner++) {
      const int dst = outer * i.dst[0] + inner * i.dst[1], src = outer * i.src[0] + inner * i.src[1];
      const int wgt = outer * i.wgt[0] + inner * i.wgt[1];
      for (int at = i.uop_begin; at < i.uop_end; at++) {
        const uint32_t uop = uop_[at];
        body(VTA_UOP_DST(uop) + dst, VTA_UOP_SRC(uop) + src, VTA_UOP_WGT(uop) + wgt);
      }
      deadline.check(1 + uint64_t(i.uop_end - i.uop_begin));
    }
}

void Chip::gemm(const Instruction &i, Deadline &deadline) {
  if (i.reset) {
    loops(i, deadline, [this](int dst, int, int) { acc_[dst] = {}; });
    return;
  }
  loops(i, deadline, [this, &i](int dst, int src, int wgt) {
    const int8_t *x = inp_[src].lane;
    const auto &w = columns_[wgt].column;
    Vector32 sum;
    if (i.overwrite)
      sum = {};
    else
      sum = acc_[dst];
    for (int input = 0; input < kLanes; input++)
      for (int lane = 0; lane < kLanes; lane++)
        sum.lane[lane] = int32_t(uint32_t(sum.lane[lane]) + uint32_t(int32_t(x[input]) * w[input][lane]));
    acc_[dst] = sum;
    for (int lane = 0; lane < kLanes; lane++) out_[dst].lane[lane] = int8_t(sum.lane[lane]);
  });
}

/* ACC[dst] = value(lane, ACC[dst], source, src, wgt) in all lanes. */
template <class Value>
void Chip::alu_all(const Instruction &i, Deadline &deadline, Value value) {
  loops(i, deadline, [&](int dst, int src, int wgt) {
    Vector32 b;
    if (i.source == kImmediate)
      for (int lane = 0; lane < kLanes; lane++) b.lane[lane] = i.immediate;
    else if (i.source == kInp)
      for (int lane = 0; lane < kLanes; lane++) b.lane[lane] = inp_[src].lane[lane];
    else if (i.source == kAcc)
      b = acc_[src];
    else
      b = {};
    Vector32 result;
    for (int lane = 0; lane < kLanes; lane++)
      result.lane[lane] = value(lane, acc_[dst].lane[lane], b.lane[lane], src, wgt);
    acc_[dst] = result;
    for (int lane = 0; lane < kLanes; lane++) out_[dst].lane[lane] = int8_t(result.lane[lane]);
  });
}

void Chip::alu(const Instruction &i, Deadline &deadline) {
  const bool overwrite = i.overwrite;
  switch (i.operation) {
    case VTA_ALU_MIN:
      return alu_all(i, deadline, [=](int, int32_t a, int32_t b, int, int) { return overwrite || b < a ? b : a; });
    case VTA_ALU_MAX:
      return alu_all(i, deadline, [=](int, int32_t a, int32_t b, int, int) { return overwrite || b > a ? b : a; });
    case VTA_ALU_ADD:
      return alu_all(i, deadline, [=](int, int32_t a, int32_t b, int, int) {
        return wrapped(overwrite ? b : int64_t(a) + b);
      });
    case VTA_ALU_SHR:
      return alu_all(i, deadline, [](int, int32_t a, int32_t b, int, int) { return shifted(a, b); });
    case VTA_ALU_MUL:
      return alu_all(i, deadline, [](int, int32_t a, int32_t b, int, int) { return wrapped(int64_t(a) * b); });
    case VTA_ALU_RQ: {
      const int zero = int8_t(i.immediate & 0xFF), low = i.immediate & 0x100 ? zero : -128;
      return alu_all(i, deadline, [=](int lane, int32_t a, int32_t, int src, int) {
        const float sum = float(wrapped(int64_t(a) + par_[src].bias[lane]));
        return rounded(sum * par_[src].scale[lane], float(low - zero), float(127 - zero)) + zero;
      });
    }
    case VTA_ALU_MAC:
      return alu_all(i, deadline, [=](int lane, int32_t a, int32_t b, int, int wgt) {
        return wrapped(int64_t(overwrite ? 0 : a) + b * wgt_[wgt].row[i.immediate][lane]);
      });
    case VTA_ALU_QADD:
      return alu_all(i, deadline, [=](int, int32_t a, int32_t b, int, int wgt) {
        const float *scale = par_[wgt].scale;
        const float first = float(wrapped(int64_t(a) + 128)), second = float(wrapped(int64_t(b) + 128));
        const float sum = i.immediate & 1 ? std::fma(second, scale[1], std::fma(first, scale[0], scale[2]))
                                          : std::fma(first, scale[0], std::fma(second, scale[1], scale[2]));
        return rounded(sum, 0.0f, 255.0f) - 128;
      });
    default: return;
  }
}

}  // namespace vta
