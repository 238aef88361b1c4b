"""The hot loops of Arm's kernels, read from the assembly: nothing spilled, multiply-adds at the processor's pace."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from compiled import Net
from quantized import QuantizedNet

import nncc

TARGETS = {"rpi4": "cortex-a72", "rpi5": "cortex-a76"}
MULTIPLY_ADD = re.compile(r"\tfmla\b")
JUMP = re.compile(r"\t(?:b\.\w+|b|cbn?z\s+\w+,|tbn?z\s+\w+,\s*#\d+,)\s+(\.L\w+)")


@pytest.fixture(scope="module", params=TARGETS)
def kernels(request, tmp_path_factory):
    """A processor, and by kernel the instructions of its innermost loops that are mostly multiply-adds."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 64, 64), 3, 32, (7, 7), strides=(2, 2), pads=[3] * 4))
    x = net.op("Relu", net.conv(x, 32, 64, (3, 3), pads=[1] * 4))
    x = net.op("Relu", net.conv(x, 64, 96, (3, 3), strides=(2, 2), pads=[1] * 4))
    x = net.op("Clip", net.conv(x, 96, 100, (1, 1)), net.constant(0, np.float32), net.constant(6, np.float32))
    x = net.op("Reshape", x, net.ints(160, 160))
    net.output(net.op("MatMul", x, net.weight(160, 120)))
    x, gates = net.input(4, 8, 20), 4 * 64
    net.output(net.op("LSTM", x, net.weight(1, gates, 20), net.weight(1, gates, 64), hidden_size=64))
    folder = tmp_path_factory.mktemp("arm")
    net.save(folder / "net.onnx")
    nncc.compile(
        folder / "net.onnx", request.param, output=folder, threads=1, verify=False, emit=["o"], dump_code=["asm"]
    )
    (assembly,) = folder.glob("*.asm")
    found = {}
    for name, lines in functions(assembly.read_text()).items():
        loops = [loop for loop in innermost_loops(lines) if multiply_adds(loop) > len(loop) / 2]
        if loops:
            found[name] = loops
    return TARGETS[request.param], found


PRODUCT = {"rpi4": r"\t(?:smull|smlal)\b", "rpi5": r"\tsdot\b"}
"""The instruction of integers: 8 products, or 16."""


@pytest.fixture(scope="module", params=TARGETS)
def integer_kernels(request, tmp_path_factory):
    """A target, and by kernel of a quantized model the instructions of its innermost loops of integer products; beside
    them all of the assembly."""
    net = QuantizedNet("int8")
    x = net.quantized(net.input(1, 32, 32, 32), 0.05)
    x = net.quantized_conv(x, 32, 64, (5, 5), pads=[2] * 4)  # 3x3 may be predicted to be faster as floats' Winograd
    x = net.quantized_conv(x, 64, 96, (3, 3), strides=(2, 2), pads=[1] * 4)
    x = net.quantized_conv(x, 96, 128, (1, 1))
    x = net.quantized(net.op("Reshape", x, net.ints(256, 128)), 0.05)
    net.output(net.quantized_matmul(x, 128, 96))
    folder = tmp_path_factory.mktemp("integers")
    net.save(folder / "net.onnx")
    nncc.compile(
        folder / "net.onnx", request.param, output=folder, threads=1, verify=False, emit=["o"], dump_code=["asm"]
    )
    (path,) = folder.glob("*.asm")
    assembly, found = path.read_text(), {}
    for name, lines in functions(assembly).items():
        loops = [loop for loop in innermost_loops(lines) if products(loop, request.param) > len(loop) / 3]
        if loops:
            found[name] = loops
    return request.param, found, assembly


def products(loop, target):
    return sum(bool(re.match(PRODUCT[target], line)) for line in loop)


def test_each_kind_of_integer_product_has_a_hot_loop(integer_kernels):
    _, found, _ = integer_kernels
    assert sum("conv2d" in name for name in found) == 3
    assert sum("matmul" in name for name in found) == 1


def test_hot_loops_of_integers_keep_everything_in_registers(integer_kernels):
    _, found, _ = integer_kernels
    for name, loops in found.items():
        for loop in loops:
            assert not [line for line in loop if "[sp" in line], f"{name} spills"


