/* timing.cpp: when things happen, by the cycle, event after event.
 *
 * An instruction takes the issue, its iterations or its transfers, and (GEMM, ALU) the depth of the pipeline; each queue
 * has one at a time. Reads of fetch, compute and load, in this priority, share a port: it takes one request a cycle,
 * a burst that crosses no page of 4096 bytes; the first beat comes after the latency, one beat a cycle in the order of
 * the requests; each client has so many requests in flight. The write port is the store queue's alone: a request is
 * complete the latency after its last beat. A LOAD also needs a cycle for each element that it writes, at once with
 * its reading; a beat of several elements stays on the port for as many cycles. Fetched instructions go to their queue
 * in order, one a cycle, while it has room, the cycle after they have come.
 *
 * The core in SystemVerilog (nncc/vta/rtl) is in step with this but for three things. RQ, QADD and MUL wait there for a
 * sum that one of the last places of the same instruction writes, which no layer asks for. Where a queue was full, it
 * has room a cycle later, so that now and then fetching comes behind another request: some cycles of thousands. And
 * from a memory that is narrower than the bus, beats come there as wide as the bus, in as many cycles. */
#include <algorithm>

#include "accelerator.h"
#include "machine.hpp"

namespace vta {

const char *const kScheme = "sim";
const bool kSimulates = true;

namespace {

constexpr uint64_t kNever = UINT64_MAX;
constexpr int kFetch = kQueues; /* the client besides the queues */

/* Rows of DRAM as bursts: what one client asks of a port. */
class Transfer {
 public:
  Transfer() = default;
  Transfer(uint64_t address, uint64_t rows, uint64_t row_bytes, uint64_t stride, uint64_t element_bytes)
      : row_(address), stride_(stride), bytes_(row_bytes), rows_(rows), at_(address), element_(element_bytes) {
    if (stride == row_bytes) bytes_ *= rows_, rows_ = 1;
    if (bytes_ == 0) rows_ = 0;
  }
  bool done() const { return rows_ == 0; }
  /* Takes the next burst off; the beats it needs, and into `cycles` how long these are on the port. */
  uint64_t burst(const Timing &timing, uint64_t &cycles) {
    const uint64_t beat = uint64_t(timing.beat_bytes), first = at_ / beat;
    uint64_t end = std::min((first * beat) + uint64_t(timing.burst_bytes), (at_ | 4095) + 1);
    end = std::min(end, row_ + bytes_);
    const uint64_t beats = (end + beat - 1) / beat - first;
    cycles = element_ < beat ? (end - at_) / element_ : beats;
    at_ = end;
    if (at_ == row_ + bytes_) at_ = row_ += stride_, rows_--;
    return beats;
  }

 private:
  uint64_t row_ = 0, stride_ = 0, bytes_ = 0, rows_ = 0, at_ = 0, element_ = 0;
};

/* Requests in flight: at most `most`, which end in the order in which they were made. */
class Flight {
 public:
  explicit Flight(int most) : ends_(size_t(most), 0) {}
  /* From when on another one may be made. */
  uint64_t free_at() const { return ends_[next_]; }
  void add(uint64_t end) {
    ends_[next_] = end;
    next_ = next_ + 1 == ends_.size() ? 0 : next_ + 1;
  }

 private:
  std::vector<uint64_t> ends_;
  size_t next_ = 0;
};

struct Client {
  explicit Client(int most) : flight(most) {}
  Transfer transfer;
  uint64_t ready = 0; /* the earliest cycle of the next request */
  uint64_t end = 0;   /* of the last beat, or response, so far */
  Flight flight;
  uint64_t next() const { return transfer.done() ? kNever : std::max(ready, flight.free_at()); }
};

/* Times at which tokens were given, of one direction. */
class TokenTimes {
 public:
  void push(uint64_t time) { times_[uint8_t(tail_++)] = time; }
  uint64_t pop() { return times_[uint8_t(head_++)]; }

