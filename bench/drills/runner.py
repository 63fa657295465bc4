"""Runs drills, and compares each with its promise."""

import sys
import time
from importlib import import_module
from pathlib import Path

from . import report
from .promises import PROMISES, Figures, broken
from .site import Run, Site

OUTPUT = Path(__file__).parents[2] / "build" / "drills.md"


def run_all(ground: Site, names: list[str]) -> int:
    """Run the drills, print the table; return 1 if a promise was broken."""
    rows: dict[str, str] = {}
    kept = True
    broker = ground.stack.broker
    for name in names:
        began = time.time()
        promise = PROMISES[name]
        print(f"{name}: {promise.fault} …", file=sys.stderr, flush=True)
        try:
            ground.wait_until_healthy()
            figures = run(ground, name)
            rows[name] = report.row(broker, promise, figures)
            reasons = broken(promise, figures)
        except Exception as error:  # report it as broken, and continue with the others
            rows[name] = report.failed(broker, promise, error)
            reasons = [f"the drill failed: {error}"]
        if reasons:
            kept = False
            log = OUTPUT.with_name(f"drills-{name}.log")
            log.parent.mkdir(exist_ok=True)
            log.write_text(ground.stack.last_logs(since=began), "utf-8")
            print(f"  the containers' logs are in {log}", file=sys.stderr)
            ground.stack.up()  # restore what the drill left behind
        took = time.time() - began
        print(f"  {'; '.join(reasons) or 'kept'} ({took:.0f} s)", file=sys.stderr, flush=True)
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(report.table(rows), "utf-8")
    print(report.table(rows), end="")
    return 0 if kept else 1


def run(ground: Site, name: str) -> Figures:
    """Run one drill, on a healthy stack."""
    drill = import_module(f".faults.{name}", __package__).drill
    figures: Figures = drill(Run(ground))
    return figures
