"""A client of TVM's RPC tracker, which knows the devices: JSON over TCP. It waits for a device, never for a tracker."""

from __future__ import annotations

import json
import select
import socket
import struct
from dataclasses import dataclass
from typing import Any

from nncc.errors import RunError

__all__ = ["Device", "Tracker"]

_MAGIC = 0x2F271
_REQUEST, _SUMMARY = 4, 6
"""Words of tvm.rpc.base.TrackerCode."""

PATIENCE = 5.0
"""Seconds that the tracker has to answer."""
LOOK_AGAIN = 2.0
"""Seconds after which a wait for a free device asks whether there is one at all."""


@dataclass(frozen=True)
class Device:
    """A device that the tracker has given out, for one session."""

    host: str
    port: int
    match_key: str
    """The word that its server lets this session in by."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Tracker:
    """Each call is a connection of its own, so that several threads may ask.

    Every method raises RunError where the tracker cannot be reached.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def __str__(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    def how_to_serve(self, key: str) -> str:
        """The hint where devices are missing."""
        return f"start the server on the device: `python -m tvm.exec.rpc_server --tracker={self} --key={key}`"

    def devices(self, key: str) -> list[tuple[str, int]]:
        """The addresses of all devices with `key`, busy ones included.

        RunError where there is none, with the keys that there are.
        """
        with self._connected() as connection:
            servers = self._ask(connection, [_SUMMARY])["server_info"]
        known: dict[str, list[tuple[str, int]]] = {}
        for server in servers:
            known.setdefault(server["key"].removeprefix("server:"), []).append((server["addr"][0], server["addr"][1]))
        if key not in known:
            words = ", ".join(f"`{name}` ({len(known[name])})" for name in sorted(known)) or "none"
            raise RunError(
                f"the tracker at {self} has no device with the key `{key}`; it has {words}",
                self.how_to_serve(key),
            )
        return known[key]

    def request(self, key: str, silent: frozenset[tuple[str, int]] | set[tuple[str, int]] = frozenset()) -> Device:
        """A device with `key`, ours until its session ends; waits while all are busy.

        RunError where there is none any more but the `silent`, which are not waited for.
        """
        with self._connected() as connection:
            self._send(connection, [_REQUEST, key, "", 1])
            while not select.select([connection], [], [], LOOK_AGAIN)[0]:
                if silent.issuperset(self.devices(key)):
                    raise RunError(f"no device with the key `{key}` answers any more", self.how_to_serve(key))
            host, port, match_key = self._receive(connection)
        return Device(host, port, match_key)

    def _connected(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._address, PATIENCE)
        except OSError as error:
            raise RunError(
                f"cannot reach the RPC tracker at {self}: {error.strerror or error}",
                f"start it: `pip install 'nncc[rpc]'`, "
                f"`python -m tvm.exec.rpc_tracker --host={self._address[0]} --port={self._address[1]}`",
            ) from error
        try:
            connection.sendall(struct.pack("<i", _MAGIC))
            if struct.unpack("<i", self._bytes(connection, 4))[0] != _MAGIC:
                raise RunError(f"what answers at {self} is no RPC tracker", "is this the port of a device?")
        except OSError as error:
            connection.close()
            raise self._silent(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _silent(self, error: OSError) -> RunError:
        hint = "is it TVM's tracker? start it again"
        return RunError(f"the RPC tracker at {self} does not answer: {error.strerror or error}", hint)

    def _ask(self, connection: socket.socket, words: list[Any]) -> Any:
        self._send(connection, words)
        return self._receive(connection)

    def _send(self, connection: socket.socket, words: list[Any]) -> None:
        text = json.dumps(words).encode()
        try:
            connection.sendall(struct.pack("<i", len(text)) + text)
        except OSError as error:
            raise self._silent(error) from error

    def _receive(self, connection: socket.socket) -> Any:
        try:
            size = struct.unpack("<i", self._bytes(connection, 4))[0]
            status, value = json.loads(self._bytes(connection, size))
        except OSError as error:
            raise self._silent(error) from error
        except ValueError as error:
            raise RunError(f"the RPC tracker at {self} gave no answer: {error}") from error
        if status != 0:
            raise RunError(f"the RPC tracker at {self} refuses: {value}")
        return value

    def _bytes(self, connection: socket.socket, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = connection.recv(count - len(parts))
            if not part:
                raise ConnectionResetError(0, "the connection ended")
            parts += part
        return parts