def test_products_and_sums_are_as_few_as_can_be(integer_kernels):
    """SDOT takes its word out of a register, no load or copy is made for it; SMULL and SMLAL, which multiply 8 values
    each, share one SADALP, and each copy of a pair of activations serves several of them."""
    target, found, _ = integer_kernels
    for name, loops in found.items():
        loop = max(loops, key=lambda loop: products(loop, target))
        names = [line.split()[0] for line in loop]
        if target == "rpi5":
            assert products(loop, target) >= 0.75 * len(loop), name
            assert not {"ld1r", "dup"} & set(names), name
        else:
            assert names.count("smull") == names.count("smlal") == names.count("sadalp"), name
            assert not {"saddlp", "ld1r"} & set(names), name
            assert names.count("dup") <= 1.1 * names.count("sadalp"), name


def test_results_are_rounded_without_slow_conversions(integer_kernels):
    """By an addition: fcvtns takes four times as long on a Cortex-A76, and libm's functions take one lane at a time."""
    _, found, assembly = integer_kernels
    for name in found:
        (lines,) = (lines for known, lines in functions(assembly).items() if known == name)
        assert sum("\tfadd\t" in line for line in lines) >= 4, name
        assert not [line for line in lines if re.search(r"\t(?:frint\w|fcvt\w\w)\s|\tbl\s+(?!mem)", line)], name


@pytest.mark.skipif(shutil.which("llvm-mca") is None, reason="needs llvm-mca (Debian's package llvm)")
def test_hot_loops_of_integers_reach_the_pace_of_the_processor(integer_kernels):
    """By llvm-mca's model: 32 multiply-adds a cycle are the most of a Cortex-A76, whose loops stall for a cycle at
    their ends (by the model of LLVM 14; by that of LLVM 19 they do not); 8 of a Cortex-A72."""
    target, found, _ = integer_kernels
    each, least = (16, 28) if target == "rpi5" else (8, 7.5)
    for name, loops in found.items():
        loop = max(loops, key=lambda loop: products(loop, target))
        assert each * products(loop, target) / cycles(loop, TARGETS[target]) >= least, name


def functions(assembly):
    """Lines by function."""
    parts = re.split(r"^([A-Za-z_]\w*):", assembly, flags=re.MULTILINE)
    return {name: body.splitlines() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def innermost_loops(lines):
    """The instructions of each loop that has no loop in it."""
    at = {match[1]: i for i, line in enumerate(lines) if (match := re.match(r"(\.L\w+):", line))}
    jumps = ((at.get(match[1], len(lines)), i) for i, line in enumerate(lines) if (match := JUMP.match(line)))
    loops = {(start, end) for start, end in jumps if start < end}
    inner = [a for a in loops if not any(a[0] <= b[0] and b[1] <= a[1] and a != b for b in loops)]
    return [[line for line in lines[a : b + 1] if re.match(r"\t[a-z]", line)] for a, b in inner]


def multiply_adds(loop):
    return sum(bool(MULTIPLY_ADD.match(line)) for line in loop)


def test_each_kind_of_product_has_a_hot_loop(kernels):
    _, found = kernels
    assert sum("conv2d" in name for name in found) == 3
    assert sum("winograd" in name for name in found) == 1
    assert sum("matmul" in name for name in found) == 2  # one makes what an LSTM adds to its products
    assert sum("recurrent" in name for name in found) == 1


def test_hot_loops_keep_everything_in_registers(kernels):
    _, found = kernels
    for name, loops in found.items():
        for loop in loops:
            assert not [line for line in loop if "[sp" in line], f"{name} spills"


def test_three_of_four_instructions_are_multiply_adds(kernels):
    """Of full tiles: the loop of each kernel that has the most."""
    _, found = kernels
    for name, loops in found.items():
        loop = max(loops, key=multiply_adds)
        assert multiply_adds(loop) >= 0.75 * len(loop), name


def cycles(loop, processor):
    command = ["llvm-mca", "-mtriple=aarch64", f"-mcpu={processor}", "-iterations=100"]
    result = subprocess.run(command, input="\n".join(loop), capture_output=True, text=True, check=True)
    return int(re.search(r"Total Cycles:\s+(\d+)", result.stdout)[1]) / 100


@pytest.mark.skipif(shutil.which("llvm-mca") is None, reason="needs llvm-mca (Debian's package llvm)")
def test_hot_loops_reach_85_percent_of_the_multiply_adds_that_the_processor_can_do(kernels):
    """By llvm-mca's model of the processor, against a loop of nothing but multiply-adds."""
    processor, found = kernels
    alone = [f"\tfmla v{i}.4s, v30.4s, v31.s[0]" for i in range(24)]
    peak = len(alone) / cycles(alone, processor)
    for name, loops in found.items():
        loop = max(loops, key=multiply_adds)
        assert multiply_adds(loop) / cycles(loop, processor) >= 0.85 * peak, name
