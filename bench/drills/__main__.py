"""Run drills one by one on one stack, print what each lost, fail if a promise is broken."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from e2e.brokers import chosen_broker
from matrix import OPTIONS

from . import page, runner, site
from .promises import PROMISES, drills_for


def main() -> int:
    parser = argparse.ArgumentParser(prog="make drills ARGS=…", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="drill", help="by default all of the broker; see --list"
    )
    parser.add_argument("--list", action="store_true", help="list the broker's drills, and exit")
    parser.add_argument("--rate", type=float, default=50, help="orders per second (default 50)")
    parser.add_argument("--quick", action="store_true", help="shorten long outages")
    parser.add_argument(
        "--messages", type=int, default=20_000,
        help="of the soak (default 20000; 432000 is 5 a second for a day)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, help="of the inputs that fuzz generates, to repeat a run"
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="take the last run's table into docs/drills.md, and exit",
    )
    chosen = parser.parse_args()
    if chosen.page:
        page.write(runner.OUTPUT.read_text("utf-8"))
        return 0
    if unknown := set(chosen.names) - PROMISES.keys():
        parser.error(f"no drill is called {', '.join(sorted(unknown))}; see --list")
    try:
        broker = chosen_broker()
    except ValueError as error:
        parser.error(str(error))
    default = OPTIONS["broker"][0]
    possible = drills_for(broker, default)
    if impossible := set(chosen.names) - {*possible}:
        parser.error(
            f"{', '.join(sorted(impossible))}: only with BROKER={default}; see --list for the"
            f" drills of {broker}"
        )
    if chosen.rate <= 0 or chosen.messages <= 0:
        parser.error("--rate and --messages must be above zero")
    if chosen.list:
        for name in possible:
            brokers = "every broker" if PROMISES[name].every_broker else default
            print(f"{name:<20}{brokers:<14}{PROMISES[name].fault}")
        return 0

    # On SIGTERM, for example by a timeout, clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="drills-") as folder:
        ground = site.make(
            Path(folder), chosen.rate, chosen.messages, chosen.seed, quick=chosen.quick
        )
        try:
            for missing in ground.stack.prepare_images():
                print(f"Not tested by this run: {missing}", file=sys.stderr)
            ground.stack.up()
            ground.channels.prepare()
            return runner.run_all(ground, chosen.names or possible)
        except AssertionError as error:
            print(ground.stack.last_logs(), file=sys.stderr)
            print(f"The stack failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("Interrupted; removing the stack", file=sys.stderr)
            return 130
        finally:
            ground.stack.down()


if __name__ == "__main__":
    sys.exit(main())
