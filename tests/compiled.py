"""Small ONNX models made operator by operator, compiled, run, and compared with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import nncc
from nncc.config import Config
from nncc.execute import open_library
from nncc.ir import Artifact, Kernels, Model, Program
from nncc.pipeline import Instrument, plan, run
from nncc.target import resolve
from nncc.verify import Comparison, compare, reference, sample_inputs

ROUNDING = 1e-5
"""Relative error granted to one operator in float32: two orders of summing K products differ by about sqrt(K) eps / 2,
which is 4e-6 for K = 4,000, more than any case here has; an error in indexing is of the size of the data itself."""


class Net:
    """A graph in the making: each call adds a node and gives the names of its outputs."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.outputs: list[str] = []
        self._count = 0

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def input(self, *shape: int, dtype: Any = np.float32, name: str = "") -> str:
        name = name or self._name("x")
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        name = self._name("c")
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """Random weights; by default of a size that keeps the variance of what they multiply."""
        fan = max(1, int(np.prod(shape[1:])))
        return self.constant(self.random.standard_normal(shape) * (fan**-0.5 if scale is None else scale), np.float32)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [self._name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def conv(
        self, x: str, channels: int, out: int, kernel: Sequence[int], *, bias: bool = True, **attributes: Any
    ) -> str:
        weight = self.weight(out, channels // attributes.get("group", 1), *kernel)
        return self.op("Conv", x, weight, *([self.weight(out, scale=0.5)] if bias else []), **attributes)

    def output(self, *names: str) -> None:
        self.outputs += names

    def model(self) -> onnx.ModelProto:
        outputs = []
        for name in self.outputs:
            value = onnx.ValueInfoProto()
            value.name = name
            outputs.append(value)
        graph = helper.make_graph(self.nodes, "net", self.inputs, outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        # TopK, ArgMax ... : strict inference would refuse nothing here; outputs get their types from it.
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return model

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path


@dataclass
class Stages(Instrument):
    """Keeps the values of the stages."""

    values: dict[str, Any] = field(default_factory=dict)

    def after(self, stage: Any, job: Any, given: Any, value: Any, seconds: float) -> None:
        self.values[stage.name] = value


@dataclass(frozen=True)
class Compiled:
    """A compiled model and what it went through."""

    path: Path
    artifact: Artifact
    model: Model
    kernels: Kernels
    program: Program

    @property
    def library(self) -> Path:
        return self.artifact.library

    def sample(self, seed: int = 0, **given: np.ndarray) -> dict[str, np.ndarray]:
        """Random inputs, those `given` excepted."""
        return sample_inputs(self.model, seed) | given

    def expected(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return reference(self.model, inputs)

    def run(self, inputs: Mapping[str, np.ndarray], threads: int = 1) -> dict[str, np.ndarray]:
        """In a process of its own, under an emulator or on a simulated accelerator: a crash fails one test."""
        device = "sim" if self.program.target.hardware.drives_accelerator else ""
        return open_library(self.library, threads, self.program.target, device).run(inputs)

    def comparisons(
        self, inputs: Mapping[str, np.ndarray], tolerance: float | Mapping[str, float] | None = None, threads: int = 1
    ) -> list[Comparison]:
        return compare(self.expected(inputs), self.run(inputs, threads), tolerance=tolerance)


def compile_net(source: Net | onnx.ModelProto | Path, folder: Path, target: str = "native", **options: Any) -> Compiled:
    """Compile for `target` into `folder`, without nncc's own check against ONNX Runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    path = source if isinstance(source, Path) else folder / "net.onnx"
    if isinstance(source, Net):
        source.save(path)
    elif isinstance(source, onnx.ModelProto):
        onnx.save(source, path)
    stages = Stages()
    output = folder / resolve(target).name
    artifact = nncc.compile(path, target, output, instruments=[stages], **{"verify": False, **options})
    values = stages.values
    return Compiled(path, artifact, values["import"], values["schedule"], values["flatten"])


def lowered(net: Net, folder: Path, target: str = "native", threads: int = 1, *, shipped: bool = False) -> Kernels:
    """A net's kernels before they are scheduled; with what the records that come with nncc choose for the graph."""
    folder.mkdir(parents=True, exist_ok=True)
    net.save(folder / "net.onnx")
    config = Config(target=target, threads=threads, until="lower", verify=False, shipped_records=shipped)
    return run(plan(folder / "net.onnx", config))


def agrees(
    source: Net | onnx.ModelProto | Path,
    folder: Path,
    target: str = "native",
    tolerance: float | Mapping[str, float] | None = ROUNDING,
    inputs: Mapping[str, np.ndarray] | None = None,
    threads: int = 2,
    **options: Any,
) -> Compiled:
    """Claim that the library computes what ONNX Runtime computes; `inputs` replace the random ones."""
    compiled = compile_net(source, folder, target, **options)
    found = compiled.comparisons(compiled.sample(**(inputs or {})), tolerance, threads)
    wrong = [str(comparison) for comparison in found if not comparison.ok]
    assert not wrong, "\n".join(wrong)
    return compiled
