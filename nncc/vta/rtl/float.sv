// Numbers of IEEE 754 binary32, rounded to nearest with ties to even, subnormal ones included; a NaN is 7fc00000.
//
// A fused multiply-add is `rounded_sum(product(a, b), widened(c))`: the exact product, the addend in the same form, and
// their sum rounded once. A product alone has the addend -0, which changes neither its value nor its sign.
package vta_float;
  localparam logic [31:0] NAN = 32'h7fc00000;
  localparam logic [31:0] MINUS_ZERO = 32'h80000000;

  // (-1)^sign * mantissa * 2^exponent; unless it is zero, one of the two uppermost bits of the mantissa is set.
  typedef struct packed {
    logic sign;
    logic nan;
    logic infinite;
    logic signed [10:0] exponent;
    logic [47:0] mantissa;
  } exact_t;

  // Significand of 24 bits whose uppermost is set unless it is zero; the value is significand * 2^exponent.
  typedef struct packed {
    logic sign;
    logic nan;
    logic infinite;
    logic signed [10:0] exponent;
    logic [23:0] significand;
  } normal_t;

  function automatic logic [5:0] leading_zeros(logic [63:0] value);  // which is not 0
    logic [63:0] rest = value;
    logic [5:0] zeros = '0;
    for (int bits = 5; bits >= 0; bits--)
      if (rest >> (64 - (1 << bits)) == 0) begin
        zeros = zeros | 6'd1 << bits;
        rest = rest << (1 << bits);
      end
    return zeros;
  endfunction

  function automatic normal_t normal(logic [31:0] value);
    normal_t result;
    logic [5:0] zeros;
    result.sign = value[31];
    result.nan = value[30:23] == 8'hff && value[22:0] != 0;
    result.infinite = value[30:23] == 8'hff && value[22:0] == 0;
    if (value[30:23] != 0) begin
      result.significand = {1'b1, value[22:0]};
      result.exponent = $signed({3'b0, value[30:23]}) - 11'sd150;
    end else begin
      zeros = leading_zeros({1'b0, value[22:0], 40'b0});
      result.significand = {1'b0, value[22:0]} << zeros;
      result.exponent = -11'sd149 - $signed({5'b0, zeros});
    end
    return result;
  endfunction

  function automatic exact_t product(logic [31:0] a, logic [31:0] b);
    /* verilator no_inline_task */
    exact_t result;
    normal_t x = normal(a);
    normal_t y = normal(b);
    logic x_zero = a[30:0] == 0;
    logic y_zero = b[30:0] == 0;
    result.sign = x.sign ^ y.sign;
    result.nan = x.nan || y.nan || (x.infinite && y_zero) || (y.infinite && x_zero);
    result.infinite = x.infinite || y.infinite;
    result.exponent = x.exponent + y.exponent;
    result.mantissa = {24'b0, x.significand} * {24'b0, y.significand};
    return result;
  endfunction

  function automatic exact_t widened(logic [31:0] value);
    exact_t result;
    normal_t x = normal(value);
    result.sign = x.sign;
    result.nan = x.nan;
    result.infinite = x.infinite;
    result.exponent = x.exponent - 11'sd24;
    result.mantissa = {x.significand, 24'b0};
    return result;
  endfunction

  // The nearest number to (-1)^sign * mantissa * 2^exponent; the lowest bit stands for all that is below it.
  function automatic logic [31:0] rounded(logic sign, logic [52:0] mantissa, logic signed [11:0] exponent);
    logic [5:0] zeros;
    logic [52:0] aligned;
    logic signed [11:0] leading;
    logic signed [11:0] below;
    logic [7:0] biased;
    logic up;
    zeros = leading_zeros({mantissa, 11'b0});
    aligned = mantissa << zeros;
    leading = exponent + 12'sd52 - $signed({6'b0, zeros});
    if (leading > 12'sd127) return {sign, 8'hff, 23'b0};
    biased = 8'(leading + 12'sd127);
    below = -12'sd126 - leading;
    if (below > 12'sd0) begin  // subnormal: its last bit has a fixed place
      biased = 8'd0;
      aligned = below > 12'sd52 ? 53'd1 : (aligned >> below) | {52'b0, (aligned << (12'sd53 - below)) != 0};
    end
    up = aligned[28] && (aligned[27:0] != 0 || aligned[29]);
    // The carry goes from the fraction into the exponent, up to infinity, as the encoding wants it.
    return {sign, {biased, aligned[51:29]} + {30'b0, up}};
  endfunction

  function automatic logic [31:0] rounded_sum(exact_t x, exact_t y);
    /* verilator no_inline_task */
    exact_t greater = x;
    exact_t lesser = y;
    logic [11:0] distance;
    logic [52:0] upper;
    logic [52:0] lower;
    logic [52:0] sum;
    logic sign;
    if (x.nan || y.nan || (x.infinite && y.infinite && x.sign != y.sign)) return NAN;
    if (x.infinite) return {x.sign, 8'hff, 23'b0};
    if (y.infinite) return {y.sign, 8'hff, 23'b0};
    if (x.mantissa == 0 && y.mantissa == 0) return {x.sign && y.sign, 31'b0};
    if (x.mantissa == 0 || (y.mantissa != 0 && y.exponent > x.exponent)) begin
      greater = y;
      lesser = x;
    end
    // Four more bits below: where more are shifted out, at most one bit is lost above.
    upper = {1'b0, greater.mantissa, 4'b0};
    lower = {1'b0, lesser.mantissa, 4'b0};
    distance = {greater.exponent[10], greater.exponent} - {lesser.exponent[10], lesser.exponent};
    if (lesser.mantissa == 0) lower = 53'd0;
    else if (distance > 12'd52) lower = 53'd1;
    else lower = (lower >> distance) | {52'b0, (lower << (12'd53 - distance)) != 0};
    sign = greater.sign;
    if (greater.sign == lesser.sign) sum = upper + lower;
    else begin
      sum = upper - lower;
      if (lower > upper) begin
        sum = lower - upper;
        sign = lesser.sign;
      end
    end
    if (sum == 0) return 32'b0;
    return rounded(sign, sum, {greater.exponent[10], greater.exponent} - 12'sd4);
  endfunction

  function automatic logic [31:0] from_integer(logic signed [31:0] value);
    /* verilator no_inline_task */
    if (value == 0) return 32'b0;
    return rounded(value[31], {value[31] ? 32'(-value) : value, 21'b0}, -12'sd21);
  endfunction

  // The nearest integer to value, ties to even, between low and high; low where value is NaN.
  function automatic logic signed [9:0] to_integer(
      logic [31:0] value, logic signed [9:0] low, logic signed [9:0] high);
    /* verilator no_inline_task */
    logic [32:0] fixed;  // 9 bits of the integer and 24 of the fraction
    logic signed [9:0] integer_part;
    logic up;
    if (value[30:23] == 8'hff && value[22:0] != 0) return low;
    if (value[30:23] >= 8'd136) return value[31] ? low : high;  // 512 or more
    if (value[30:23] < 8'd126) fixed = 33'd0;  // less than a half
    else fixed = {8'b0, 1'b1, value[22:0], 1'b0} << (value[30:23] - 8'd127);
    if (value[30:23] == 8'd126) fixed = {9'b0, 1'b1, value[22:0]};
    up = fixed[23] && (fixed[22:0] != 0 || fixed[24]);
    integer_part = $signed({1'b0, fixed[32:24]} + {9'b0, up});
    // 511.5 and more would need a bit more; they are above every bound as 511 is.
    if (integer_part < 0) integer_part = 10'sd511;
    if (value[31]) integer_part = -integer_part;
    if (integer_part < low) return low;
    return integer_part < high ? integer_part : high;
  endfunction
endpackage
