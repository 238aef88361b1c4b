"""One walk over the bindings of a Relax ``main``, operator by operator: what the Relax passes are made of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nncc.compat import GenericConst, IRModule, relax, topi
from nncc.ir import CONCATENATION
from nncc.kernels.templates import Template

__all__ = ["Rewriter", "variables"]

_OUT_ELEMENTWISE_FUSABLE, _OPAQUE = 4, 8
"""TVM's OpPatternKind: elementwise operators behind the function may be fused into it; nothing is fused with it."""

Rule = Callable[[Any, Any], Any]
"""Called with the rewriter, of whatever subclass, and the call."""


class Rewriter:
    """Rebuilds ``main``, asking the rule of each operator's name for a replacement.

    A rule gets the call (its arguments as they were: `value` gives what they became) and returns an expression, or
    None to keep the call. A subclass may return other forms of a value and keep them in `keep`.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        self.replaced: dict[Any, Any] = {}
        self.made: dict[Any, Any] = {}
        """By variable of the old function, how it is made."""
        self.uses: Counter[Any] = Counter()
        """By variable of the old function, how often it is read."""
        self.readers: dict[Any, list[tuple[Any, Any]]] = defaultdict(list)
        """By variable of the old function, who reads it: variables and how each is made; twice None for the result."""
        self.kernels: dict[str, Any] = {}
        """The functions beside ``main``, by name."""
        self.variable: Any = None
        """That of the old function which is being bound: the call that a rule gets is how it is made."""

    def look(self) -> None:
        """Called before the walk, when it is known how values are made and who reads them."""

    def rewrite(self, module: IRModule) -> IRModule:
        """The module with ``main`` rebuilt and what became unused dropped."""
        main = module["main"]
        self.kernels = {name.name_hint: function for name, function in module.functions.items()}
        self.made = {binding.var: binding.value for block in main.body.blocks for binding in block.bindings}
        self.uses, self.readers = Counter(), defaultdict(list)
        for variable, value in self.made.items():
            read = variables(value)
            self.uses.update(read)
            for each in dict.fromkeys(read):
                self.readers[each].append((variable, value))
        for each in variables(main.body.body):
            self.uses[each] += 1
            self.readers[each].append((None, None))
        self.look()
        kernels = {name: function for name, function in module.functions.items() if name.name_hint != "main"}
        self.builder = builder = relax.BlockBuilder(IRModule(kernels, attrs=module.attrs))
        with builder.function("main", list(main.params), attrs=dict(main.attrs.items()) if main.attrs else {}):
            with builder.dataflow():
                for block in main.body.blocks:
                    for binding in block.bindings:
                        self._bind(binding)
                result = builder.emit_output(self.value(main.body.body))
            builder.emit_func_output(result)
        return relax.transform.DeadCodeElimination(["main"])(builder.get())

    def _bind(self, binding: Any) -> None:
        value, self.variable = binding.value, binding.var
        if isinstance(binding, relax.MatchCast):
            self.replaced[binding.var] = self.builder.match_cast(self.value(value), binding.ty)
            return
        new = None
        if isinstance(value, relax.Call) and hasattr(value.op, "name"):
            rule = self.rules.get(value.op.name)
            new = rule(self, value) if rule else None
        self.keep(binding.var, self.bound(value) if new is None else new)

    def keep(self, variable: Any, new: Any) -> None:
        """Remember that `variable` of the old function is `new` in the new one."""
        simple = isinstance(new, (relax.Var, GenericConst))
        self.replaced[variable] = new if simple else self.builder.emit(new)

    def bound(self, expr: Any) -> Any:
        """What the right-hand side of a binding, which no rule replaces, becomes; in whatever form `keep` takes."""
        return self.value(expr)

    def value(self, expr: Any) -> Any:
        """An expression of the old function in terms of the new one."""
        if isinstance(expr, relax.Var):
            return self.replaced.get(expr, expr)
        if isinstance(expr, relax.Call):
            return relax.Call(expr.op, [self.value(a) for a in expr.args], expr.attrs, expr.ty_args, ret_ty=expr.ty)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.value(f) for f in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.value(expr.tuple_value), expr.index)
        return expr

    def emit_anchor(self, template: Template, *args: Any, **options: Any) -> Any:
        """Call a template's compute definition; elementwise operators behind it may be fused into its kernel."""
        hint = {"primfunc_name_hint": template.name, "primfunc_attrs": {"op_pattern": _OUT_ELEMENTWISE_FUSABLE}}
        return self.builder.emit_te(partial(template.compute, **options), *args, **hint)

    def emit_concatenation(self, tensors: list[Any], axis: int) -> Any:
        """Pieces that follow each other in memory: `flatten` lets their kernels write where they belong."""
        hint = {"primfunc_name_hint": "concatenate", "primfunc_attrs": {CONCATENATION: True, "op_pattern": _OPAQUE}}
        return self.builder.emit_te(topi.concatenate, tensors, axis=axis, **hint)


def variables(value: Any) -> list[Any]:
    """The variables that an expression reads, as often as it reads them."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.TupleGetItem):
        return variables(value.tuple_value)
    fields = value.fields if isinstance(value, relax.Tuple) else getattr(value, "args", ())
    return [v for field in fields for v in variables(field)]