 private:
  uint64_t times_[256] = {};
  unsigned head_ = 0, tail_ = 0;
};

class Run {
 public:
  Run(const std::vector<Instruction> &program, const Timing &timing, uint64_t instructions, Chip *chip, Dram &dram,
      Deadline &deadline, std::vector<uint64_t> &ends)
      : program_(program), timing_(timing), chip_(chip), dram_(dram), deadline_(deadline), ends_(ends),
        clients_(kQueues + 1, Client(timing.outstanding)) {
    ends_.assign(program.size(), 0);
    arrivals_.assign(program.size(), kNever);
    dispatches_.assign(program.size(), 0);
    fetch_address_ = instructions;
    for (auto &waiting : waiting_) waiting.assign(VTA_QUEUE_DEPTH, 0);
  }

  Counters run();

 private:
  struct Engine {
    int64_t current = -1;   /* the instruction that runs */
    uint64_t start = 0, end = kNever, idle_since = 0;
    uint64_t fill_end = 0;  /* when a LOAD has written all elements */
  };

  void finish(int queue, uint64_t now);
  bool start(int queue, uint64_t now);
  bool dispatch(uint64_t now);
  bool grant(uint64_t now);
  void request_fetch(uint64_t now);
  void account(const Instruction &instruction, int queue, uint64_t now);
  uint64_t next_event(uint64_t now);

