"""What a file of unknown origin is: an ONNX protobuf, or what people mistake for one. Reads bytes, runs nothing."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["read_container"]

PROTOBUF_LIMIT = 2**31
"""Bytes: protobuf cannot hold a message of this size or more."""

_TORCH = "if it came from PyTorch, load it there and export it with `torch.onnx.export(model, args, 'model.onnx')`"
_TENSORFLOW = "convert it with tf2onnx: `python -m tf2onnx.convert {} --output model.onnx`"

_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"TFL3", "a TensorFlow Lite model", _TENSORFLOW.format("--tflite model.tflite")),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights or model)", _TENSORFLOW.format("--saved-model FOLDER")),
    (0, b"\x80\x02", "a Python pickle (an old PyTorch checkpoint?)", _TORCH),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model itself", "run `git lfs pull` where it came from"),
    (0, b"\x93NUMPY", "a NumPy array", "give the ONNX model, and the array with `--inputs`"),
    (0, b"\x1f\x8b", "gzip-compressed", "unpack it first: `gunzip FILE`"),
    (0, b"ORTM", "an ONNX Runtime ORT-format model", "give the .onnx file that it was made from"),
    (4, b"ORTM", "an ONNX Runtime ORT-format model", "give the .onnx file that it was made from"),
    (0, b"\x7fELF", "an ELF program or library", "give an ONNX model"),
)


def _zip_kind(data: bytes) -> tuple[str, str]:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    if any(n.endswith("/data.pkl") or n == "data.pkl" for n in names):
        return "a PyTorch checkpoint or TorchScript archive (zip)", _TORCH
    if any(n.endswith("model.weights.h5") for n in names):
        return "a Keras 3 model (zip)", "export it with `model.export('model.onnx', format='onnx')`"
    if any(n.endswith(".npy") for n in names):
        return "a NumPy archive (npz)", "give the ONNX model, and the arrays with `--inputs`"
    if inside := [n for n in names if n.endswith(".onnx")]:
        return f"a zip archive that holds `{inside[0]}`", "unpack it first: `unzip FILE`"
    return "a zip archive", _TORCH


def _looks_like(data: bytes) -> tuple[str, str] | None:
    """A description and a way to ONNX for well-known other formats; None where nothing is recognised."""
    for at, magic, kind, hint in _SIGNATURES:
        if data[at : at + len(magic)] == magic:
            return kind, hint
    if data[:4] == b"PK\x03\x04":
        return _zip_kind(data)
    head = data[:4096]
    if head.lstrip()[:1] == b"<":
        return "an HTML or XML page", "a download link may have led to a web page: fetch the file itself"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        try:
            head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
        except UnicodeDecodeError:
            return None
        return "a text file", "give a binary ONNX model; ONNX text becomes one with `onnx.parser.parse_model`"
    return None


def _missing_bytes(data: bytes) -> int | None:
    """How many bytes the last top-level protobuf field wants beyond the end; None if the bytes are not a protobuf."""

    def varint(at: int) -> tuple[int, int] | None:
        value = shift = 0
        while at < len(data) and shift < 70:
            value |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                return value, at
        return None

    at = 0
    while at < len(data):
        key = varint(at)
        if key is None:
            return 1 if len(data) - at < 10 else None
        field, wire = key[0] >> 3, key[0] & 7
        at = key[1]
        if not 1 <= field <= 26:  # ModelProto's own field numbers
            return None
        if wire in (0, 2):
            number = varint(at)
            if number is None:
                return 1 if len(data) - at < 10 else None
            at = number[1] + (number[0] if wire == 2 else 0)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            return None
    return max(at - len(data), 0)


def read_container(path: Path) -> onnx.ModelProto:
    """The parsed protobuf of an ONNX file, nothing in it checked yet. Raises ModelError saying what else it seems."""
    import onnx
    from google.protobuf.message import DecodeError

    if path.is_dir():
        inside = sorted(path.glob("*.onnx"))
        hint = f"give the model itself: `{inside[0]}`" if inside else "give an ONNX file"
        if (path / "saved_model.pb").exists():
            hint = _TENSORFLOW.format("--saved-model FOLDER")
        raise ModelError(f"`{path}` is a directory, not an ONNX file", hint)
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise ModelError(f"`{path}` {what}", "give the path of an ONNX model")
        size = path.stat().st_size
        if size >= PROTOBUF_LIMIT:
            raise ModelError(
                f"`{path}` has {size:,} bytes; an ONNX file holds less than 2 GiB",
                "save it with its weights beside it: `onnx.save(model, path, save_as_external_data=True)`",
            )
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"cannot read `{path}`: {reason}", "check the path and its permissions") from error
    if not data:
        raise ModelError(f"`{path}` is empty", "the file holds no bytes: was a download or an export interrupted?")
    if kind := _looks_like(data):
        raise ModelError(f"`{path}` is not ONNX: it seems to be {kind[0]}", kind[1])
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        missing = _missing_bytes(data)
        if missing:
            raise ModelError(
                f"`{path}` is truncated: {len(data):,} bytes were read, at least {missing:,} more are needed",
                "fetch or export the model again",
            ) from error
        if missing == 0:
            raise ModelError(
                f"`{path}` is damaged: a part of it cannot be parsed", "fetch or export it again"
            ) from error
        raise ModelError(f"`{path}` is not ONNX: its {len(data):,} bytes are not a protobuf", _TORCH) from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(
            f"`{path}` is a protobuf without an ONNX graph",
            "a TensorFlow `saved_model.pb` or a single ONNX tensor (.pb) looks like this: give the .onnx model",
        )
    return proto
