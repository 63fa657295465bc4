"""Runs each service in its own process, restarts them when code changes, and stops them all."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from .project import UserError

STOP_SECONDS = 20.0
"""Between SIGTERM and SIGKILL; longer than an orderly shutdown."""
KILLED_SECONDS = 5.0
KEPT_LINES = 40

Show = Callable[[str], None]


@dataclass(frozen=True)
class Command:
    """A service to run: `python -m <module> <arguments>`, with this environment."""

    name: str
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]


class Supervisor:
    """Runs the commands inside its `with` block.

    Args:
        commands: The services. The first one receives work from outside, so it is stopped before
            the others, which are stopped together.
        log: Gets their output, each line with the name of its service.
        show: Called with news of the services, one line at a time, from any thread.
        cwd: Their working directory.
        stop_seconds: Between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        log: IO[str],
        show: Show,
        cwd: Path,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self._commands = commands
        self._log = log
        self._show = show
        self._cwd = cwd
        self._stop_seconds = stop_seconds
        self._running: dict[str, _Process] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._lifeline, self._held = os.pipe()
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        try:
            self.stop()
        finally:
            # Ends the remaining processes, if waiting for them was interrupted.
            os.close(self._held)
            os.close(self._lifeline)
            if self._watcher:
                self._watcher.join(timeout=5)

    def start(self) -> None:
        with self._lock:
            width = max(len(command.name) for command in self._commands)
            for command in self._commands:
                self._running[command.name] = _Process(
                    command, self._lifeline, self._cwd, self._log, width
                )

    def stop(self) -> None:
        """Stop all in order. Kill those that don't end in time; on another interrupt, kill all."""
        with self._lock:
            processes = list(self._running.values())
            self._running.clear()  # so that `ended` does not report them
            try:
                for group in (processes[:1], processes[1:]):
                    for process in group:
                        process.terminate()
                    deadline = time.monotonic() + self._stop_seconds
                    for process in group:
                        if not process.wait(deadline - time.monotonic()):
                            self._show(
                                f"{process.name} did not stop within"
                                f" {self._stop_seconds:g} s and was killed"
                            )
                            process.kill()
            finally:
                for process in processes:
                    process.kill()

    def ended(self) -> dict[str, int]:
        """The services that ended by themselves, with their exit codes."""
        codes = {name: process.returncode for name, process in tuple(self._running.items())}
        return {name: code for name, code in codes.items() if code is not None}

    def last_lines(self, name: str) -> list[str]:
        """The last lines of a service's output."""
        process = self._running.get(name)
        return list(process.lines) if process else []

    def restart_on_change(self, folder: Path) -> None:
        """Restart all services whenever a Python file below the folder changes."""
        self._watcher = threading.Thread(target=self._watch, args=(folder,), daemon=True)
        self._watcher.start()

    def _watch(self, folder: Path) -> None:
        from watchfiles import PythonFilter, watch

        for changes in watch(
            folder, watch_filter=PythonFilter(), stop_event=self._ended, raise_interrupt=False
        ):
            with self._lock:
                if self._ended.is_set():
                    return
                names = sorted({str(Path(path).relative_to(folder)) for _, path in changes})
                changed = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} others"]
                self._show(f"{', '.join(changed)} changed: restarting the services")
                self.stop()
                self.start()


class _Process:
    """One service, and the thread that copies its output."""

    def __init__(
        self, command: Command, lifeline: int, cwd: Path, log: IO[str], width: int
    ) -> None:
        self.name = command.name
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "faststream_otel.dev.child", str(lifeline), command.module,
             *command.arguments],
            cwd=cwd,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=(lifeline,),
            # Ctrl-C reaches the whole process group; the supervisor stops the services in order.
            start_new_session=True,
        )  # fmt: skip
        self._copier = threading.Thread(target=self._copy, args=(log, width), daemon=True)
        self._copier.start()

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def terminate(self) -> None:
        self._popen.terminate()

    def wait(self, timeout: float) -> bool:
        """Whether it ended in time. If so, its whole output has been copied."""
        try:
            self._popen.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            return False
        self._copier.join(timeout=1)
        return True

    def kill(self) -> None:
        """Kill it if it still runs, and wait for its end."""
        if self._popen.poll() is None:
            self._popen.kill()
            # Not forever: if a signal's exception interrupted a `poll` of this object, its lock
            # stays held, and the end of the process is never seen.
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(KILLED_SECONDS)
        self._copier.join(timeout=1)

    def _copy(self, log: IO[str], width: int) -> None:
        assert self._popen.stdout
        with self._popen.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))
                log.write(f"{self.name:<{width}} | {line}")
                log.flush()


def service_ports(names: Sequence[str], first: int, variable: str) -> dict[str, int]:
    """Choose ports on 127.0.0.1: `first` for the first service, free ones above for the others.

    Raises:
        UserError: The first port is taken.
    """
    if not _is_free(first):
        other = next((port for port in range(first + 1000, 32768) if _is_free(port)), 18000)
        raise UserError(
            f"Port {first} on 127.0.0.1 is taken by another program: stop it, or choose"
            f" another port, for example with {variable}={other} in .env."
        )
    ports = iter(port for port in range(first + 1, 65536) if _is_free(port))
    return {name: first if name == names[0] else next(ports) for name in names}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # like servers: a port in TIME_WAIT counts as free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