  const std::vector<Instruction> &program_;
  const Timing &timing_;
  Chip *chip_;
  Dram &dram_;
  Deadline &deadline_;
  std::vector<uint64_t> &ends_;
  std::vector<Client> clients_;
  Engine engines_[kQueues];
  std::vector<uint32_t> waiting_[kQueues]; /* rings */
  unsigned heads_[kQueues] = {}, lengths_[kQueues] = {};
  Tokens tokens_;
  TokenTimes times_[4]; /* load to compute, compute to load, compute to store, store to compute */
  std::vector<uint64_t> arrivals_, dispatches_;
  uint64_t fetch_address_ = 0, last_dispatch_ = 0, port_free_ = 0, write_free_ = 0, last_grant_ = 0;
  size_t requested_ = 0, dispatched_ = 0, completed_ = 0;
  size_t fetched_to_ = 0; /* instructions that the requests granted so far bring */
  uint64_t fetched_bytes_ = 0;
  bool granted_ = false, dispatched_once_ = false;
  Counters counters_ = {};
};

/* Fetching asks for as many instructions as a burst holds, where there is room for them. */
void Run::request_fetch(uint64_t now) {
  Client &client = clients_[kFetch];
  if (!client.transfer.done() || requested_ == program_.size()) return;
  const size_t most = size_t(std::max(1, std::min(timing_.burst_bytes / 16, VTA_FETCH_DEPTH / 4)));
  const size_t count = std::min(most, program_.size() - requested_);
  if (requested_ + count - dispatched_ > size_t(VTA_FETCH_DEPTH)) return;
  client.transfer = Transfer(fetch_address_ + 16 * requested_, 1, 16 * count, 16 * count, uint64_t(timing_.beat_bytes));
  client.ready = now;
  requested_ += count;
}

/* One request of the read port, and one of the write port, if any is due. */
bool Run::grant(uint64_t now) {
  bool any = false;
  Client &store = clients_[kStore];
  if (store.next() <= now) {
    uint64_t cycles = 0;
    const uint64_t beats = store.transfer.burst(timing_, cycles);
    write_free_ = std::max(now, write_free_) + beats;
    counters_.write_beats += beats;
    store.end = write_free_ + uint64_t(timing_.latency);
    store.flight.add(store.end);
    store.ready = now + 1;
    any = true;
    if (store.transfer.done()) engines_[kStore].end = store.end;
  }
  if (granted_ && last_grant_ == now) return any;
  for (int queue : {int(kFetch), int(kCompute), int(kLoad)}) {
    Client &client = clients_[size_t(queue)];
    if (client.next() > now) continue;
    uint64_t cycles = 0;
    const uint64_t beats = client.transfer.burst(timing_, cycles);
    const uint64_t first = std::max(now + uint64_t(timing_.latency), port_free_);
    port_free_ = first + cycles;
    counters_.read_beats += beats;
    client.end = port_free_;
    client.flight.add(client.end);
    client.ready = now + 1;
    granted_ = true, last_grant_ = now, any = true;
    if (queue == kFetch) {
      /* What of the request is still to come arrives with later bursts. */
      const uint64_t beat = uint64_t(timing_.beat_bytes);
      const uint64_t begin = fetch_address_ + fetched_bytes_, first_beat = begin / beat;
      const uint64_t limit = fetch_address_ + 16 * requested_;
      const uint64_t end = std::min((first_beat + beats) * beat, limit);
      for (; fetched_to_ < requested_ && fetch_address_ + 16 * (fetched_to_ + 1) <= end; fetched_to_++)
        arrivals_[fetched_to_] = first + (fetch_address_ + 16 * (fetched_to_ + 1) + beat - 1) / beat - first_beat + 1;
      fetched_bytes_ = end - fetch_address_;
      request_fetch(now + 1);
    } else if (client.transfer.done()) {
      engines_[queue].end = std::max(client.end, engines_[queue].fill_end);
    }
    break;
  }
  return any;
}

bool Run::dispatch(uint64_t now) {
  if (dispatched_ == program_.size() || arrivals_[dispatched_] > now) return false;
  if (dispatched_once_ && last_dispatch_ == now) return false;
  const int queue = program_[dispatched_].queue;
  if (lengths_[queue] == VTA_QUEUE_DEPTH) return false;
  waiting_[queue][(heads_[queue] + lengths_[queue]++) % VTA_QUEUE_DEPTH] = uint32_t(dispatched_);
  dispatches_[dispatched_++] = now;
  last_dispatch_ = now, dispatched_once_ = true;
  request_fetch(now);
  return true;
}

/* Why a queue did nothing between two instructions. */
void Run::account(const Instruction &i, int queue, uint64_t now) {
  Engine &engine = engines_[queue];
  const uint64_t arrival = std::max(engine.idle_since, dispatches_[size_t(engine.current)]);
  counters_.wait_fetch[queue] += arrival - engine.idle_since;
  const uint64_t prev = i.pop_prev ? times_[queue == kCompute ? 0 : 2].pop() : 0;
  const uint64_t next = i.pop_next ? times_[queue == kCompute ? 3 : 1].pop() : 0;
  (prev >= next ? counters_.wait_prev : counters_.wait_next)[queue] += now - arrival;
}

bool Run::start(int queue, uint64_t now) {
  Engine &engine = engines_[queue];
  if (engine.current >= 0 || lengths_[queue] == 0) return false;
  const uint32_t index = waiting_[queue][heads_[queue]];
  const Instruction &i = program_[index];
  if (!tokens_.ready(i)) return false;
  heads_[queue] = (heads_[queue] + 1) % VTA_QUEUE_DEPTH, lengths_[queue]--;
  tokens_.pop(i);
  engine.current = index;
  account(i, queue, now);
  engine.start = now;
  const uint64_t issued = now + VTA_ISSUE_CYCLES;
  engine.end = issued;
  counters_.overhead += queue == kCompute ? VTA_ISSUE_CYCLES : 0;
  if (i.kind == VTA_OPCODE_GEMM || i.kind == VTA_OPCODE_ALU) {
    if (const uint64_t iterations = i.iterations()) {
      const bool gemm = i.kind == VTA_OPCODE_GEMM;
      const uint64_t cycles = iterations * uint64_t(gemm ? 1 : kOperations[i.operation].cycles[i.source]);
      (gemm ? counters_.gemm_iterations : counters_.alu_iterations) += iterations;
      (gemm ? counters_.gemm_cycles : counters_.alu_cycles) += cycles;
      counters_.overhead += VTA_PIPELINE_CYCLES;
      engine.end = issued + cycles + VTA_PIPELINE_CYCLES;
    }
  } else if (i.moves) {
    const uint64_t bytes = uint64_t(kMemories[i.memory].bytes);
    const uint64_t read = uint64_t(i.kind == VTA_OPCODE_LOAD ? i.span() : i.x_size) * bytes;
    Client &client = clients_[size_t(queue)];
    client.transfer = Transfer(i.address, uint64_t(i.y_size), read, uint64_t(i.x_stride) * bytes, bytes);
    client.ready = client.end = issued;
    counters_.bytes[i.memory] += read * uint64_t(i.y_size);
    engine.fill_end = i.kind == VTA_OPCODE_LOAD ? issued + uint64_t(i.rows()) * uint64_t(i.columns()) : issued;
    engine.end = client.transfer.done() ? engine.fill_end : kNever;
  }
  return true;
}

void Run::finish(int queue, uint64_t now) {
  Engine &engine = engines_[queue];
  const uint32_t index = uint32_t(engine.current);
  const Instruction &i = program_[index];
  if (chip_) chip_->execute(index, i, dram_, deadline_);
  deadline_.check(1);
  tokens_.push(index, i);
  if (i.push_prev) times_[queue == kCompute ? 1 : 3].push(now);
  if (i.push_next) times_[queue == kCompute ? 2 : 0].push(now);
  counters_.busy[queue] += now - engine.start;
  if (queue == kCompute && i.kind == VTA_OPCODE_LOAD) counters_.compute_moves += now - engine.start - VTA_ISSUE_CYCLES;
  ends_[index] = now;
  engine.current = -1, engine.end = kNever, engine.idle_since = now;
  completed_++;
  if (i.kind == VTA_OPCODE_FINISH && completed_ < program_.size())
    fail_at(index, i, "it does not wait for all that load and store have to do");
}

uint64_t Run::next_event(uint64_t now) {
  uint64_t next = kNever;
  for (const Engine &engine : engines_)
    if (engine.current >= 0) next = std::min(next, engine.end);
  for (size_t client = 0; client < clients_.size(); client++) {
    uint64_t at = clients_[client].next();
    if (at != kNever && client != kStore && granted_) at = std::max(at, last_grant_ + 1);
    next = std::min(next, at);
  }
  if (dispatched_ < program_.size() && lengths_[program_[dispatched_].queue] < VTA_QUEUE_DEPTH &&
      arrivals_[dispatched_] != kNever)
    next = std::min(next, std::max(arrivals_[dispatched_], dispatched_once_ ? last_dispatch_ + 1 : 0));
  return next == kNever ? next : std::max(next, now);
}

Counters Run::run() {
  uint64_t now = 0;
  request_fetch(now);
  while (completed_ < program_.size()) {
    for (bool any = true; any;) {
      any = false;
      for (int queue = 0; queue < kQueues; queue++)
        if (engines_[queue].current >= 0 && engines_[queue].end <= now) finish(queue, now), any = true;
      for (int queue = 0; queue < kQueues; queue++) any |= start(queue, now);
      any |= dispatch(now);
      any |= grant(now);
    }
    if (completed_ == program_.size()) break;
    now = next_event(now);
    if (now == kNever) {
      int64_t heads[kQueues];
      for (int queue = 0; queue < kQueues; queue++)
        heads[queue] = lengths_[queue] ? int64_t(waiting_[queue][heads_[queue]]) : -1;
      fail_deadlock(program_, heads);
    }
  }
  tokens_.check_none_left();
  counters_.cycles = now;
  counters_.fetch_bytes = 16 * uint64_t(program_.size());
  return counters_;
}

}  // namespace

Counters run_timed(const std::vector<Instruction> &program, const Timing &timing, uint64_t instructions,
                   const uint64_t *, Chip *chip, Dram &dram, Deadline &deadline, std::vector<uint64_t> &ends) {
  return Run(program, timing, instructions, chip, dram, deadline, ends).run();
}

}  // namespace vta
