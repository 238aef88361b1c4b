// The functions of `vta_float` as pins, for comparison with a C library.
module float_units
  import vta_float::*;
(
    input logic [31:0] a,
    input logic [31:0] b,
    input logic [31:0] c,
    input logic signed [9:0] low,
    input logic signed [9:0] high,
    output logic [31:0] multiplied,
    output logic [31:0] fused,
    output logic [31:0] converted,
    output logic signed [9:0] nearest
);
  assign multiplied = rounded_sum(product(a, b), widened(MINUS_ZERO));
  assign fused = rounded_sum(product(a, b), widened(c));
  assign converted = from_integer(a);
  assign nearest = to_integer(c, low, high);
endmodule
