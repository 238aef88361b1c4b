"""Files that are no longer what a protobuf library would write: changes of fields, whatever they mean.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

__all__ = ["Field", "changed_fields", "fields", "written"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NUMBERS = (0, 1, 2, 7, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Field:
    """One field of a message: its number and wire type, and a number or bytes."""

    number: int
    kind: int
    value: int | bytes
    claimed: int | None = None
    """The length that is written before the bytes, where that is not theirs."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("no varint")
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data: bytes) -> list[Field]:
    """The fields of a message. Raises ValueError for what is none."""
    found, at = [], 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            found.append(Field(number, kind, value))
            continue
        size, at = _varint(data, at) if kind == _BYTES else ({_FIXED64: 8, _FIXED32: 4}.get(kind, -1), at)
        if size < 0 or number == 0 or at + size > len(data):
            raise ValueError("no message")
        found.append(Field(number, kind, data[at : at + size]))
        at += size
    return found


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def written(message: list[Field]) -> bytes:
    """The bytes of a message."""
    out = b""
    for field in message:
        out += _number(field.number << 3 | field.kind)
        if isinstance(field.value, int):
            out += _number(field.value)
            continue
        if field.kind == _BYTES:
            out += _number(len(field.value) if field.claimed is None else field.claimed)
        out += field.value
    return out


def changed_fields(data: bytes, rng: random.Random) -> bytes:
    """A message with one field changed, doubled, moved or gone, in it or, mostly, in one of the messages inside."""
    try:
        message = fields(data)
    except ValueError:
        return data
    inside = [at for at, field in enumerate(message) if isinstance(field.value, bytes) and len(field.value) > 1]
    if inside and rng.random() < 0.8:
        at = rng.choice(inside)
        value = message[at].value
        changed = changed_fields(value, rng) if isinstance(value, bytes) else value
        if changed != value:
            message[at] = replace(message[at], value=changed)
            return written(message)
    if not message:
        return data
    at = rng.randrange(len(message))
    way = rng.randrange(7)
    if way == 0:
        message.insert(rng.randrange(len(message) + 1), message[at])
    elif way == 1:
        del message[at]
    elif way == 2:
        message.insert(rng.randrange(len(message)), message.pop(at))
    elif way == 3:
        message[at] = replace(message[at], number=rng.choice((1, 2, 5, 7, 9, 20, 100, 2**29 - 1)))
    elif way == 4:
        message[at] = Field(message[at].number, _VARINT, rng.choice(_NUMBERS))
    elif way == 5:
        message[at] = Field(message[at].number, _BYTES, bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 9)))))
    elif message[at].kind == _BYTES:
        message[at] = replace(message[at], claimed=rng.choice((*_NUMBERS, len(data))))
    return written(message)
