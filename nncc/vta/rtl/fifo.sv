// A queue in registers; its head is there without being asked for.
module vta_fifo #(
    parameter int WIDTH = 128,
    parameter int DEPTH = 32
) (
    input logic clk,
    input logic rst,
    input logic push,
    input logic [WIDTH-1:0] tail,
    output logic full,
    output logic valid,
    output logic [WIDTH-1:0] head,
    input logic pop
);
  localparam int BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;
  localparam int COUNT_BITS = $clog2(DEPTH + 1);
  logic [WIDTH-1:0] slots[DEPTH];
  logic [BITS-1:0] first, last;
  logic [COUNT_BITS-1:0] count;

  function automatic logic [BITS-1:0] after(logic [BITS-1:0] index);
    return index == BITS'(DEPTH - 1) ? '0 : index + 1'b1;
  endfunction

  assign full = count == COUNT_BITS'(DEPTH);
  assign valid = count != 0;
  assign head = slots[first];

  always_ff @(posedge clk)
    if (rst) begin
      first <= '0;
      last <= '0;
      count <= '0;
    end else begin
      if (push) begin
        slots[last] <= tail;
        last <= after(last);
      end
      if (pop) first <= after(first);
      count <= count + COUNT_BITS'(push) - COUNT_BITS'(pop);
    end
endmodule
