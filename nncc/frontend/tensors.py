"""Tensors of an untrusted model: every claim about size and place is checked before a byte is read or allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["LARGEST", "MOST_AXES", "check_tensors"]

LARGEST = 2**40
"""Bytes: no tensor of a model, stored or computed, may be larger."""
MOST_AXES = 64
"""Of a tensor: no numpy array has more."""


def _of_attributes(attributes: list[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            yield from _of_graph(graph)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _of_attributes(node.attribute)


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _of_attributes(node.attribute)
        yield from _of_attributes(function.attribute_proto)


def _expected_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that dims and dtype promise, densely packed; raises ModelError for nonsense."""
    from onnx_ir import DataType

    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"tensor `{tensor.name}` has a negative dimension: {'x'.join(map(str, tensor.dims))}")
    try:
        bits = DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"tensor `{tensor.name}` has an unknown data type: {tensor.data_type}") from error
    return (prod(tensor.dims) * bits + 7) // 8


def _check_external(tensor: onnx.TensorProto, wanted: int, folder: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    what = f"tensor `{tensor.name}` keeps its data in `{location}`"
    copy = "put the model and the files it came with into one folder"
    if not location:
        raise ModelError(f"tensor `{tensor.name}` says that its data are in another file, but not in which", copy)
    path, root = folder / location, folder.resolve()
    inside = Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))
    if os.path.isabs(location) or "\\" in location or "\0" in location or ".." in Path(location).parts or not inside:
        raise ModelError(
            f"{what}, which is outside the model's folder: refused", "save the model again, weights beside it"
        )
    if not path.resolve().is_relative_to(root):
        raise ModelError(
            f"{what}, a link that leaves the model's folder: refused", "replace the link by the file itself"
        )
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise ModelError(f"{what}, which cannot be opened: {getattr(error, 'strerror', error)}", copy) from error
    if not path.is_file():
        raise ModelError(f"{what}, which is not a regular file", copy)
    if status.st_nlink > 1:
        raise ModelError(f"{what}, which has a second name (a hard link) elsewhere: refused", "replace it by a copy")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or wanted)
    except ValueError as error:
        raise ModelError(f"{what}, at an offset or of a length that is not a number") from error
    if offset < 0 or length < 0 or offset + max(length, wanted) > status.st_size:
        raise ModelError(
            f"{what} at bytes {offset:,} to {offset + max(length, wanted):,}, but that file has {status.st_size:,}",
            "the file is truncated or belongs to another model: fetch both again",
        )
    if length != wanted:
        raise ModelError(f"{what}: {length:,} bytes, but its shape and type want {wanted:,}")


def _stored_bytes(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Number of items and bytes that the protobuf itself carries (items is -1 for raw data)."""
    if tensor.HasField("raw_data"):
        return -1, len(tensor.raw_data)
    fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
    return max(len(getattr(tensor, f)) for f in fields), 0


def check_tensors(proto: onnx.ModelProto, folder: Path) -> bool:
    """Refuse tensors whose data are missing, out of bounds, outside `folder`, or not what shape and type promise.

    Returns whether any tensor keeps its data outside the protobuf.
    """
    import onnx

    external = False
    for tensor in _tensors(proto):
        if tensor.data_type == onnx.TensorProto.STRING:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ModelError(f"tensor `{tensor.name}` keeps strings in another file, which ONNX does not allow")
            continue
        wanted = _expected_bytes(tensor)
        shape = "x".join(map(str, tensor.dims)) or "scalar"
        if len(tensor.dims) > MOST_AXES:
            raise ModelError(f"tensor `{tensor.name}` has {len(tensor.dims):,} axes; nncc takes {MOST_AXES}")
        if wanted > LARGEST:
            raise ModelError(f"tensor `{tensor.name}` ({shape}) claims {wanted:,} bytes, more than nncc takes (2^40)")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external = True
            _check_external(tensor, wanted, folder)
            continue
        items, stored = _stored_bytes(tensor)
        if items < 0 and stored != wanted:
            raise ModelError(
                f"tensor `{tensor.name}` ({shape}) wants {wanted:,} bytes, but the file has {stored:,} for it"
            )
        packed = wanted < prod(tensor.dims)  # 4-bit types: several items share one int32 entry
        complex_ = tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
        if items >= 0 and not packed and items != prod(tensor.dims) * (2 if complex_ else 1):
            raise ModelError(
                f"tensor `{tensor.name}` ({shape}) wants {prod(tensor.dims):,} items, but the file has {items:,}"
            )
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise ModelError(
            f"tensor `{name}` is stored sparse, which nncc does not read", "save it as a dense initializer"
        )
    return external
