// One lane of RQ and QADD, from the operands to the number that is written, in three cycles.
module vta_float_lane
  import vta_float::*;
(
    input logic clk,
    input logic [2:0] valid,  // in each of the stages
    input logic is_sum,  // QADD, else RQ; as all of what follows steady during an instruction
    input logic swapped,
    input logic signed [7:0] zero,
    input logic clamp_at_zero,
    // First stage.
    input logic [31:0] a,
    input logic [31:0] b,
    input logic [31:0] bias,
    // Second stage.
    input logic [31:0] scale,
    input logic [31:0] ratio_a,
    input logic [31:0] ratio_b,
    input logic [31:0] fixed,
    output logic [31:0] result
);
  logic signed [9:0] low, high, offset;
  always_comb
    if (is_sum) begin
      low = 10'sd0;
      high = 10'sd255;
      offset = -10'sd128;
    end else begin
      offset = 10'(zero);
      low = clamp_at_zero ? 10'sd0 : -10'sd128 - offset;
      high = 10'sd127 - offset;
    end

  logic [31:0] x, y, addend;
  exact_t outer;
  logic signed [9:0] nearest;
  assign result = 32'(signed'(10'(nearest + offset)));
  always_ff @(posedge clk) begin
    if (valid[0]) begin
      x <= from_integer(is_sum ? a + 32'd128 : a + bias);
      if (is_sum) y <= from_integer(b + 32'd128);
    end
    if (valid[1]) begin
      if (!is_sum) begin
        outer <= product(x, scale);
        addend <= MINUS_ZERO;
      end else if (swapped) begin
        outer <= product(y, ratio_b);
        addend <= rounded_sum(product(x, ratio_a), widened(fixed));
      end else begin
        outer <= product(x, ratio_a);
        addend <= rounded_sum(product(y, ratio_b), widened(fixed));
      end
    end
    if (valid[2]) nearest <= to_integer(rounded_sum(outer, widened(addend)), low, high);
  end
endmodule
