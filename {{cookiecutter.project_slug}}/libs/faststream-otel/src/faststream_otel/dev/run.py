"""Runs a project or an OTLP receiver until Ctrl-C, and shows each complete trace."""

import time

from rich.console import Console

from .live import LiveTraces
from .local import run_locally
from .project import Project
from .signals import uninterrupted

EXPORT_INTERVAL_SECONDS = 5.0
"""How long a service keeps a span before it sends it: the default of OTEL_BSP_SCHEDULE_DELAY."""


def run(console: Console, project: Project) -> None:
    """Run the project until interrupted. Report a service that ends; a change of code restarts it.

    Raises:
        UserError: A port is taken, or a service does not start.
    """

    def show(line: str) -> None:
        console.print(line, style="yellow", markup=False, highlight=False)

    with run_locally(show, project) as local:
        local.supervisor.restart_on_change(project.source)
        console.print("Starting …", style="dim")
        local.wait_until_ready()
        for name, url in local.urls.items():
            console.print(f"  {name:<14} {url}", highlight=False)
        console.print(f"  {'output':<14} {local.log}", highlight=False)
        console.print("Each serves /asyncapi.json (its messages), /metrics and /health/ready.")
        if project.next_step:
            console.print(project.next_step, style="bold", highlight=False, markup=False)
        console.print("Ctrl-C stops everything.\n", style="bold", highlight=False)
        traces = LiveTraces(local.receiver, console)
        reported: set[str] = set()
        try:
            while True:
                with uninterrupted():
                    traces.show()
                    ended = local.supervisor.ended()
                for name in ended.keys() - reported:
                    show(
                        f"{name} ended with exit code {ended[name]}; it starts again when a file"
                        " in src/ changes. Its last lines:"
                    )
                    for line in local.supervisor.last_lines(name)[-15:]:
                        show(f"  {line}")
                reported = set(ended)
                time.sleep(0.2)
        finally:
            console.print("Stopping …", style="dim")


def receive(console: Console | None, host: str, grpc_port: int, http_port: int, query: int) -> None:
    """Receive OTLP until interrupted. With a console, print each complete trace.

    Raises:
        OSError: A port is taken.
    """
    from .receiver import OtlpReceiver

    with OtlpReceiver(host, grpc_port, http_port, query) as receiver:
        print(f"OTLP/gRPC  {receiver.grpc_endpoint}")
        print(f"OTLP/HTTP  {receiver.http_endpoint}")
        print(f"traces     {receiver.query_endpoint}/api/v2/traces/<id>", flush=True)
        traces = LiveTraces(receiver, console, EXPORT_INTERVAL_SECONDS) if console else None
        while True:
            if traces:
                with uninterrupted():
                    traces.show()
            time.sleep(0.2)
