// Reads the program and gives each instruction to its queue, in order; waits where that queue is full.
module vta_fetch
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic start,
    input logic [63:0] program_address,
    input logic [31:0] program_count,
    input logic [12:0] burst_bytes,
    input logic [7:0] outstanding,

    output logic request_valid,
    output logic [63:0] request_address,
    output logic [10:0] request_beats,
    input logic request_ready,
    input logic response_valid,
    input logic [8*BUS_BYTES-1:0] response_data,
    input logic response_last,

    output logic [2:0] push,  // to the queues of load, compute and store
    output logic [127:0] instruction,
    input logic [2:0] full,
    output logic bad_instruction
);
  localparam int BYTES = 16;
  localparam int BEATS = BYTES / BUS_BYTES;
  localparam int MOST = FETCH_DEPTH < 4 ? 1 : FETCH_DEPTH / 4;  // instructions of a request
  localparam int ROOM_BITS = $clog2(FETCH_DEPTH + 1);

  logic [31:0] unrequested;
  logic [ROOM_BITS-1:0] room;  // instructions that may still be asked for
  logic [12:0] count, page;
  logic [7:0] in_flight;
  logic take_burst;
  assign page = 13'd4096 - {1'b0, request_address[11:0]};
  always_comb begin
    count = burst_bytes < page ? burst_bytes / 13'(BYTES) : page / 13'(BYTES);
    if (32'(count) > 32'(MOST)) count = 13'(MOST);
    if (unrequested < 32'(count)) count = 13'(unrequested);
  end
  assign request_valid = unrequested != 0 && 13'(room) >= count && in_flight < outstanding;
  assign request_beats = 11'(count) * 11'(BEATS);
  assign take_burst = request_valid && request_ready;

  logic complete;
  logic [127:0] arrived;
  if (BEATS == 1) begin : whole
    assign complete = response_valid;
    assign arrived = response_data;
  end else begin : parts
    logic [127-8*BUS_BYTES:0] earlier;
    logic [$clog2(BEATS)-1:0] beat;
    assign arrived = {response_data, earlier};
    assign complete = response_valid && beat == $bits(beat)'(BEATS - 1);
    always_ff @(posedge clk)
      if (rst || start) beat <= '0;
      else if (response_valid) begin
        earlier <= arrived[127:8*BUS_BYTES];
        beat <= beat + 1'b1;
      end
  end

  logic [127:0] waiting;
  logic waiting_valid, pop, never_full;
  vta_fifo #(
      .WIDTH(128),
      .DEPTH(FETCH_DEPTH)
  ) arrivals (
      .clk,
      .rst,
      .push(complete),
      .tail(arrived),
      .full(never_full),
      .valid(waiting_valid),
      .head(waiting),
      .pop
  );

  // What the queue of an instruction is, and whether it has only bits that mean something.
  finish_t form;
  load_t load;
  store_t store;
  logic [127:0] fields;
  logic [2:0] queue;
  assign form = decode_finish(waiting);
  assign load = decode_load(waiting);
  assign store = decode_store(waiting);
  always_comb begin
    queue = 3'b010;
    fields = '0;
    case (form.opcode)
      OPCODE_LOAD:
      if (load_queue_loads(load.memory)) begin
        queue = 3'b001;
        fields = LOAD_FIELDS;
      end else if (compute_queue_loads(load.memory)) fields = LOAD_FIELDS;
      OPCODE_STORE: begin
        queue = 3'b100;
        if (store.memory == MEMORY_OUT) fields = STORE_FIELDS;
      end
      OPCODE_GEMM: fields = GEMM_FIELDS;
      OPCODE_ALU: fields = ALU_FIELDS;
      OPCODE_FINISH: fields = FINISH_FIELDS;
      default: ;
    endcase
  end
  assign instruction = waiting;
  assign pop = waiting_valid && (queue & full) == 0;
  assign push = pop ? queue : 3'b0;
  assign bad_instruction = waiting_valid && (waiting & ~fields) != 0;

  always_ff @(posedge clk)
    if (rst) begin
      unrequested <= '0;
      in_flight <= '0;
    end else if (start) begin
      request_address <= program_address;
      unrequested <= program_count;
      room <= ROOM_BITS'(FETCH_DEPTH);
      in_flight <= '0;
    end else begin
      in_flight <= in_flight + 8'(take_burst) - 8'(response_valid && response_last);
      room <= room - (take_burst ? ROOM_BITS'(count) : '0) + ROOM_BITS'(pop);
      if (take_burst) begin
        request_address <= request_address + 64'(count) * 64'(BYTES);
        unrequested <= unrequested - 32'(count);
      end
    end
endmodule
