// LOAD: reads rows in bursts, drops what x_step leaves out, writes one element of a scratchpad each cycle.
//
// Data comes first: padding is written in cycles in which no element of data is complete, so that the port to memory
// never waits for it. Only a beat of several micro-operations is held.
module vta_load
  import vta_machine::*;
#(
    parameter int MOST_BYTES = 256  // of an element in DRAM
) (
    input logic clk,
    input logic rst,
    input logic start,
    input load_t load,
    input logic [63:0] base,  // of the memory, in bytes
    output logic finished,  // the last element is being written
    output logic bad_index,
    input logic [12:0] burst_bytes,
    input logic [7:0] outstanding,

    output logic request_valid,
    output logic [63:0] request_address,
    output logic [10:0] request_beats,
    input logic request_ready,
    input logic response_valid,
    input logic [8*BUS_BYTES-1:0] response_data,
    input logic response_last,
    output logic response_ready,

    output logic write,
    output logic [2:0] write_memory,
    output logic [31:0] write_index,
    output logic [8*MOST_BYTES-1:0] write_element,
    output logic write_padding
);
  localparam int SKEW_BITS = $clog2(BUS_BYTES);

  function automatic logic [3:0] log2_bytes(logic [2:0] memory);
    case (memory)
      MEMORY_WGT: return 4'($clog2(BYTES_WGT));
      MEMORY_INP: return 4'($clog2(BYTES_INP));
      MEMORY_ACC: return 4'($clog2(BYTES_ACC));
      MEMORY_ACC8: return 4'($clog2(BYTES_ACC8));
      MEMORY_PAR: return 4'($clog2(BYTES_PAR));
      default: return 4'($clog2(BYTES_UOP));
    endcase
  endfunction

  function automatic logic [31:0] depth(logic [2:0] memory);
    case (memory)
      MEMORY_WGT: return 32'(DEPTH_WGT);
      MEMORY_INP: return 32'(DEPTH_INP);
      MEMORY_ACC, MEMORY_ACC8: return 32'(DEPTH_ACC);
      MEMORY_PAR: return 32'(DEPTH_PAR);
      default: return 32'(DEPTH_UOP);
    endcase
  endfunction

  logic [3:0] shift;
  logic [31:0] span, width, height, row_bytes, stride_bytes;
  logic [63:0] address;
  logic empty;
  assign shift = log2_bytes(load.memory);
  assign span = (32'(load.x_size) - 1) * (32'(load.x_skip) + 1) + 1;
  assign width = 32'(load.x_pad_0) + 32'(load.x_size) + 32'(load.x_pad_1);
  assign height = 32'(load.y_pad_0) + 32'(load.y_size) + 32'(load.y_pad_1);
  assign row_bytes = span << shift;
  assign stride_bytes = 32'(load.x_stride) << shift;
  assign address = base + (64'(load.dram) << shift);
  assign empty = load.x_size == 0;

  logic reading, take_burst;
  logic burst_valid, merged, one_row;
  logic [7:0] in_flight;
  vta_bursts bursts (
      .clk,
      .rst,
      .start(start && !empty),
      .address,
      .rows(load.y_size),
      .row_bytes,
      .stride_bytes,
      .burst_bytes,
      .merged,
      .valid(burst_valid),
      .burst_address(request_address),
      .beats(request_beats),
      .take(take_burst)
  );
  assign request_valid = burst_valid && in_flight < outstanding;
  assign take_burst = request_valid && request_ready;

  logic [31:0] data_index, column, rows_left;
  logic [1:0] dropped;
  logic last_of_row, kept, take_element, take_beat;
  logic [SKEW_BITS-1:0] row_skew, next_skew;
  logic [8*MOST_BYTES-1:0] element;
  assign last_of_row = column + 1 == span;
  assign next_skew = row_skew + SKEW_BITS'(stride_bytes);
  assign take_beat = response_valid && response_ready;
  assign kept = dropped == 0;
  vta_elements #(
      .MOST_BYTES(MOST_BYTES)
  ) elements (
      .clk,
      .start,
      .element_bytes(13'd1 << shift),
      .skew(SKEW_BITS'(address)),
      .next_skew,
      .beat_valid(response_valid),
      .beat(response_data),
      .beat_ready(response_ready),
      .element_valid(take_element),
      .element,
      .last_of_row(last_of_row && (!one_row || rows_left == 1))
  );

  logic pad_valid, pad_last, take_pad;
  logic [31:0] pad_index;
  vta_padding places (
      .clk,
      .rst,
      .start(start && !empty),
      .load,
      .width,
      .valid(pad_valid),
      .index(pad_index),
      .take(take_pad),
      .last(pad_last)
  );
  assign take_pad = pad_valid && !(take_element && kept);

  assign write = (take_element && kept) || take_pad;
  assign write_memory = load.memory;
  assign write_padding = take_pad;
  assign write_index = take_pad ? pad_index : data_index;
  assign write_element = take_pad ? {MOST_BYTES{8'(load.pad_value)}} : element;

  logic last_data;
  assign last_data = take_element && last_of_row && rows_left == 1;
  assign finished = start ? empty || height == 0
                          : (!reading || last_data) && (!pad_valid || (take_pad && pad_last));
  assign bad_index = start && !empty && 64'(load.sram) + 64'(width) * 64'(height) > 64'(depth(load.memory));

  always_ff @(posedge clk)
    if (rst) begin
      reading <= 1'b0;
      in_flight <= '0;
    end else begin
      in_flight <= in_flight + 8'(take_burst) - 8'(take_beat && response_last);
      if (start) begin
        reading <= !empty && load.y_size != 0;
        data_index <= 32'(load.sram) + 32'(load.y_pad_0) * width + 32'(load.x_pad_0);
        column <= 0;
        rows_left <= 32'(load.y_size);
        dropped <= '0;
        row_skew <= SKEW_BITS'(address);
        one_row <= merged;
      end else if (take_element) begin
        if (kept) data_index <= data_index + 1;
        column <= column + 1;
        dropped <= kept ? 2'(load.x_skip) : dropped - 1'b1;
        if (last_of_row) begin
          column <= 0;
          dropped <= '0;
          rows_left <= rows_left - 1;
          row_skew <= next_skew;
          data_index <= data_index + 1 + 32'(load.x_pad_0) + 32'(load.x_pad_1);
        end
        if (last_data) reading <= 1'b0;
      end
    end
endmodule
