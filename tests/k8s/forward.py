"""Ports of this machine that lead to pods."""

import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from e2e.poll import poll_until

PAUSE_SECONDS = 0.5


@dataclass
class Forward:
    """A context: while it is open, a port of 127.0.0.1 leads to one in the cluster.

    `kubectl port-forward` ends with its pod, and begins anew with the next one.
    """

    kubectl: Sequence[str]
    target: str
    """A pod or Service, as kubectl takes it."""
    local: int
    remote: int
    _process: subprocess.Popen[bytes] | None = None
    _closed: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        poll_until(self._listens, f"a port of {self.target}")
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._process:
            self._process.terminate()
        self._thread.join()

    def _run(self) -> None:
        command = [*self.kubectl, "port-forward", self.target, f"{self.local}:{self.remote}"]
        while not self._closed.is_set():
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if self._closed.is_set():
                self._process.terminate()
            self._process.wait()
            self._closed.wait(PAUSE_SECONDS)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.local)) == 0
