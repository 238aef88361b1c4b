// The compute queue's work: GEMM and ALU in one pipeline, LOADs of micro-operations and sums.
//
// Stages: 0 the loops' place, its micro-operation is read; 1 indices; 2 INP, WGT and PAR are read, and ACC by RQ, QADD
// and MUL; 3 products of 8 bits, or the first stage of those; 4 and 5 sums of products; 5 ACC is read by all others;
// 6 the result is written to ACC and OUT. What stage 6 writes stage 5 reads in the same cycle, so that a GEMM may add to
// one sum in each cycle. RQ, QADD and MUL wait at stage 1 for a sum that is still on its way.
module vta_compute
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic [127:0] instruction,
    input logic start,
    output logic finished,
    output logic is_finish,
    output logic bad_index,
    output logic iterated,  // a product of vectors, or an ALU operation on vectors, has been written

    input logic [63:0] bases[8],
    input logic [12:0] burst_bytes,
    input logic [7:0] outstanding,
    output logic request_valid,
    output logic [63:0] request_address,
    output logic [10:0] request_beats,
    input logic request_ready,
    input logic response_valid,
    input logic [8*BUS_BYTES-1:0] response_data,
    input logic response_last,
    output logic response_ready,

    output logic inp_read,
    output logic [31:0] inp_index,
    input logic [BLOCK-1:0][7:0] inp,
    output logic wgt_read,
    output logic [31:0] wgt_index,
    input logic [BLOCK-1:0][BLOCK-1:0][7:0] wgt,
    output logic par_read,
    output logic [31:0] par_index,
    input logic [2*BLOCK-1:0][31:0] par,
    output logic out_write,
    output logic [31:0] out_index,
    output logic [BLOCK-1:0][7:0] out
);
  localparam int GROUPS = 4;  // of products that are summed in one cycle
  localparam int PARTIAL_BITS = 17 + $clog2(BLOCK / GROUPS);
  typedef logic signed [BLOCK-1:0][31:0] vector_t;

  finish_t head;
  gemm_t gemm, loops;
  alu_t alu;
  assign head = decode_finish(instruction);
  assign gemm = decode_gemm(instruction);
  assign alu = decode_alu(instruction);

  logic is_gemm, is_alu, is_load;
  assign is_gemm = head.opcode == OPCODE_GEMM;
  assign is_alu = head.opcode == OPCODE_ALU;
  assign is_load = head.opcode == OPCODE_LOAD;
  assign is_finish = head.opcode == OPCODE_FINISH;

  logic is_rq, is_mac, is_qadd, early, from_inp, from_acc;
  assign is_rq = HAS_RQ && is_alu && alu.alu_op == ALU_RQ;
  assign is_mac = HAS_MAC && is_alu && alu.alu_op == ALU_MAC;
  assign is_qadd = HAS_QADD && is_alu && alu.alu_op == ALU_QADD;
  assign early = is_rq || is_qadd || (is_alu && alu.alu_op == ALU_MUL);
  assign from_inp = is_mac || (HAS_FROM_INP && is_alu && alu.from_inp);
  assign from_acc = is_alu && !is_rq && !from_inp && !alu.use_imm;

  always_comb begin
    loops = gemm;
    if (is_alu) begin
      loops.uop_bgn = alu.uop_bgn;
      loops.uop_end = alu.uop_end;
      loops.iter_out = alu.iter_out;
      loops.iter_in = alu.iter_in;
      loops.dst_out = alu.dst_out;
      loops.dst_in = alu.dst_in;
      loops.src_out = alu.src_out;
      loops.src_in = alu.src_in;
      loops.wgt_out = '0;
      loops.wgt_in = '0;
    end
  end

  // LOAD
  logic load_finished, bad_load, load_write, load_padding;
  logic [2:0] load_memory;
  logic [31:0] load_index;
  logic [8*BYTES_ACC-1:0] load_element;
  load_t load;
  assign load = decode_load(instruction);
  vta_load #(
      .MOST_BYTES(BYTES_ACC)
  ) loader (
      .clk,
      .rst,
      .start(start && is_load),
      .load,
      .base(bases[load.memory]),
      .finished(load_finished),
      .bad_index(bad_load),
      .burst_bytes,
      .outstanding,
      .request_valid,
      .request_address,
      .request_beats,
      .request_ready,
      .response_valid,
      .response_data,
      .response_last,
      .response_ready,
      .write(load_write),
      .write_memory(load_memory),
      .write_index(load_index),
      .write_element(load_element),
      .write_padding(load_padding)
  );

  // Stages 0 and 1
  logic loops_valid, loops_second, loops_last, loops_none, advance, conflict;
  logic [31:0] uop_index, dst_offset, src_offset, wgt_offset;
  vta_loops places (
      .clk,
      .rst,
      .start(start && (is_gemm || is_alu)),
      .loops,
      .twice(from_acc),
      .advance,
      .valid(loops_valid),
      .second(loops_second),
      .uop_index,
      .dst(dst_offset),
      .src(src_offset),
      .wgt(wgt_offset),
      .last(loops_last),
      .none(loops_none)
  );

  logic [31:0] uop_word;
  vta_scratchpad #(
      .WIDTH(32),
      .DEPTH(DEPTH_UOP)
  ) uops (
      .clk,
      .write(load_write && load_memory == MEMORY_UOP),
      .write_index($clog2(DEPTH_UOP)'(load_index)),
      .write_data(load_element[8*BYTES_ACC-1-:32]),
      .read(loops_valid && advance),
      .read_index($clog2(DEPTH_UOP)'(uop_index)),
      .read_data(uop_word)
  );

  logic valid_1, second_1;
  logic [31:0] dst_offset_1, src_offset_1, wgt_offset_1, dst_1, src_1, wgt_1, acc_1;
  uop_t uop;
  assign uop = decode_uop(uop_word);
  assign dst_1 = dst_offset_1 + 32'(uop.dst);
  assign src_1 = src_offset_1 + 32'(uop.src);
  assign wgt_1 = wgt_offset_1 + 32'(uop.wgt);
  assign acc_1 = second_1 ? dst_1 : src_1;

  // Stages 2 to 6
  logic [6:2] valid, second;
  logic [31:0] dst[2:6];
  logic [31:0] acc_index[2:5];
  logic [31:0] src_2, wgt_2;
  always_comb begin
    conflict = 1'b0;
    for (int stage = 2; stage <= 4; stage++)
      if (valid[stage] && second[stage] && dst[stage] == acc_1) conflict = early;
    advance = !(valid_1 && conflict);
  end

  always_ff @(posedge clk)
    if (rst) begin
      valid_1 <= 1'b0;
      valid <= '0;
    end else begin
      if (advance) begin
        valid_1 <= loops_valid;
        second_1 <= loops_second;
        dst_offset_1 <= dst_offset;
        src_offset_1 <= src_offset;
        wgt_offset_1 <= wgt_offset;
      end
      valid <= {valid[5:2], valid_1 && advance};
      second <= {second[5:2], second_1};
      dst[2] <= dst_1;
      acc_index[2] <= acc_1;
      src_2 <= src_1;
      wgt_2 <= wgt_1;
      for (int stage = 3; stage <= 6; stage++) dst[stage] <= dst[stage-1];
      for (int stage = 3; stage <= 5; stage++) acc_index[stage] <= acc_index[stage-1];
    end

  assign inp_read = valid[2];
  assign inp_index = src_2;
  assign wgt_read = valid[2];
  assign wgt_index = wgt_2;
  assign par_read = HAS_PAR && valid[2];
  assign par_index = is_rq ? src_2 : wgt_2;

  logic wants_src, wants_wgt, bad_src, bad_wgt;
  assign wants_src = is_rq || from_acc || from_inp || (is_gemm && !gemm.reset);
  assign wants_wgt = is_mac || is_qadd || (is_gemm && !gemm.reset);
  assign bad_src = src_1 >= (is_rq ? 32'(DEPTH_PAR) : from_acc ? 32'(DEPTH_ACC) : 32'(DEPTH_INP));
  assign bad_wgt = wgt_1 >= (is_qadd ? 32'(DEPTH_PAR) : 32'(DEPTH_WGT));
  assign bad_index = bad_load || (start && (is_gemm || is_alu) && !loops_none && 32'(loops.uop_end) > 32'(DEPTH_UOP))
      || (valid_1 && (dst_1 >= 32'(DEPTH_ACC) || (wants_src && bad_src) || (wants_wgt && bad_wgt)));

  vector_t acc, result, loaded;
  logic acc_write;
  always_comb begin
    loaded = load_element;
    if (load_padding) loaded = '0;
    else if (load_memory == MEMORY_ACC8)
      for (int lane = 0; lane < BLOCK; lane++)
        loaded[lane] = 32'($signed(load_element[8*(BYTES_ACC-BYTES_ACC8+lane)+:8]));
  end
  assign acc_write = valid[6] && second[6];
  vta_scratchpad #(
      .WIDTH(32 * BLOCK),
      .DEPTH(DEPTH_ACC)
  ) sums (
      .clk,
      .write(acc_write || (load_write && load_memory != MEMORY_UOP)),
      .write_index($clog2(DEPTH_ACC)'(acc_write ? dst[6] : load_index)),
      .write_data(acc_write ? result : loaded),
      .read(early ? valid[2] : valid[5]),
      .read_index($clog2(DEPTH_ACC)'(early ? acc_index[2] : acc_index[5])),
      .read_data(acc)
  );

  vector_t source;  // what ACC[src] was
  always_ff @(posedge clk) if (early ? valid[3] && !second[3] : valid[6] && !second[6]) source <= acc;

  // Stage 3
  vector_t early_b, operand_4, operand_5, operand_6, multiplied_4, multiplied_5, multiplied_6;
  logic [BLOCK-1:0][GROUPS-1:0][PARTIAL_BITS-1:0] partial;
  always_comb
    for (int lane = 0; lane < BLOCK; lane++)
      early_b[lane] = from_acc ? source[lane] : from_inp ? 32'($signed(inp[lane])) : 32'($signed(alu.imm));

  always_ff @(posedge clk)
    if (valid[3]) begin
      if (is_gemm) begin
        for (int lane = 0; lane < BLOCK; lane++)
          for (int group = 0; group < GROUPS; group++) begin
            automatic logic signed [PARTIAL_BITS-1:0] sum = '0;
            for (int tap = group * BLOCK / GROUPS; tap < (group + 1) * BLOCK / GROUPS; tap++)
              sum = sum + PARTIAL_BITS'($signed(inp[tap])) * PARTIAL_BITS'($signed(wgt[lane][tap]));
            partial[lane][group] <= sum;
          end
      end else
        for (int lane = 0; lane < BLOCK; lane++)
          if (is_mac) operand_4[lane] <= 32'($signed(inp[lane])) * 32'($signed(wgt[alu.imm[$clog2(BLOCK)-1:0]][lane]));
          else if (early) multiplied_4[lane] <= 32'($signed(acc[lane]) * $signed(early_b[lane]));
          else operand_4[lane] <= early_b[lane];
    end

  // Stages 4 and 5
  logic [BLOCK-1:0][31:0] float_6;
  always_ff @(posedge clk) begin
    if (valid[4]) begin
      operand_5 <= operand_4;
      multiplied_5 <= multiplied_4;
      if (is_gemm)
        for (int lane = 0; lane < BLOCK; lane++) begin
          automatic logic signed [31:0] sum = '0;
          for (int group = 0; group < GROUPS; group++) sum = sum + 32'($signed(partial[lane][group]));
          operand_5[lane] <= sum;
        end
    end
    if (valid[5]) begin
      operand_6 <= operand_5;
      multiplied_6 <= multiplied_5;
    end
  end

  if (HAS_RQ || HAS_QADD) begin : float
    logic [2*BLOCK-1:0][31:0] par_4;
    always_ff @(posedge clk) if (valid[3]) par_4 <= par;
    for (genvar lane = 0; lane < BLOCK; lane++) begin : lanes
      vta_float_lane unit (
          .clk,
          .valid((is_rq || is_qadd) ? valid[5:3] : 3'b0),
          .is_sum(is_qadd),
          .swapped(alu.imm[0]),
          .zero(alu.imm[7:0]),
          .clamp_at_zero(alu.imm[8]),
          .a(acc[lane]),
          .b(early_b[lane]),
          .bias(par[lane]),
          .scale(par_4[BLOCK+lane]),
          .ratio_a(par_4[BLOCK]),
          .ratio_b(par_4[BLOCK+1]),
          .fixed(par_4[BLOCK+2]),
          .result(float_6[lane])
      );
    end
  end else assign float_6 = '0;

  // Stage 6
  function automatic logic signed [31:0] shifted(logic signed [31:0] a, logic signed [31:0] b);
    logic [31:0] left = -b;
    if (b >= 0) return a >>> (b > 31 ? 31 : b);
    return left > 31 ? '0 : a << left;
  endfunction

  function automatic logic signed [31:0] combined(logic signed [31:0] a, logic signed [31:0] b);
    if (is_gemm) return gemm.reset ? '0 : HAS_OVERWRITE && gemm.overwrite ? b : a + b;
    if (early || (HAS_OVERWRITE && alu.overwrite)) return b;
    if (is_mac) return a + b;
    case (alu.alu_op)
      ALU_MIN: return a < b ? a : b;
      ALU_MAX: return a > b ? a : b;
      ALU_SHR: return shifted(a, b);
      default: return a + b;
    endcase
  endfunction

  always_comb begin
    result = '0;
    if (acc_write)
      for (int lane = 0; lane < BLOCK; lane++)
        result[lane] = combined(
            acc[lane],
            is_rq || is_qadd ? float_6[lane] : early ? multiplied_6[lane] : from_acc ? source[lane] : operand_6[lane]);
  end

  assign iterated = acc_write;
  assign out_write = acc_write && !(is_gemm && gemm.reset);
  assign out_index = dst[6];
  always_comb for (int lane = 0; lane < BLOCK; lane++) out[lane] = result[lane][7:0];

  // The end: so many cycles after the last place of the loops, if there is one.
  logic [$clog2(PIPELINE_CYCLES+1)-1:0] draining;
  always_ff @(posedge clk)
    if (rst) draining <= '0;
    else if (loops_valid && advance && loops_last)
      draining <= $bits(draining)'(PIPELINE_CYCLES);
    else if (draining != 0) draining <= draining - 1'b1;

  assign finished = is_load ? load_finished : start ? is_finish || loops_none : draining == 1;
endmodule
