"""`make dev`: everything without Docker until Ctrl-C, with traces as they complete."""

import time

from rich.console import Console

from .live import LiveTraces
from .local import run_locally
from .project import NEXT_STEP, ROOT, package


def run(console: Console) -> None:
    """Run until interrupted; a service that ends is told, and starts again on the next change."""

    def show(line: str) -> None:
        console.print(line, style="yellow", markup=False, highlight=False)

    with run_locally(show) as local:
        local.supervisor.restart_on_change(ROOT / "src" / package())
        console.print("Starting …", style="dim")
        local.wait_until_ready()
        for name, url in local.urls.items():
            console.print(f"  {name:<14} {url}", highlight=False)
        console.print(f"  {'output':<14} {local.log}", highlight=False)
        console.print("Each has /asyncapi (its messages), /metrics and /health/ready.")
        console.print(f"{NEXT_STEP} (Ctrl-C ends this run)", style="bold", highlight=False)
        console.print()
        traces = LiveTraces(local.sink, console)
        told: set[str] = set()
        try:
            while True:
                traces.show()
                ended = local.supervisor.ended()
                for name in ended.keys() - told:
                    show(
                        f"{name} ended with exit code {ended[name]}; it starts again when a file"
                        f" in src/ changes. Its last lines:"
                    )
                    for line in local.supervisor.last_lines(name)[-15:]:
                        show(f"  {line}")
                told = set(ended)
                time.sleep(0.2)
        finally:
            console.print("Stopping …", style="dim")
