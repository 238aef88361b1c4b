// The places of a LOAD's padding, one each cycle in which it may write: above, left and right of each row, below.
module vta_padding
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic start,
    input load_t load,
    input logic [31:0] width,  // of a row with its padding
    output logic valid,
    output logic [31:0] index,
    input logic take,
    output logic last  // this is the last one
);
  logic [31:0] column, columns, left, skipped, data_rows_size;
  logic [31:0] row, rows, first, behind;
  logic none_beside;

  logic [31:0] next_row, next_column, next_index;
  logic beside;
  assign beside = row >= first && row < behind;
  assign last = next_row >= rows;

  always_comb begin
    next_row = row;
    next_column = column + 1;
    next_index = index + 1;
    if (beside && next_column == left) begin  // over the data
      next_column = next_column + skipped;
      next_index = next_index + skipped;
    end
    if (next_column >= columns) begin
      next_row = row + 1;
      next_column = 0;
      if (next_row >= first && next_row < behind) begin
        if (none_beside) begin
          next_row = behind;
          next_index = next_index + data_rows_size;
        end else if (left == 0) begin
          next_column = skipped;
          next_index = next_index + skipped;
        end
      end
    end
  end

  logic [31:0] y_pad_0, y_size, x_pad_0;
  assign y_pad_0 = 32'(load.y_pad_0);
  assign y_size = 32'(load.y_size);
  assign x_pad_0 = 32'(load.x_pad_0);

  always_ff @(posedge clk)
    if (rst) valid <= 1'b0;
    else if (start) begin
      columns <= width;
      left <= x_pad_0;
      skipped <= 32'(load.x_size);
      first <= y_pad_0;
      behind <= y_pad_0 + y_size;
      rows <= y_pad_0 + y_size + 32'(load.y_pad_1);
      data_rows_size <= y_size * width;
      none_beside <= load.x_pad_0 == 0 && load.x_pad_1 == 0;
      valid <= {load.y_pad_0, load.y_pad_1} != 0 || ({load.x_pad_0, load.x_pad_1} != 0 && load.y_size != 0);
      row <= 0;
      column <= 0;
      index <= 32'(load.sram);
      if (load.y_pad_0 == 0) begin
        if (load.x_pad_0 == 0 && load.x_pad_1 == 0) begin
          row <= y_size;
          index <= 32'(load.sram) + y_size * width;
        end else if (load.x_pad_0 == 0 && load.y_size != 0) begin
          column <= 32'(load.x_size);
          index <= 32'(load.sram) + 32'(load.x_size);
        end
      end
    end else if (take) begin
      row <= next_row;
      column <= next_column;
      index <= next_index;
      valid <= !last;
    end
endmodule
