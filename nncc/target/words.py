"""The words that describe a target: their types, what they may be, and how text becomes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from nncc.errors import TargetError, did_you_mean

__all__ = ["check_keys", "parse_overrides", "parse_tvm_string", "value_text"]

_TVM_TYPES: dict[str, type] = {
    **dict.fromkeys(("mattr", "keys", "libs", "cl-opt"), list),
    **dict.fromkeys(("num-cores", "opt-level", "vector-width", "max_num_threads", "thread_warp_size"), int),
    **dict.fromkeys(("max_shared_memory_per_block", "max_threads_per_block", "registers_per_block"), int),
    **dict.fromkeys(("fast-math", "fast-math-nnan", "fast-math-ninf", "fast-math-nsz"), bool),
    **dict.fromkeys(("fast-math-arcp", "fast-math-contract", "fast-math-reassoc"), bool),
    **dict.fromkeys(("mcpu", "mtriple", "mabi", "mfloat-abi", "arch", "device", "model", "jit"), str),
}
"""TVM's target options that can be given as text, and what they are in its dictionary."""

_CHOICES = {
    "int8_dot": ("none", "sdot", "smull", "vnni512", "vnni256", "avxvnni", "pmaddwd"),
    "format": ("elf", "coff", "macho"),
}
_TYPE_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false", dict: "a table"}
_TYPE_NAMES |= {list: "a list of strings", tuple: "a list of strings"}


def check_keys(table: Mapping[str, Any], types: Mapping[str, type], where: str, what: str) -> None:
    """Raise TargetError if a key of `table` is not one of `types`, or its value is not what the key takes."""
    for key, value in table.items():
        if key not in types:
            raise TargetError(f"{where}: {what} has no key `{key}`", _known(key, types))
        if not _is_a(value, types[key]):
            raise TargetError(f"{where}: `{key}` is {value!r}, not {_TYPE_NAMES[types[key]]}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise TargetError(f"{where}: `{key}` is {value!r}, not one of {', '.join(_CHOICES[key])}")


def _is_a(value: object, kind: type) -> bool:
    if kind in (list, tuple):
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def parse_tvm_string(text: str) -> dict[str, Any]:
    """``llvm -mcpu=x -num-cores=4`` as a dictionary: TVM itself no longer reads such strings."""
    try:
        kind, *options = shlex.split(text)
    except ValueError as error:
        raise TargetError(f"the target `{text}` cannot be split into words: {error}") from error
    tvm: dict[str, Any] = {"kind": kind}
    for option in options:
        key, equals, value = option.lstrip("-").partition("=")
        if not option.startswith("-") or not key or not (equals or _TVM_TYPES.get(key) is bool):
            raise TargetError(f"the target `{text}` has the word `{option}`, which is not `-option=value`")
        tvm[key] = _parse_value(key, value if equals else "1", _TVM_TYPES, text)
    return tvm


def parse_overrides(words: list[str], text: str, facts: Mapping[str, type]) -> dict[str, Any]:
    """``["num-cores=4", "mattr=+a", "+b"]`` as values of the right types: TVM's, and those of `facts`."""
    joined: list[str] = []
    for word in words:
        if joined and "=" not in word and word.strip()[:1] in ("+", "-"):
            joined[-1] += word
        else:
            joined.append(word)
    overrides = {}
    for word in joined:
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals:
            raise TargetError(f"the target `{text}` has the word `{word}`, which is not `key=value`")
        overrides[key] = _parse_value(key, value, _TVM_TYPES | dict(facts), text)
        if key in _CHOICES and value not in _CHOICES[key]:
            raise TargetError(f"the target `{text}` has `{word}`: not one of {', '.join(_CHOICES[key])}")
    return overrides


def _parse_value(key: str, value: str, types: Mapping[str, type], text: str) -> Any:
    if key not in types:
        raise TargetError(f"the target `{text}` has the unknown key `{key}`", _known(key, types))
    kind = types[key]
    try:
        if kind is bool:
            return {"1": True, "true": True, "0": False, "false": False}[value.lower()]
        if kind in (list, tuple):
            # `+a -b`, `+a,-b` and `+a-b` are one list; other lists are separated by spaces or commas.
            return kind(re.findall(r"[+-][^\s,+-][^\s,+]*" if key == "mattr" else r"[^\s,+]+", value))
        return kind(value)
    except (KeyError, ValueError) as error:
        raise TargetError(f"the target `{text}` has `{key}={value}`: not {_TYPE_NAMES[kind]}") from error


def _known(key: str, types: Mapping[str, type]) -> str:
    return f"{did_you_mean(key, types)} known keys: {', '.join(types)}".strip()


def value_text(value: object) -> str:
    """A value as :func:`_parse_value` reads it."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
