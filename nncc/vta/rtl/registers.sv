// What the host writes and reads, in words of 32 bits:
//
//    0  write 1: start; read: bit 0 running, bit 1 finished, bits 4 to 6 errors (unknown instruction, more than 255
//       tokens, index outside of a scratchpad)
//    1  cycles from the start to the end of FINISH   2  upper half
//    3  instructions of the program                  4  its address   5  upper half
//    6  longest burst in bytes                       7  requests in flight, for each client of a port
//    8 + 2 m  address of memory m's element 0        9 + 2 m  upper half
//   24 to 31  the hash of what programs have to be for, its lowest word first
module vta_registers
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic write,
    input logic [7:0] address,
    input logic [31:0] value,
    output logic [31:0] answer,

    output logic start,
    output logic running,
    input logic finish,
    input logic [2:0] errors,
    output logic [63:0] program_address,
    output logic [31:0] program_count,
    output logic [63:0] bases[8],
    output logic [12:0] burst_bytes,
    output logic [7:0] outstanding
);
  logic [63:0] cycles;
  logic finished;
  logic [2:0] found;

  always_comb
    case (address)
      8'd0: answer = {25'b0, found, 2'b0, finished, running};
      8'd1: answer = cycles[31:0];
      8'd2: answer = cycles[63:32];
      default: answer = address[7:3] == 5'd3 ? ISA_HASH[32*32'(address[2:0])+:32] : '0;
    endcase

  always_ff @(posedge clk)
    if (rst) begin
      start <= 1'b0;
      running <= 1'b0;
      finished <= 1'b0;
      found <= '0;
    end else begin
      start <= 1'b0;
      if (write && !running)
        case (address)
          8'd0: begin
            start <= 1'b1;
            running <= 1'b1;
            finished <= 1'b0;
            found <= '0;
          end
          8'd3: program_count <= value;
          8'd4: program_address[31:0] <= value;
          8'd5: program_address[63:32] <= value;
          8'd6: burst_bytes <= value[12:0];
          8'd7: outstanding <= value[7:0];
          default:
          if (address[7:3] == 5'd1 || address[7:3] == 5'd2) begin
            if (address[0]) bases[3'((address - 8'd8) >> 1)][63:32] <= value;
            else bases[3'((address - 8'd8) >> 1)][31:0] <= value;
          end
        endcase
      if (running) begin
        cycles <= start ? '0 : cycles + 1'b1;
        if (errors != 0) begin
          found <= errors;
          running <= 1'b0;
        end else if (finish) begin
          finished <= 1'b1;
          running <= 1'b0;
        end
      end
    end
endmodule
