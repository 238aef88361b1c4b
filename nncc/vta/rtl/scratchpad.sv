// A memory with one port to write and one to read; what is written while it is read is what is read.
module vta_scratchpad #(
    parameter int WIDTH = 128,
    parameter int DEPTH = 2048,
    localparam int BITS = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input logic clk,
    input logic write,
    input logic [BITS-1:0] write_index,
    input logic [WIDTH-1:0] write_data,
    input logic read,
    input logic [BITS-1:0] read_index,
    output logic [WIDTH-1:0] read_data
);
  logic [WIDTH-1:0] elements[DEPTH];

  always_ff @(posedge clk) begin
    if (write) elements[write_index] <= write_data;
    if (read) read_data <= write && write_index == read_index ? write_data : elements[read_index];
  end
endmodule
