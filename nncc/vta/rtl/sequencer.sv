// Takes the instructions of one queue in order: waits for an instruction and its tokens, issues it, waits for its end,
// gives tokens.
//
// An instruction that is taken in cycle t begins its work in cycle t + ISSUE_CYCLES; `start` is high in the cycle
// before. `finished` comes in the last cycle of its work, or together with `start` where there is none; the next one is
// taken in the cycle after.
module vta_sequencer
  import vta_machine::*;
(
    input logic clk,
    input logic rst,
    input logic valid,
    input logic [127:0] head,
    output logic pop,
    input logic previous_has_token,
    input logic next_has_token,
    output logic pop_previous,
    output logic pop_next,
    output logic push_previous,
    output logic push_next,
    output logic [127:0] instruction,
    output logic start,
    input logic finished,
    output logic retired,
    output logic [2:0] waits  // for an instruction, for a token of the previous queue, of the next one
);
  typedef enum logic [1:0] {
    WAIT,
    ISSUE,
    WORK
  } state_t;
  state_t state;
  logic [$clog2(ISSUE_CYCLES+1)-1:0] remaining;

  // Dependences are at the same place in every kind of instruction.
  finish_t wanted, given;
  assign wanted = decode_finish(head);
  assign given = decode_finish(instruction);

  logic idle, lacks_previous, lacks_next;
  assign idle = state == WAIT;
  assign lacks_previous = wanted.pop_prev && !previous_has_token;
  assign lacks_next = wanted.pop_next && !next_has_token;
  assign waits = {idle && valid && !lacks_previous && lacks_next, idle && valid && lacks_previous, idle && !valid};
  assign pop = idle && valid && !lacks_previous && !lacks_next;
  assign pop_previous = pop && wanted.pop_prev;
  assign pop_next = pop && wanted.pop_next;

  assign start = state == ISSUE && remaining == 0;
  assign retired = (start || state == WORK) && finished;
  assign push_previous = retired && given.push_prev;
  assign push_next = retired && given.push_next;

  always_ff @(posedge clk)
    if (rst) state <= WAIT;
    else
      case (state)
        WAIT:
        if (pop) begin
          instruction <= head;
          remaining <= $bits(remaining)'(ISSUE_CYCLES - 2);
          state <= ISSUE;
        end
        ISSUE: begin
          remaining <= remaining - 1'b1;
          if (remaining == 0) state <= finished ? WAIT : WORK;
        end
        default: if (finished) state <= WAIT;
      endcase
endmodule
