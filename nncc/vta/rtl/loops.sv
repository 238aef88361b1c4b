// The loops of a GEMM or ALU instruction: for outer, for inner, for each micro-operation, and for each of these one
// place or, where `twice`, two: the source's and then the destination's.
module vta_loops
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic start,
    input gemm_t loops,
    input logic twice,
    input logic advance,
    output logic valid,
    output logic second,  // or the only one
    output logic [31:0] uop_index,
    // What the loops add to the micro-operation's indices.
    output logic [31:0] dst,
    output logic [31:0] src,
    output logic [31:0] wgt,
    output logic last,
    output logic none
);
  logic [31:0] outer, inner;
  logic [31:0] outer_dst, outer_src, outer_wgt;
  logic last_uop, last_inner, last_outer;

  assign none = 32'(loops.uop_bgn) >= 32'(loops.uop_end) || loops.iter_out == 0 || loops.iter_in == 0;
  assign last_uop = uop_index + 1 == 32'(loops.uop_end);
  assign last_inner = inner + 1 == 32'(loops.iter_in);
  assign last_outer = outer + 1 == 32'(loops.iter_out);
  assign last = second && last_uop && last_inner && last_outer;

  always_ff @(posedge clk)
    if (rst) valid <= 1'b0;
    else if (start) begin
      valid <= !none;
      second <= !twice;
      uop_index <= 32'(loops.uop_bgn);
      {outer, inner} <= '0;
      {dst, src, wgt} <= '0;
      {outer_dst, outer_src, outer_wgt} <= '0;
    end else if (valid && advance) begin
      valid <= !last;
      second <= !twice || !second;
      if (second) begin
        uop_index <= last_uop ? 32'(loops.uop_bgn) : uop_index + 1;
        if (last_uop) begin
          inner <= last_inner ? 0 : inner + 1;
          if (last_inner) begin
            outer <= outer + 1;
            outer_dst <= outer_dst + 32'(loops.dst_out);
            outer_src <= outer_src + 32'(loops.src_out);
            outer_wgt <= outer_wgt + 32'(loops.wgt_out);
            dst <= outer_dst + 32'(loops.dst_out);
            src <= outer_src + 32'(loops.src_out);
            wgt <= outer_wgt + 32'(loops.wgt_out);
          end else begin
            dst <= dst + 32'(loops.dst_in);
            src <= src + 32'(loops.src_in);
            wgt <= wgt + 32'(loops.wgt_in);
          end
        end
      end
    end
endmodule
