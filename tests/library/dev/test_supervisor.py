"""The supervisor starts, restarts and stops processes, and leaves none running."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faststream_otel.dev import supervisor
from faststream_otel.dev.project import UserError
from faststream_otel.dev.signals import orderly_signals, uninterrupted
from faststream_otel.dev.supervisor import Command, Supervisor, service_ports

from ..ports import free_port

# Says that it runs, and that it ends; `stubborn` ignores the polite request, `slow` takes its time.
WORKER = """
import os, pathlib, signal, sys, time
name = sys.argv[1]
def end(number, frame):
    if name != "stubborn":
        if name == "slow":
            time.sleep(1)
        print(name, "ends", flush=True)
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(name, "runs", flush=True)
pathlib.Path(name + ".pid.part").write_text(str(os.getpid()))
os.replace(name + ".pid.part", name + ".pid")
if name == "broken":
    sys.exit(3)
while True:
    time.sleep(0.05)
"""

# A supervisor of its own process, to be killed.
SUPERVISOR = """
import os, pathlib, signal, sys, time
from faststream_otel.dev.signals import orderly_signals
from faststream_otel.dev.signals import orderly_signals, uninterrupted
from faststream_otel.dev.supervisor import Command, Supervisor
# As in a terminal: what a script runs in the background inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
commands = [Command(n, "worker", [n], os.environ) for n in sys.argv[1:]]
with orderly_signals(), Supervisor(commands, sys.stdout, print, pathlib.Path.cwd()):
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def commands(*names: str) -> list[Command]:
    return [Command(name, "worker", [name], os.environ) for name in names]


def until(check: Callable[[], object], what: str, seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def pid(folder: Path, name: str) -> int:
    path = folder / f"{name}.pid"
    until(path.exists, f"{name} to start")
    return int(path.read_text(encoding="utf-8"))


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    # One that ended, and that its new parent has not yet asked about, is not alive either.
    stat = Path(f"/proc/{number}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_first_is_stopped_before_the_others(folder: Path) -> None:
    log = io.StringIO()
    with Supervisor(commands("first", "second"), log, print, folder):
        pids = [pid(folder, "first"), pid(folder, "second")]
        until(lambda: log.getvalue().count("runs") == 2, "both to be heard")
    assert not any(map(alive, pids))
    lines = log.getvalue().splitlines()
    assert lines[-2:] == ["first  | first ends", "second | second ends"]


def test_what_does_not_stop_is_killed_and_named(folder: Path) -> None:
    said: list[str] = []
    with Supervisor(commands("stubborn"), io.StringIO(), said.append, folder, stop_seconds=0.3):
        number = pid(folder, "stubborn")
    assert not alive(number)
    assert said == ["stubborn did not stop within 0.3 s and was killed"]


def test_a_signal_that_interrupts_a_look_at_a_process_does_not_block_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "KILLED_SECONDS", 0.1)
    popens: list[subprocess.Popen[str]] = []
    real = subprocess.Popen.__init__

    def remember(self: "subprocess.Popen[str]", *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        popens.append(self)

    monkeypatch.setattr(subprocess.Popen, "__init__", remember)
    with Supervisor(commands("one"), io.StringIO(), print, folder, stop_seconds=0.1):
        until((folder / "one.pid").exists, "it to run")
        # As after an exception between taking it and its `try`, in `Popen.poll`.
        popens[0]._waitpid_lock.acquire()  # type: ignore[attr-defined]
    popens[0]._waitpid_lock.release()  # type: ignore[attr-defined]
    assert popens[0].wait(5) is not None


def test_a_service_that_ends_by_itself_is_reported_with_its_last_lines(folder: Path) -> None:
    with Supervisor(commands("broken"), io.StringIO(), print, folder) as supervisor:
        until(supervisor.ended, "its end")
        assert supervisor.ended() == {"broken": 3}
        until(lambda: supervisor.last_lines("broken") == ["broken runs"], "its output")


def test_a_stopped_service_is_not_reported(folder: Path) -> None:
    with Supervisor(
        commands("first", "stubborn"), io.StringIO(), print, folder, stop_seconds=0.5
    ) as supervisor:
        pids = [pid(folder, "first"), pid(folder, "stubborn")]
        stopping = threading.Thread(target=supervisor.stop)
        stopping.start()
        until(lambda: not alive(pids[0]), "the end of the first")
        assert alive(pids[1])
        assert supervisor.ended() == {}
        stopping.join()


def test_change_restarts(folder: Path) -> None:
    said: list[str] = []
    code = folder / "code"
    code.mkdir()
    with Supervisor(commands("first"), io.StringIO(), said.append, folder) as supervisor:
        before = pid(folder, "first")
        supervisor.restart_on_change(code)
        time.sleep(0.3)  # the watch begins
        (code / "new.py").touch()
        until(lambda: pid(folder, "first") != before, "another process")
        after = pid(folder, "first")
    assert not alive(before)
    assert not alive(after)
    assert said == ["new.py changed: restarting the services"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_outlives_the_supervisor(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, "first", "second"],
        cwd=folder,
        stderr=subprocess.DEVNULL,
    ) as supervisor:
        pids = [pid(folder, "first"), pid(folder, "second")]
        supervisor.send_signal(number)
        supervisor.wait(8)
    until(lambda: not any(map(alive, pids)), "the services to end")


def test_a_repeated_signal_does_not_interrupt_the_shutdown(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, "slow"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as supervisor:
        assert supervisor.stdout
        assert supervisor.stdout.readline() == "slow | slow runs\n"
        number = pid(folder, "slow")
        for _ in range(3):
            supervisor.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        said, _ = supervisor.communicate(timeout=8)
    assert said.splitlines() == ["slow | slow ends"]
    assert not alive(number)


def test_a_taken_port_is_named_with_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^Port {port} .* ORDERS_PORT=\d+ in \.env\.$"):
            service_ports(["orders", "payments"], port, "ORDERS_PORT")


def test_other_services_skip_a_taken_port() -> None:
    port = free_port(consecutive=3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        ports = service_ports(["orders", "payments"], port, "ORDERS_PORT")
    assert ports == {"orders": port, "payments": port + 2}


def test_an_interrupt_waits_for_the_end_of_what_must_be_whole() -> None:
    done: list[bool] = []

    def whole() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append(True)

    with orderly_signals(), pytest.raises(KeyboardInterrupt):
        whole()
    assert done
    with orderly_signals(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
