"""A tracker and servers of TVM's RPC on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from candidates import wait_until

from nncc.errors import RunError
from nncc.target import resolve
from nncc.tuning.rpc_tracker import Tracker
from nncc.tuning.runners import Runner, open_runner


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Farm:
    """A tracker and servers, each a process group of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen] = field(default_factory=list)

    def __enter__(self) -> Farm:
        self.tracker()
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)

    def start(self, *words: str) -> subprocess.Popen:
        with (self.folder / f"log{len(self.processes)}").open("wb") as log:
            command = [sys.executable, "-m", *words]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        self.processes.append(process)
        return process

    def tracker(self) -> None:
        self.start("tvm.exec.rpc_tracker", "--host=127.0.0.1", f"--port={self.port}", f"--port-end={self.port + 1}")
        wait_until(self._tracked)

    def _tracked(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def server(self, key: str) -> subprocess.Popen:
        def count() -> int:
            try:
                return len(Tracker("127.0.0.1", self.port).devices(key))
            except RunError:
                return 0

        before, port = count(), free_port()
        tracker = f"--tracker=127.0.0.1:{self.port}"
        words = ("--host=127.0.0.1", f"--port={port}", f"--port-end={port + 1}", tracker, f"--key={key}")
        process = self.start("tvm.exec.rpc_server", *words)
        process.address = f"127.0.0.1:{port}"  # type: ignore[attr-defined]
        wait_until(lambda: count() > before)
        return process

    def open(self, key: str) -> Runner:
        return open_runner(f"rpc://127.0.0.1:{self.port}/{key}", resolve("native"))

    def kill(self, process: subprocess.Popen) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
