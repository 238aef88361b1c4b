"""Operators of com.microsoft that exported and fused models contain, as definitions in terms of the standard's.

Their source is ONNX Runtime's docs/ContribOperators.md. Those on integers are in `nncc.passes.qoperators`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["DEFINITIONS", "MICROSOFT", "microsoft_definition"]

MICROSOFT = "com.microsoft"


def _swapped(node: onnx_ir.Node, at: int) -> str:
    """The permutation that exchanges the last two axes of operand `at`."""
    value = node.inputs[at]
    if value is None or value.shape is None or len(value.shape) < 2:
        raise ModelError(f"{node_text(node)} transposes an operand whose rank is not known, or less than 2")
    axes = list(range(len(value.shape)))
    axes[-1], axes[-2] = axes[-2], axes[-1]
    return ", ".join(map(str, axes))


def _fused_matmul(node: onnx_ir.Node) -> str:
    """alpha op(A) op(B)"""
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        raise ModelError(f"{node_text(node)} transposes batches, which cannot be compiled", "export it without fusions")
    lines = []
    for at, name in enumerate("AB"):
        kind = f"Transpose <perm = [{_swapped(node, at)}]>" if attribute(node, f"trans{name}", 0) else "Identity"
        lines.append(f"{name}t = {kind} ({name})")
    alpha = float(attribute(node, "alpha", 1.0))
    lines += ["P = MatMul (At, Bt)"] if alpha != 1.0 else ["Y = MatMul (At, Bt)"]
    if alpha != 1.0:
        lines += [*_scalar("f", alpha, "P"), "Y = Mul (P, f)"]
    return _text("(A, B) => (Y)", lines)


def _scalar(name: str, value: float, like: str) -> list[str]:
    return [f"{name}_0 = Constant <value_float = {value!r}> ()", f"{name} = CastLike ({name}_0, {like})"]


def _gelu(node: onnx_ir.Node) -> str:
    """x / 2 (1 + erf(x / sqrt(2)))"""
    lines = _scalar("r", 0.7071067811865476, "X") + _scalar("h", 0.5, "X") + _scalar("o", 1.0, "X")
    lines += ["s = Mul (X, r)", "e = Erf (s)", "p = Add (e, o)", "x2 = Mul (X, h)", "Y = Mul (x2, p)"]
    return _text("(X) => (Y)", lines)


def _quick_gelu(node: onnx_ir.Node) -> str:
    """x sigmoid(alpha x)"""
    lines = [*_scalar("a", float(attribute(node, "alpha", 1.702)), "X"), "s = Mul (X, a)", "g = Sigmoid (s)"]
    return _text("(X) => (Y)", [*lines, "Y = Mul (X, g)"])


_ACTIVATIONS = {
    "": "Identity",
    "Relu": "Relu",
    "Tanh": "Tanh",
    "Sigmoid": "Sigmoid",
    "LeakyRelu": "LeakyRelu <alpha = {0!r}>",
    "HardSigmoid": "HardSigmoid <alpha = {0!r}, beta = {1!r}>",
}
"""By the attribute `activation`: the operator, with its parameters."""


def _activation(node: onnx_ir.Node) -> str:
    name = str(attribute(node, "activation", ""))
    if name not in _ACTIVATIONS:
        raise ModelError(f"{node_text(node)} has the activation `{name}`, which cannot be compiled")
    names = ("activation_alpha", "activation_beta")
    given = attribute(node, "activation_params", None) or [attribute(node, each, 0.01) for each in names]
    return _ACTIVATIONS[name].format(*map(float, given), *(0.0, 0.0))


def _fused_conv(node: onnx_ir.Node) -> str:
    """activation(conv(X, W, B) + Z)"""
    kept = {
        name: attribute(node, name)
        for name in ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
        if name in node.attributes
    }
    words = ", ".join(f'{name} = "{v}"' if isinstance(v, str) else f"{name} = {v}" for name, v in kept.items())
    given = [value is not None for value in node.inputs]
    bias = ", B" if len(given) > 2 and given[2] else ""
    lines = [f"c = Conv {f'<{words}>' if words else ''} (X, W{bias})"]
    lines.append("s = Add (c, Z)" if len(given) > 3 and given[3] else "s = Identity (c)")
    return _text("(X, W, B, Z) => (Y)", [*lines, f"Y = {_activation(node)} (s)"])


def _fused_gemm(node: onnx_ir.Node) -> str:
    """activation(gemm(A, B, C))"""
    kept = {name: attribute(node, name) for name in ("alpha", "beta", "transA", "transB") if name in node.attributes}
    words = ", ".join(f"{name} = {value!r}" for name, value in kept.items())
    bias = ", C" if len(node.inputs) > 2 and node.inputs[2] is not None else ""
    lines = [f"g = Gemm {f'<{words}>' if words else ''} (A, B{bias})", f"Y = {_activation(node)} (g)"]
    return _text("(A, B, C) => (Y)", lines)


DEFINITIONS: dict[str, Callable[[onnx_ir.Node], str]] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu,
    "QuickGelu": _quick_gelu,
}
"""By operator: a function of the node that gives its definition in ONNX's textual form."""


def _text(signature: str, lines: list[str]) -> str:
    return f"definition {signature} {{ {' '.join(lines)} }}"


def microsoft_definition(node: onnx_ir.Node, opset: int) -> onnx.FunctionProto | None:
    """The definition of a node of com.microsoft, in the standard's operators of this version; None if there is none.

    Raises ModelError for forms that have none.
    """
    import onnx

    make = DEFINITIONS.get(node.op_type)
    if make is None:
        return None
    text = make(node)
    head = f'<opset_import: ["" : {opset}], domain: "{MICROSOFT}">'
    return onnx.parser.parse_function(f"{head} {text}")
