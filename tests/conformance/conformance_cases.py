"""ONNX's own conformance cases, from the installed wheel: models with inputs and the outputs that they should have."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__all__ = ["KINDS", "Case", "cases", "chunks", "sample"]

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
"""The sets of cases. `real` is left out: its models are the nine of `light` with weights, which are downloaded."""


@dataclass(frozen=True)
class Case:
    """One model with one set of inputs, in the order of the graph's, and the outputs expected of it."""

    name: str
    kind: str
    operator: str
    """What the case is about: the operator of its one node; of an expanded function, the function."""
    rtol: float
    atol: float
    source: Any
    """Where the rest is: onnx's TestCase."""

    def model(self) -> onnx.ModelProto:
        if self.source.model is not None:
            return self.source.model
        return onnx.load(_light(self) if self.kind == "light" else Path(self.source.model_dir) / "model.onnx")

    def data(self, model: onnx.ModelProto) -> tuple[dict[str, Any], list[Any]]:
        """Inputs by name, and outputs in order; lists for sequences, None for an optional that is none."""
        if self.kind == "light":
            return _light_data(self, model)
        initialized = {tensor.name for tensor in model.graph.initializer}
        names = [value.name for value in model.graph.input if value.name not in initialized]
        if self.source.data_sets is not None:
            inputs, outputs = self.source.data_sets[0]
            names = [value.name for value in model.graph.input][: len(inputs)]
        else:
            folder = Path(self.source.model_dir) / "test_data_set_0"
            inputs = [
                _loaded(folder / f"input_{i}.pb", value) for i, value in enumerate(model.graph.input[: len(names)])
            ]
            outputs = [_loaded(folder / f"output_{i}.pb", value) for i, value in enumerate(model.graph.output)]
        return dict(zip(names, map(_array, inputs), strict=True)), [_array(value) for value in outputs]


def _array(value: Any) -> Any:
    """Values of types that numpy lacks are given as protobufs."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _loaded(path: Path, value: onnx.ValueInfoProto) -> Any:
    data = path.read_bytes()
    if value.type.HasField("sequence_type"):
        return onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if value.type.HasField("optional_type"):
        return onnx.numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data))


def _light(case: Case) -> Path:
    """Where the wheel keeps the file: its url is a path from the folder that holds the package."""
    return Path(onnx.__file__).parent.parent / case.source.url


def _light_data(case: Case, model: onnx.ModelProto) -> tuple[dict[str, Any], list[Any]]:
    """Inputs as onnx's own runner makes them up, and the outputs that the wheel has for these."""
    from onnx.backend.test.runner import Runner

    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = {
        value.name: Runner.generate_dummy_data(value, seed=0, name=case.source.model_name, random=False)
        for value in model.graph.input
        if value.name not in initialized
    }
    stem = str(_light(case)).removesuffix(".onnx")
    files = [Path(f"{stem}_output_{i}.pb") for i in range(len(model.graph.output))]
    return inputs, [_loaded(file, value) for file, value in zip(files, model.graph.output, strict=True)]


@cache
def cases() -> dict[str, Case]:
    """All cases by name, in the order of `KINDS` and then of their names."""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    found: dict[str, Case] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # overflows in the making of expected values are meant
        tests = {kind: load_model_tests(kind=kind) for kind in KINDS if kind not in ("node", "light")}
        tests["node"] = collect_testcases(None)
        tests["light"] = [test for test in load_model_tests(kind="real") if (test.url or "").startswith("onnx/")]
    operators = {test.name: test.model.graph.node[-1].op_type for test in tests["node"]}
    for kind in KINDS:
        for test in sorted(tests[kind], key=lambda test: test.name):
            function = test.name.split("_expanded")[0]
            operator = operators.get(function, operators.get(test.name, ""))
            name = test.name if test.name not in found else f"{kind}/{test.name}"
            found[name] = Case(name, kind, operator, max(test.rtol, 1e-3), max(test.atol, 1e-5), test)
    return found


def chunks(count: int, kinds: tuple[str, ...]) -> list[list[str]]:
    """The names of the cases of these kinds in `count` parts of about the same work."""
    names = [name for name, case in cases().items() if case.kind in kinds]
    return [names[part::count] for part in range(count)]


def sample(every: int) -> list[str]:
    """The names of the first of each `every` node cases of each operator: at least one of all of them."""
    of_operator: dict[str, list[str]] = {}
    for name, case in cases().items():
        if case.kind == "node":
            of_operator.setdefault(case.operator, []).append(name)
    return [name for names in of_operator.values() for name in names[::every]]
