// Tokens from one queue to its neighbour.
module vta_tokens (
    input logic clk,
    input logic rst,
    input logic push,
    input logic pop,
    output logic available,
    output logic overflow
);
  logic [7:0] count;
  assign available = count != 0;

  always_ff @(posedge clk)
    if (rst) begin
      count <= '0;
      overflow <= 1'b0;
    end else if (push && !pop) begin
      count <= count + 1'b1;
      overflow <= overflow || count == 8'hff;
    end else if (pop && !push) count <= count - 1'b1;
endmodule
