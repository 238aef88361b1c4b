// The accelerator: registers, fetch, three queues with their tokens, scratchpads, a port to read and one to write memory.
//
// Memory answers requests in order; each answer names its client. Errors stop the machine for good: see `vta_registers`.
module vta_core
  import vta_machine::*;
(
    input logic clk,
    input logic rst,

    input logic register_write,
    input logic [7:0] register_address,  // in words of 32 bits
    input logic [31:0] register_value,
    output logic [31:0] register_answer,

    output logic read_valid,
    output logic [63:0] read_address,
    output logic [10:0] read_beats,
    output logic [1:0] read_client,
    input logic read_ready,
    input logic beat_valid,
    input logic [1:0] beat_client,
    input logic [8*BUS_BYTES-1:0] beat_data,
    input logic beat_last,
    output logic beat_ready,

    output logic write_address_valid,
    output logic [63:0] write_address,
    output logic [10:0] write_beats,
    output logic write_valid,
    output logic [8*BUS_BYTES-1:0] write_data,
    input logic write_ready,
    input logic write_response,

    // For those who look on: by queue, instructions that end in this cycle, and what a queue waits for.
    output logic running,
    output logic [2:0] retired,
    output logic [2:0] waits_for_instruction,
    output logic [2:0] waits_for_previous,
    output logic [2:0] waits_for_next,
    output logic iterated
);
  localparam int LOAD = 0, COMPUTE = 1, STORE = 2;
  localparam int LOAD_BYTES = BYTES_WGT > BYTES_PAR ? BYTES_WGT : BYTES_PAR;

  // Registers
  logic start, reset_units, finish;
  logic [63:0] program_address;
  logic [31:0] program_count;
  logic [63:0] bases[8];
  logic [12:0] burst_bytes;
  logic [7:0] outstanding;
  logic [2:0] errors;
  vta_registers registers (
      .clk,
      .rst,
      .write(register_write),
      .address(register_address),
      .value(register_value),
      .answer(register_answer),
      .start,
      .running,
      .finish,
      .errors,
      .program_address,
      .program_count,
      .bases,
      .burst_bytes,
      .outstanding
  );
  assign reset_units = rst || !running;

  // Readers, in order of priority: fetch, compute, load.
  logic [2:0] request_valid, request_ready, response_valid, response_ready;
  logic [63:0] request_address[3];
  logic [10:0] request_beats[3];
  always_comb begin
    read_valid = running && request_valid != 0;
    read_client = request_valid[0] ? 2'd0 : request_valid[1] ? 2'd1 : 2'd2;
    read_address = request_address[read_client] & ~(64'(BUS_BYTES) - 64'd1);
    read_beats = request_beats[read_client];
    request_ready = '0;
    request_ready[read_client] = running && read_ready;
    response_valid = '0;
    response_valid[beat_client] = beat_valid;
    response_ready[0] = 1'b1;
    beat_ready = response_ready[beat_client];
  end

  // Fetch and queues
  logic [2:0] push, full, queue_valid, pop;
  logic [127:0] fetched, queue_head[3];
  vta_fetch fetch (
      .clk,
      .rst(reset_units),
      .start,
      .program_address,
      .program_count,
      .burst_bytes,
      .outstanding,
      .request_valid(request_valid[0]),
      .request_address(request_address[0]),
      .request_beats(request_beats[0]),
      .request_ready(request_ready[0]),
      .response_valid(response_valid[0]),
      .response_data(beat_data),
      .response_last(beat_last),
      .push,
      .instruction(fetched),
      .full,
      .bad_instruction(errors[0])
  );

  logic [127:0] instruction[3];
  logic [2:0] begins, finished;
  logic [2:0] pop_previous, pop_next, push_previous, push_next;
  logic [2:0] previous_has_token, next_has_token;
  for (genvar queue = 0; queue < 3; queue++) begin : queues
    vta_fifo #(
        .WIDTH(128),
        .DEPTH(QUEUE_DEPTH)
    ) waiting (
        .clk,
        .rst(reset_units),
        .push(push[queue]),
        .tail(fetched),
        .full(full[queue]),
        .valid(queue_valid[queue]),
        .head(queue_head[queue]),
        .pop(pop[queue])
    );
    vta_sequencer sequencer (
        .clk,
        .rst(reset_units),
        .valid(queue_valid[queue]),
        .head(queue_head[queue]),
        .pop(pop[queue]),
        .previous_has_token(previous_has_token[queue]),
        .next_has_token(next_has_token[queue]),
        .pop_previous(pop_previous[queue]),
        .pop_next(pop_next[queue]),
        .push_previous(push_previous[queue]),
        .push_next(push_next[queue]),
        .instruction(instruction[queue]),
        .start(begins[queue]),
        .finished(finished[queue]),
        .retired(retired[queue]),
        .waits({waits_for_next[queue], waits_for_previous[queue], waits_for_instruction[queue]})
    );
  end

  // Tokens between a queue and the next one, in both directions. Load has none before it, store none behind it: who
  // waits for such a token waits forever, who gives one gives it to nobody.
  logic [1:0] forward_overflow, backward_overflow;
  assign previous_has_token[LOAD] = 1'b0;
  assign next_has_token[STORE] = 1'b0;
  for (genvar queue = 0; queue < 2; queue++) begin : neighbours
    vta_tokens forward (
        .clk,
        .rst(reset_units),
        .push(push_next[queue]),
        .pop(pop_previous[queue+1]),
        .available(previous_has_token[queue+1]),
        .overflow(forward_overflow[queue])
    );
    vta_tokens backward (
        .clk,
        .rst(reset_units),
        .push(push_previous[queue+1]),
        .pop(pop_next[queue]),
        .available(next_has_token[queue]),
        .overflow(backward_overflow[queue])
    );
  end
  assign errors[1] = {forward_overflow, backward_overflow} != 0;

  // Scratchpads
  logic load_write, load_padding, inp_read, wgt_read, par_read, out_write, out_read;
  logic [2:0] load_memory;
  logic [31:0] load_index, inp_index, wgt_index, par_index, out_write_index, out_read_index;
  logic [8*LOAD_BYTES-1:0] load_element;
  logic [8*BYTES_INP-1:0] inp;
  logic [8*BYTES_WGT-1:0] wgt;
  logic [8*BYTES_PAR-1:0] par;
  logic [8*BYTES_OUT-1:0] out_written, out;
  vta_scratchpad #(
      .WIDTH(8 * BYTES_INP),
      .DEPTH(DEPTH_INP)
  ) inputs (
      .clk,
      .write(load_write && load_memory == MEMORY_INP),
      .write_index($clog2(DEPTH_INP)'(load_index)),
      .write_data(load_element[8*LOAD_BYTES-1-:8*BYTES_INP]),
      .read(inp_read),
      .read_index($clog2(DEPTH_INP)'(inp_index)),
      .read_data(inp)
  );
  vta_scratchpad #(
      .WIDTH(8 * BYTES_WGT),
      .DEPTH(DEPTH_WGT)
  ) weights (
      .clk,
      .write(load_write && load_memory == MEMORY_WGT),
      .write_index($clog2(DEPTH_WGT)'(load_index)),
      .write_data(load_padding ? '0 : load_element[8*LOAD_BYTES-1-:8*BYTES_WGT]),
      .read(wgt_read),
      .read_index($clog2(DEPTH_WGT)'(wgt_index)),
      .read_data(wgt)
  );
  vta_scratchpad #(
      .WIDTH(8 * BYTES_OUT),
      .DEPTH(DEPTH_OUT)
  ) outputs (
      .clk,
      .write(out_write),
      .write_index($clog2(DEPTH_OUT)'(out_write_index)),
      .write_data(out_written),
      .read(out_read),
      .read_index($clog2(DEPTH_OUT)'(out_read_index)),
      .read_data(out)
  );
  if (HAS_PAR) begin : parameters
    vta_scratchpad #(
        .WIDTH(8 * BYTES_PAR),
        .DEPTH(DEPTH_PAR)
    ) memory (
        .clk,
        .write(load_write && load_memory == MEMORY_PAR),
        .write_index($clog2(DEPTH_PAR)'(load_index)),
        .write_data(load_padding ? '0 : load_element[8*LOAD_BYTES-1-:8*BYTES_PAR]),
        .read(par_read),
        .read_index($clog2(DEPTH_PAR)'(par_index)),
        .read_data(par)
    );
  end else assign par = '0;

  // What the queues do
  logic [2:0] bad_index;
  load_t load;
  store_t store;
  assign load = decode_load(instruction[LOAD]);
  assign store = decode_store(instruction[STORE]);
  vta_load #(
      .MOST_BYTES(LOAD_BYTES)
  ) loader (
      .clk,
      .rst(reset_units),
      .start(begins[LOAD]),
      .load,
      .base(bases[load.memory]),
      .finished(finished[LOAD]),
      .bad_index(bad_index[LOAD]),
      .burst_bytes,
      .outstanding,
      .request_valid(request_valid[2]),
      .request_address(request_address[2]),
      .request_beats(request_beats[2]),
      .request_ready(request_ready[2]),
      .response_valid(response_valid[2]),
      .response_data(beat_data),
      .response_last(beat_last),
      .response_ready(response_ready[2]),
      .write(load_write),
      .write_memory(load_memory),
      .write_index(load_index),
      .write_element(load_element),
      .write_padding(load_padding)
  );

  logic is_finish;
  vta_compute compute (
      .clk,
      .rst(reset_units),
      .instruction(instruction[COMPUTE]),
      .start(begins[COMPUTE]),
      .finished(finished[COMPUTE]),
      .is_finish,
      .bad_index(bad_index[COMPUTE]),
      .iterated,
      .bases,
      .burst_bytes,
      .outstanding,
      .request_valid(request_valid[1]),
      .request_address(request_address[1]),
      .request_beats(request_beats[1]),
      .request_ready(request_ready[1]),
      .response_valid(response_valid[1]),
      .response_data(beat_data),
      .response_last(beat_last),
      .response_ready(response_ready[1]),
      .inp_read,
      .inp_index,
      .inp,
      .wgt_read,
      .wgt_index,
      .wgt,
      .par_read,
      .par_index,
      .par,
      .out_write,
      .out_index(out_write_index),
      .out(out_written)
  );
  assign finish = retired[COMPUTE] && is_finish;

  vta_store storer (
      .clk,
      .rst(reset_units),
      .start(begins[STORE]),
      .store,
      .base(bases[store.memory]),
      .finished(finished[STORE]),
      .bad_index(bad_index[STORE]),
      .burst_bytes,
      .outstanding,
      .read(out_read),
      .read_index(out_read_index),
      .read_element(out),
      .address_valid(write_address_valid),
      .address(write_address),
      .beats(write_beats),
      .data_valid(write_valid),
      .data(write_data),
      .ready(write_ready),
      .response(write_response)
  );
  assign errors[2] = bad_index != 0;
endmodule
