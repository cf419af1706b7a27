"""Verilog-2005 of a pipeline, synthesizable, and a testbench for it."""

from typing import Any

from cimphony.hardware.pipeline import OPERATIONS, Pipeline, Step


def module(pipeline: Pipeline) -> str:
    """The module: clk, x in, y out after `latency` clock cycles. No reset: what was in flight at power-up is noise."""
    width = pipeline.bits
    lines = [
        f"// {pipeline.name}: {pipeline.latency} stages, one result every clock cycle",
        f"module {pipeline.name} (",
        "  input wire clk,",
        f"  input wire signed [{pipeline.input_bits - 1}:0] x,",
        f"  output wire signed [{width[pipeline.output] - 1}:0] y",
        ");",
    ]
    for at, stage in enumerate(pipeline.stages):
        lines.append(f"  // stage {at + 1}: {stage.name}")
        made = {step.name for step in stage.steps} | ({"x"} if at == 0 else set())
        for step in stage.steps:
            lines += _table(step) if step.operation == "table" else []
            expression = _expression(step, at, made)
            lines.append(f"  wire signed [{step.bits - 1}:0] {step.name} = {expression};")
        kept = pipeline.live(at)
        lines += [f"  reg signed [{width[name] - 1}:0] {name}_{at + 1};" for name in kept]
        moves = " ".join(f"{name}_{at + 1} <= {_named(name, at, made)};" for name in kept)
        lines.append(f"  always @(posedge clk) begin {moves} end")
    return "\n".join([*lines, f"  assign y = {pipeline.output}_{pipeline.latency};", "endmodule", ""])


def _named(operand: Any, at: int, made: set[str]) -> str:
    """An operand in stage `at`: a wire of this stage, the register before it, or a literal."""
    if isinstance(operand, str):
        return operand if operand in made else f"{operand}_{at}"
    bits = max(int(operand).bit_length(), 1) + 1
    return f"{bits}'sd{operand}" if operand >= 0 else f"-{bits}'sd{-operand}"


def _expression(step: Step, at: int, made: set[str]) -> str:
    operands = [f"{step.name}_rom" if isinstance(one, tuple) else _named(one, at, made) for one in step.operands]
    return OPERATIONS[step.operation][1].format(*operands)


def _table(step: Step) -> list[str]:
    values: tuple[int, ...] = step.operands[1]
    rom = f"{step.name}_rom"
    filled = " ".join(f"{rom}[{at}] = {_named(value, 0, set())};" for at, value in enumerate(values))
    return [f"  reg signed [{step.bits - 1}:0] {rom} [0:{len(values) - 1}];", f"  initial begin {filled} end"]


def testbench(pipeline: Pipeline, count: int) -> str:
    """Feeds `count` inputs from inputs.hex, one every clock cycle, and prints each result as a decimal."""
    latency, bits = pipeline.latency, pipeline.input_bits
    return f"""module testbench;
  reg clk = 0;
  reg signed [{bits - 1}:0] x = 0;
  wire signed [{pipeline.bits[pipeline.output] - 1}:0] y;
  reg [{bits - 1}:0] inputs [0:{count - 1}];
  integer i;
  {pipeline.name} unit (.clk(clk), .x(x), .y(y));
  initial begin
    $readmemh("inputs.hex", inputs);
    for (i = 0; i < {count + latency - 1}; i = i + 1) begin
      if (i < {count}) x = inputs[i];
      #1 clk = 1;
      #1 if (i >= {latency - 1}) $display("%0d", y);
      clk = 0;
    end
    $finish;
  end
endmodule
"""
