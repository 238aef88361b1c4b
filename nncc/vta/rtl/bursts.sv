// Rows of bytes as bursts: none is longer than burst_bytes, none crosses 4 KiB, each but a row's last ends with a beat.
// Rows without gaps between them are one.
module vta_bursts
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic start,
    input logic [63:0] address,
    input logic [15:0] rows,
    input logic [31:0] row_bytes,
    input logic [31:0] stride_bytes,
    input logic [12:0] burst_bytes,
    output logic merged,  // of the rows that start
    output logic valid,
    output logic [63:0] burst_address,
    output logic [10:0] beats,
    input logic take
);
  localparam int BEAT_BITS = $clog2(BUS_BYTES);
  logic [63:0] row_address;
  logic [15:0] rows_left;
  logic [31:0] bytes_left;
  logic [31:0] whole_row;
  logic [31:0] stride;

  logic [12:0] room, page, bytes;
  logic [12:0] skew;
  assign skew = 13'(burst_address[BEAT_BITS-1:0]);
  assign page = 13'd4096 - {1'b0, burst_address[11:0]};
  assign room = page < burst_bytes - skew ? page : burst_bytes - skew;
  assign bytes = bytes_left < 32'(room) ? 13'(bytes_left) : room;
  assign beats = 11'((bytes + skew + 13'(BUS_BYTES - 1)) >> BEAT_BITS);
  assign valid = rows_left != 0;
  assign merged = stride_bytes == row_bytes;

  always_ff @(posedge clk)
    if (rst) rows_left <= '0;
    else if (start) begin
      row_address <= address;
      burst_address <= address;
      rows_left <= merged && rows != 0 ? 16'd1 : rows;
      bytes_left <= merged ? row_bytes * 32'(rows) : row_bytes;
      whole_row <= row_bytes;
      stride <= stride_bytes;
    end else if (take) begin
      if (bytes_left == 32'(bytes)) begin
        row_address <= row_address + 64'(stride);
        burst_address <= row_address + 64'(stride);
        rows_left <= rows_left - 1'b1;
        bytes_left <= whole_row;
      end else begin
        burst_address <= burst_address + 64'(bytes);
        bytes_left <= bytes_left - 32'(bytes);
      end
    end
endmodule
