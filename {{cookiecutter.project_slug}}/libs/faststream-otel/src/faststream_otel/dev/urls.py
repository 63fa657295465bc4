"""Lists the addresses of the stack in Docker."""

import re

from rich.console import Console

from .project import Project

PORT = re.compile(r"^#?(\w+)_PORT=(\d+)$", re.MULTILINE)
TITLES = {
    "RABBITMQ": "RabbitMQ",
    "NATS": "NATS",
    "OTLP_GRPC": "OTLP/gRPC",
    "OTLP_HTTP": "OTLP/HTTP",
}
NOTES = {
    "GRAFANA": "user admin; password: see .env",
    "ALERTMANAGER": "with COMPOSE_PROFILES=alertmanager",
    "LOKI": "API",
}


def show_urls(console: Console, project: Project) -> None:
    """Print the address for each port in .env.example, and the project's next step.

    Raises:
        UserError: The value of a variable is not a port.
    """
    example = project.root / ".env.example"
    ports = PORT.findall(example.read_text("utf-8")) if example.is_file() else []
    for name, default in ports:
        title = TITLES.get(name, name.replace("_", "-").capitalize())
        url = project.url(f"{name}_PORT", int(default))
        if name.lower() == project.broker:
            url = url.removeprefix("http://")
        line = f"  {title:<13} {url:<23} {NOTES.get(name, '')}".rstrip()
        console.print(line, highlight=False, soft_wrap=True)
    if project.next_step:
        console.print(f"\n{project.next_step}", highlight=False, markup=False)
