// Beats of rows as elements, which are powers of two in bytes. An element that takes several beats comes with its last
// one; of a beat with several elements one comes each cycle. It stands in the uppermost bytes of `element`. What follows
// a row's last element in its beat is dropped.
module vta_elements
  import vta_machine::*;
#(
    parameter int MOST_BYTES = 256
) (
    input logic clk,
    input logic start,
    input logic [12:0] element_bytes,
    input logic [$clog2(BUS_BYTES)-1:0] skew,  // where in its first beat the first row begins
    input logic [$clog2(BUS_BYTES)-1:0] next_skew,  // and the next one
    input logic beat_valid,
    input logic [8*BUS_BYTES-1:0] beat,
    output logic beat_ready,
    output logic element_valid,
    output logic [8*MOST_BYTES-1:0] element,
    input logic last_of_row
);
  logic [8*MOST_BYTES-1:0] earlier;
  logic [12:0] filled;  // bytes of the element that are in `earlier`, or of the beat that have been taken
  logic [8*MOST_BYTES-1:0] joined;
  logic small_elements, whole_beat;

  if (MOST_BYTES == BUS_BYTES) assign joined = beat;
  else assign joined = {beat, earlier[8*MOST_BYTES-1:8*BUS_BYTES]};
  assign small_elements = element_bytes < 13'(BUS_BYTES);
  assign whole_beat = filled + element_bytes == 13'(BUS_BYTES);

  always_comb begin
    element = joined;
    if (small_elements) begin
      element = '0;
      element[8*MOST_BYTES-1-:32] = beat[8*32'(filled)+:32];  // only micro-operations are that small
    end
    element_valid = beat_valid && (small_elements || filled + 13'(BUS_BYTES) == element_bytes);
    beat_ready = !small_elements || whole_beat || last_of_row;
  end

  always_ff @(posedge clk)
    if (start) filled <= element_bytes < 13'(BUS_BYTES) ? 13'(skew) : '0;
    else if (beat_valid) begin
      earlier <= joined;
      if (small_elements) filled <= last_of_row ? 13'(next_skew) : whole_beat ? '0 : filled + element_bytes;
      else filled <= element_valid ? '0 : filled + 13'(BUS_BYTES);
    end
endmodule
