"""The commands for development. A placeholder until the branch that writes them is merged."""

COMMANDS: dict[str, str] = {
    "trace": "show a trace in the terminal",
    "service": "add a service to the project",
    "dev": "run everything here, without Docker",
}
"""Name and help of each; importable without the extra `cli`."""


def main(app: str | None, arguments: list[str]) -> int:
    """Run one of these commands and return its exit code.

    Args:
        app: The project's package, if `--app` or FASTSTREAM_OTEL_APP names it.
        arguments: The command's name, then its own arguments.
    """
    raise NotImplementedError(arguments[0])
