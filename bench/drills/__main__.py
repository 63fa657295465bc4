"""Run drills one by one on one stack, print what each lost, fail when a promise is broken."""

import argparse
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from . import report, site
from .promises import PROMISES, Figures, broken
from .site import Run, Site

OUTPUT = Path(__file__).parents[2] / "build" / "drills.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make drills ARGS=…", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="drill", help="by default all; see --list")
    parser.add_argument("--list", action="store_true", help="say which drills there are, and end")
    parser.add_argument("--rate", type=float, default=50, help="orders per second (default 50)")
    parser.add_argument("--quick", action="store_true", help="cut long outages short")
    parser.add_argument(
        "--messages", type=int, default=20_000,
        help="of the soak (default 20000; 432000 are what 5 a second make in a day)",
    )  # fmt: skip
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - PROMISES.keys():
        parser.error(f"no drill is called {', '.join(sorted(unknown))}; see --list")
    if chosen.rate <= 0 or chosen.messages <= 0:
        parser.error("--rate and --messages must be above zero")
    if chosen.list:
        for name, promise in PROMISES.items():
            print(f"{name:<20}{promise.fault}")
        return 0

    # Ended from outside, as by a timeout, it cleans up as it does after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="drills-") as folder:
        ground = site.make(Path(folder), chosen.rate, chosen.messages, quick=chosen.quick)
        try:
            for missing in ground.stack.prepare_images():
                print(f"Not proved by this run: {missing}", file=sys.stderr)
            ground.stack.up()
            return run_all(ground, chosen.names or [*PROMISES])
        except AssertionError as error:
            print(ground.stack.last_logs(), file=sys.stderr)
            print(f"The stack failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("Interrupted; removing the stack", file=sys.stderr)
            return 130
        finally:
            ground.stack.down()


def run_all(ground: Site, names: list[str]) -> int:
    """Run the drills, print the table; return 1 if a promise was broken."""
    rows: dict[str, str] = {}
    kept = True
    for name in names:
        started = time.monotonic()
        promise = PROMISES[name]
        print(f"{name}: {promise.fault} …", file=sys.stderr, flush=True)
        try:
            ground.wait_until_healthy()
            figures = run(ground, name)
            rows[name] = report.row(promise, figures)
            reasons = broken(promise, figures)
        except (AssertionError, OSError) as error:
            rows[name] = report.failed(promise, error)
            reasons = [f"the drill failed: {error}"]
            print(ground.stack.last_logs(), file=sys.stderr)
            ground.stack.up()
        kept &= not reasons
        took = time.monotonic() - started
        print(f"  {'; '.join(reasons) or 'kept'} ({took:.0f} s)", file=sys.stderr, flush=True)
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(report.table(rows), "utf-8")
    print(report.table(rows), end="")
    return 0 if kept else 1


def run(ground: Site, name: str) -> Figures:
    """Run one drill, on a stack that is well."""
    drill = import_module(f".faults.{name}", __package__).drill
    figures: Figures = drill(Run(ground))
    return figures


if __name__ == "__main__":
    sys.exit(main())
