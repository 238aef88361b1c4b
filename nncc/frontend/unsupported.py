"""Operators that nncc cannot compile, all in one error."""

from __future__ import annotations

from collections.abc import Mapping

from nncc.errors import ModelError
from nncc.ir import Model

__all__ = ["unsupported"]


def unsupported(model: Model, supported: Mapping[str, set[str]]) -> ModelError | None:
    """One error that lists every operator outside `supported` (domain -> operator names), or None."""
    import onnx_ir

    found: dict[tuple[str, str], list[str]] = {}
    for node in onnx_ir.traversal.RecursiveGraphIterator(model.graph.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.op_type not in supported.get(domain, ()):
            found.setdefault((domain, node.op_type), []).append(node.name or str(node.outputs[0].name))
    if not found:
        return None
    lines = []
    for (domain, op), names in sorted(found.items()):
        version = model.graph.opset_imports.get(domain, "?")
        some = ", ".join(f"`{n}`" for n in names[:3]) + (", ..." if len(names) > 3 else "")
        lines.append(f"  {domain or 'ai.onnx'} {op} (opset {version}): {len(names)} x, {some}")
    count = f"{len(found)} operator{'s' if len(found) > 1 else ''} that nncc cannot compile"
    hint = "cut the model before them, or export it with other operators (a lower opset often helps)"
    return ModelError(f"`{model.name}` uses {count}:\n" + "\n".join(lines), hint)
