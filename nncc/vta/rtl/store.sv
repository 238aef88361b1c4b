// STORE: elements of OUT, dense, become rows in memory. A burst's address goes with its first beat.
module vta_store
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic start,
    input store_t store,
    input logic [63:0] base,  // of the memory, in bytes
    output logic finished,  // the last response is there
    output logic bad_index,
    input logic [12:0] burst_bytes,
    input logic [7:0] outstanding,

    output logic read,
    output logic [31:0] read_index,
    input logic [8*BYTES_OUT-1:0] read_element,

    output logic address_valid,
    output logic [63:0] address,
    output logic [10:0] beats,
    output logic data_valid,
    output logic [8*BUS_BYTES-1:0] data,
    input logic ready,  // for the address, where there is one, and the data
    input logic response
);
  localparam int BEATS = BYTES_OUT / BUS_BYTES;
  localparam int SHIFT = $clog2(BYTES_OUT);

  logic empty;
  logic [31:0] count;
  assign empty = store.x_size == 0 || store.y_size == 0;
  assign count = 32'(store.x_size) * 32'(store.y_size);
  assign bad_index = start && !empty && 64'(store.sram) + 64'(count) > 64'(DEPTH_OUT);

  logic burst_valid, take_burst, merged;
  vta_bursts bursts (
      .clk,
      .rst,
      .start(start && !empty),
      .address(base + (64'(store.dram) << SHIFT)),
      .rows(store.y_size),
      .row_bytes(32'(store.x_size) << SHIFT),
      .stride_bytes(32'(store.x_stride) << SHIFT),
      .burst_bytes,
      .merged,
      .valid(burst_valid),
      .burst_address(address),
      .beats,
      .take(take_burst)
  );

  logic writing, take_beat, last_beat_of_element, last;
  logic [31:0] index, elements_left;
  logic [7:0] in_flight;
  logic [10:0] beats_left;  // of a burst whose address has been taken
  logic [$clog2(BEATS+1)-1:0] beat;

  assign address_valid = writing && beats_left == 0 && burst_valid && in_flight < outstanding;
  assign data_valid = writing && (beats_left != 0 || address_valid);
  assign take_beat = data_valid && ready;
  assign take_burst = address_valid && ready;
  assign last_beat_of_element = beat == $bits(beat)'(BEATS - 1);
  assign data = read_element[8*BUS_BYTES*32'(beat)+:8*BUS_BYTES];

  // OUT answers in the next cycle: the first element is asked for with `start`, each other one with the last beat.
  assign read = start || (take_beat && last_beat_of_element);
  assign read_index = start ? 32'(store.sram) : index;
  assign last = take_beat && last_beat_of_element && elements_left == 1;
  assign finished = start ? empty : (!writing || last) && in_flight + 8'(take_burst) == 8'(response);

  always_ff @(posedge clk)
    if (rst) begin
      writing <= 1'b0;
      in_flight <= '0;
      beats_left <= '0;
    end else begin
      in_flight <= in_flight + 8'(take_burst) - 8'(response);
      if (start) begin
        writing <= !empty;
        index <= 32'(store.sram) + 1;
        elements_left <= count;
        beat <= '0;
      end else if (take_beat) begin
        beats_left <= (take_burst ? beats : beats_left) - 1'b1;
        beat <= last_beat_of_element ? '0 : beat + 1'b1;
        if (last_beat_of_element) begin
          index <= index + 1;
          elements_left <= elements_left - 1;
          writing <= !last;
        end
      end
    end
endmodule
