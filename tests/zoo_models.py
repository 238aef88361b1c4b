"""The model zoo, where it lies beside the project or where NNCC_ZOO says: which models there are, at which shapes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

ZOO = Path(os.environ.get("NNCC_ZOO") or Path(__file__).resolve().parents[2] / "shared" / "zoo")
needs_zoo = [
    pytest.mark.zoo,
    pytest.mark.skipif(not (ZOO / "make_zoo.py").is_file(), reason=f"there is no zoo at {ZOO}"),
]

IMAGE = {"input": (1, 3, 224, 224)}
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "resnet18": IMAGE,
    "resnet50": IMAGE,
    "mobilenet_v2": IMAGE,
    "mobilenet_v3_large": IMAGE,
    "squeezenet1_1": IMAGE,
    "vit_tiny_patch16_224": IMAGE,
    "efficientnet_lite0_legacy_export": IMAGE,
    "efficientnet_lite0": IMAGE,
    "minilm_l6": {},  # all its inputs are 1x128; see `shapes`
    "PP-OCRv6_rec_small": {"x": (1, 3, 48, 320)},
    "common_det": {},
    "fmnist_dsnet": {"input": (1, 1, 28, 28)},
    "tiny_ic_resnet8": {"input": (1, 32, 32, 3)},
    "tiny_kws_dscnn": {"input": (1, 49, 10, 1)},
    "silero_vad_16k_sequence": {"input": (4, 576)},  # resemblyzer's random weights are chaotic: nothing to compare
}


def shapes(name: str, path: Path) -> dict[str, tuple[int, ...]]:
    if name == "minilm_l6":
        return {value.name: (1, 128) for value in onnx.load(path, load_external_data=False).graph.input}
    return SHAPES[name]


def found_or_made(folder: Path) -> Callable[[str], Path]:
    """By name the model's file; one with random weights is made from its skeleton, in `folder`."""
    spec = importlib.util.spec_from_file_location("make_zoo", ZOO / "make_zoo.py")
    make_zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_zoo)

    def path(name: str) -> Path:
        if (ZOO / f"{name}.onnx").is_file():
            return ZOO / f"{name}.onnx"
        if not (folder / f"{name}.onnx").is_file():
            make_zoo.main(str(folder), name)
        return folder / f"{name}.onnx"

    return path
