"""What the machine code says of itself, by NVIDIA's own tools: no kernel uses local memory, and products use tensor
cores."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from compiled import Net
from fake_cuda import device_compiler
from quantized_layers import QuantizedNet

from nncc.codegen.cuda_compiler import DeviceCode, compile_device_code
from nncc.config import Config
from nncc.pipeline import plan, run

ARCH = "sm_80"


def find_tool(name: str) -> str | None:
    """Of PATH, of NVIDIA's toolkit or of a package."""
    folders = ["/usr/local/cuda/bin"]
    for package in ("nvidia.cu13", "nvidia.cuda_cuobjdump", "nvidia.cuda_nvdisasm"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        folders += [f"{folder}/bin" for folder in (spec.submodule_search_locations or [])] if spec else []
    return shutil.which(name) or next(filter(None, (shutil.which(f"{folder}/{name}") for folder in folders)), None)


def output_of(name: str, *words: str) -> str:
    """What the tool prints; skips where there is none."""
    found = find_tool(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run([found, *words], capture_output=True, text=True, check=True).stdout


def kernels_of(net: Net, folder: Path, precision: str) -> DeviceCode:
    config = Config(target="cuda-sm80", until="flatten", verify=False, precision=precision)
    return compile_device_code(run(plan(net.save(folder / "net.onnx"), config)).kernels, ARCH, later=False)


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DeviceCode]:
    """A convolution, attention and a product, as float32, TF32 and float16; and quantized layers."""
    if not device_compiler():
        pytest.skip("no compiler for CUDA on this machine")
    if not any(map(find_tool, ("cuobjdump", "nvdisasm"))):
        pytest.skip("neither cuobjdump nor nvdisasm is installed")
    folder = tmp_path_factory.mktemp("codes")

    def plain() -> Net:
        net = Net()
        x = net.op("Relu", net.conv(net.input(1, 64, 14, 14), 64, 64, (3, 3), pads=[1, 1, 1, 1]))
        rows = net.op("Reshape", x, net.ints(1, 64, 196))
        scores = net.op("Softmax", net.op("MatMul", rows, net.op("Transpose", rows, perm=[0, 2, 1])))
        net.output(net.op("MatMul", net.op("MatMul", scores, rows), net.weight(196, 40)))
        return net

    quantized = QuantizedNet()
    x = quantized.grid(quantized.conv(quantized.grid(quantized.input(1, 64, 14, 14)), 64, 64, (3, 3)))
    scores = quantized.op(
        "MatMul", quantized.grid(quantized.input(4, 49, 32)), quantized.grid(quantized.input(4, 32, 49))
    )
    quantized.output(x, quantized.grid(scores))
    found = {word: kernels_of(plain(), folder, word) for word in ("float32", "tf32", "float16")}
    return {**found, "int8": kernels_of(quantized, folder, "float32")}


def test_no_kernel_uses_local_memory_and_registers_are_those_of_the_report(codes, tmp_path):
    for word, code in codes.items():
        (tmp_path / word).write_bytes(code.cubin)
        said = output_of("cuobjdump", "--dump-resource-usage", str(tmp_path / word))
        used = dict(re.findall(r"Function (\w+):\s*(.*)", said))
        assert used.keys() == code.resources.keys()
        for name, text in used.items():
            facts = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", text)}
            assert (facts["LOCAL"], facts["STACK"]) == (0, 0), f"{word}: {name}: {text}"
            assert facts["REG"] == code.resources[name].registers


INSTRUCTIONS = {"int8": "IMMA", "float16": "HMMA.16816", "tf32": "HMMA.1688.F32.TF32", "float32": "FFMA"}


@pytest.mark.parametrize(("word", "instruction"), INSTRUCTIONS.items())
def test_products_are_the_instructions_that_they_should_be_and_nothing_goes_to_local_memory(
    word, instruction, codes, tmp_path
):
    (tmp_path / word).write_bytes(codes[word].cubin)
    said = output_of("nvdisasm", str(tmp_path / word))
    assert instruction in said
    assert not re.search(r"\b(STL|LDL)\b", said)
    assert word != "float32" or "MMA." not in said, "float32 is not rounded"
